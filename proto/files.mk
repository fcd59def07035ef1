PROTO_SRC := proto/frame.c proto/wire.c proto/rpc.c proto/client.c
PROTO_TESTS :=
