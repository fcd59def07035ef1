#include "proto/rpc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/wire.h"

/* What one message may take in memory once unpacked. A frame of the largest size that holds what
 * the schema means needs a fraction of it; one made of millions of empty items would need a hundred
 * times its own size. */
#define UNPACKED_BYTES_MAX (32u * 1024u * 1024u)
#define ERROR_TEXT_MAX     4096u

static const struct rpc_info methods[] = {
#define RPC(name, number, request, reply, deadline_ms)                                             \
    {number, #name, &ds__##request##__descriptor, &ds__##reply##__descriptor, deadline_ms},
#include "proto/rpc.def"
#undef RPC
};

const struct rpc_info *rpc_find(uint16_t number)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (methods[i].number == number) {
            return &methods[i];
        }
    }
    return NULL;
}

static const ProtobufCMessageDescriptor *type_of(const struct rpc_info *info, enum frame_kind kind)
{
    switch (kind) {
    case FRAME_REQUEST:
        return info->request;
    case FRAME_REPLY:
        return info->reply;
    case FRAME_ERROR:
        return &ds__error__descriptor;
    case FRAME_ONEWAY:
        return info->request == &ds__empty__descriptor ? info->reply : info->request;
    }
    return NULL;
}

static void pack(struct buf *out, const struct rpc_info *info, enum frame_kind kind,
                 uint64_t request_id, const ProtobufCMessage *message, size_t bytes)
{
    uint8_t *payload = mem_alloc(bytes);
    protobuf_c_message_pack(message, payload);
    wire_clean_strings(message->descriptor, payload, bytes);
    frame_encode(&(struct frame){.method = info->number,
                                 .kind = kind,
                                 .request_id = request_id,
                                 .deadline_ms = kind == FRAME_REQUEST ? info->deadline_ms : 0,
                                 .payload = payload,
                                 .payload_bytes = (uint32_t)bytes},
                 out);
    free(payload);
}

int rpc_pack(struct buf *out, uint16_t method, enum frame_kind kind, uint64_t request_id,
             const ProtobufCMessage *message)
{
    const struct rpc_info *info = rpc_find(method);
    assert(info != NULL && message->descriptor == type_of(info, kind));
    size_t bytes = protobuf_c_message_get_packed_size(message);
    if (bytes <= FRAME_PAYLOAD_MAX) {
        pack(out, info, kind, request_id, message, bytes);
        return 0;
    }
    if (kind == FRAME_REPLY) {
        rpc_pack_error(out, method, request_id, ERR_TOO_LARGE,
                       "the answer is over 4 MiB (ask for less, for example with a limit)");
    }
    return ERR_TOO_LARGE;
}

void rpc_pack_error(struct buf *out, uint16_t method, uint64_t request_id, int code,
                    const char *text)
{
    const struct rpc_info *info = rpc_find(method);
    struct rpc_info unknown = {.number = method};
    char cut[ERROR_TEXT_MAX];
    size_t len = strnlen(text, sizeof cut - 1);
    memcpy(cut, text, len);
    cut[len] = 0;
    Ds__Error message = DS__ERROR__INIT;
    message.code = code != 0 ? code : ERR_FAILED;
    message.text = cut;
    pack(out, info != NULL ? info : &unknown, FRAME_ERROR, request_id, &message.base,
         protobuf_c_message_get_packed_size(&message.base));
}

static void *bounded_alloc(void *left, size_t bytes)
{
    size_t *budget = left;
    if (bytes > *budget) {
        *budget = 0;
        return NULL;
    }
    *budget -= bytes;
    return malloc(bytes > 0 ? bytes : 1);
}

static void bounded_free(void *left, void *p)
{
    (void)left;
    free(p);
}

static int unpack(const struct frame *f, const ProtobufCMessageDescriptor *type,
                  ProtobufCMessage **message, struct err *err)
{
    TRY(wire_check_strings(type, f->payload, f->payload_bytes, err));
    size_t budget = UNPACKED_BYTES_MAX;
    ProtobufCAllocator allocator = {bounded_alloc, bounded_free, &budget};
    *message = protobuf_c_message_unpack(type, &allocator, f->payload_bytes, f->payload);
    if (*message == NULL && budget == 0) {
        return err_set(err, ERR_PROTOCOL, "%s message needs more than %u bytes of memory",
                       type->short_name, UNPACKED_BYTES_MAX);
    }
    if (*message == NULL) {
        return err_set(err, ERR_PROTOCOL, "malformed %s message (method %u)", type->short_name,
                       f->method);
    }
    return 0;
}

int rpc_unpack(const struct frame *f, ProtobufCMessage **message, struct err *err)
{
    const struct rpc_info *info = rpc_find(f->method);
    *message = NULL;
    if (info == NULL) {
        return err_set(err, ERR_PROTOCOL, "unknown method %u (a newer peer?)", f->method);
    }
    return unpack(f, type_of(info, f->kind), message, err);
}

void rpc_free(ProtobufCMessage *message)
{
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

int rpc_unpack_error(const struct frame *f, struct err *err)
{
    ProtobufCMessage *message;
    int rc = unpack(f, &ds__error__descriptor, &message, err);
    if (rc != 0) {
        return rc;
    }
    const Ds__Error *e = (const Ds__Error *)message;
    /* A newer peer may know codes that this program does not. */
    int code = e->code < 0 && e->code > -ERR_COUNT ? e->code : ERR_FAILED;
    err_set(err, code, "%s", e->text);
    rpc_free(message);
    return code;
}
