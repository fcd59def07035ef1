/* The frame codec: pure and incremental, no I/O. One frame carries one protobuf message.
 *
 *   0  u32  magic 'D','S','F','1'          16 u64 request id (chosen by the requester, answered
 * with the same) 4  u32  payload length                 24 u32 deadline in ms from sending, 0 none
 *   8  u16  method (proto/rpc.def)         28 u32 checksum: XXH32, seed 0, of bytes 0..27 and the
 * payload 10  u8   kind (enum frame_kind) 11  u8   flags, 0                        little-endian
 * throughout 12  u32  reserved, 0
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

#define FRAME_HEADER_BYTES      32u
#define FRAME_PAYLOAD_MAX_HELLO (16u * 1024u)        /* before the peer said HELLO */
#define FRAME_PAYLOAD_MAX       (4u * 1024u * 1024u) /* after */

enum frame_kind {
    FRAME_REQUEST = 1, /* wants a FRAME_REPLY or FRAME_ERROR with the same id */
    FRAME_REPLY = 2,
    FRAME_ERROR = 3,  /* payload is ds.Error */
    FRAME_ONEWAY = 4, /* no answer */
};

struct frame {
    uint16_t method;
    enum frame_kind kind;
    uint64_t request_id;
    uint32_t deadline_ms;
    const uint8_t *payload; /* borrowed */
    uint32_t payload_bytes;
};

/* Appends the encoded frame to *out. */
void frame_encode(const struct frame *f, struct buf *out);

/* Looks at the first bytes of a stream. Returns 0 and a frame (payload points into data) and its
 * whole size in *used; ERR_AGAIN when more bytes are needed; ERR_PROTOCOL on a wrong magic, kind or
 * flags, ERR_TOO_LARGE when the payload is over payload_max (known from the header alone),
 * ERR_CORRUPT on a checksum mismatch. After any but the first two the stream is lost: close it. */
int frame_decode(const uint8_t *data, size_t len, uint32_t payload_max, struct frame *f,
                 size_t *used, struct err *err);

#endif
