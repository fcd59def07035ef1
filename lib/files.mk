LIB_SRC := lib/err.c lib/log.c lib/clock.c lib/mem.c lib/buf.c lib/buf_json.c lib/file.c lib/hostlist.c lib/sock.c lib/utf8.c lib/yaml.c lib/yaml_read.c lib/hash.c
LIB_TESTS := $(patsubst %,tests/unit/lib/test_%.c,basics file hostlist yaml)
