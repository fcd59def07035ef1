PROTO_SRC := proto/frame.c proto/wire.c proto/rpc.c
PROTO_TESTS :=
