/* The input twice: as bytes of a connection, and as method, kind and payload of a frame that passed
 * its checksum (which a fuzzer would hardly guess). What unpacks must pack again to something that
 * unpacks. */
#include <assert.h>

#include "proto/rpc.h"
#include "tests/fuzz/fuzz.h"

static void decode_stream(const uint8_t *data, size_t len)
{
    struct frame f;
    size_t used;
    while (frame_decode(data, len, FRAME_PAYLOAD_MAX_HELLO, &f, &used, NULL) == 0) {
        assert(used <= len && f.payload_bytes + FRAME_HEADER_BYTES == used);
        data += used;
        len -= used;
    }
}

static void pack_again(const struct frame *f, const ProtobufCMessage *message)
{
    struct buf out = {0};
    struct frame again;
    size_t used;
    ProtobufCMessage *copy;
    if (rpc_pack(&out, f->method, f->kind, 7, message) == 0) {
        int rc = frame_decode(out.data, out.len, FRAME_PAYLOAD_MAX, &again, &used, NULL);
        assert(rc == 0 && used == out.len && again.request_id == 7);
        rc = rpc_unpack(&again, &copy, NULL);
        assert(rc == 0);
        rpc_free(copy);
    }
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    decode_stream(data, len);
    if (len < 2) {
        return 0;
    }
    struct frame f = {.method = data[0],
                      .kind = (enum frame_kind)(1 + data[1] % 4),
                      .payload = data + 2,
                      .payload_bytes = (uint32_t)(len - 2)};
    ProtobufCMessage *message;
    struct err err;
    if (rpc_unpack(&f, &message, &err) == 0) {
        pack_again(&f, message);
        rpc_free(message);
    }
    if (f.kind == FRAME_ERROR) {
        int code = rpc_unpack_error(&f, &err);
        assert(code < 0);
    }
    return 0;
}
