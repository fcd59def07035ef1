#include "proto/frame.h"

#include <assert.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>

enum { AT_MAGIC = 0, AT_BYTES = 4, AT_METHOD = 8, AT_KIND = 10, AT_FLAGS = 11, AT_RESERVED = 12 };
enum { AT_REQUEST_ID = 16, AT_DEADLINE = 24, AT_CHECKSUM = 28 };

static const uint8_t magic[4] = {'D', 'S', 'F', '1'};

static void put(uint8_t *p, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get(const uint8_t *p, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) {
        value |= (uint64_t)p[i] << (8 * i);
    }
    return value;
}

static uint32_t checksum(const uint8_t *header, const uint8_t *payload, size_t bytes)
{
    XXH32_state_t state;
    XXH32_reset(&state, 0);
    XXH32_update(&state, header, AT_CHECKSUM);
    if (bytes > 0) {
        XXH32_update(&state, payload, bytes);
    }
    return XXH32_digest(&state);
}

void frame_encode(const struct frame *f, struct buf *out)
{
    assert(f->payload_bytes <= FRAME_PAYLOAD_MAX);
    assert(f->kind >= FRAME_REQUEST && f->kind <= FRAME_ONEWAY);
    uint8_t header[FRAME_HEADER_BYTES] = {0};
    memcpy(header + AT_MAGIC, magic, sizeof magic);
    put(header + AT_BYTES, f->payload_bytes, 4);
    put(header + AT_METHOD, f->method, 2);
    put(header + AT_KIND, f->kind, 1);
    put(header + AT_REQUEST_ID, f->request_id, 8);
    put(header + AT_DEADLINE, f->deadline_ms, 4);
    put(header + AT_CHECKSUM, checksum(header, f->payload, f->payload_bytes), 4);
    buf_append(out, header, sizeof header);
    buf_append(out, f->payload, f->payload_bytes);
}

int frame_decode(const uint8_t *data, size_t len, uint32_t payload_max, struct frame *f,
                 size_t *used, struct err *err)
{
    size_t seen = len < sizeof magic ? len : sizeof magic;
    if (seen > 0 && memcmp(data, magic, seen) != 0) {
        return err_set(err, ERR_PROTOCOL,
                       "not a frame: the first bytes are not DSF1 (another program?)");
    }
    if (len < FRAME_HEADER_BYTES) {
        return ERR_AGAIN;
    }
    unsigned kind = data[AT_KIND];
    if (kind < FRAME_REQUEST || kind > FRAME_ONEWAY) {
        return err_set(err, ERR_PROTOCOL, "frame of unknown kind %u", kind);
    }
    if (data[AT_FLAGS] != 0 || get(data + AT_RESERVED, 4) != 0) {
        return err_set(err, ERR_PROTOCOL, "frame with unknown flags (a newer peer?)");
    }
    uint32_t bytes = (uint32_t)get(data + AT_BYTES, 4);
    if (bytes > payload_max) {
        return err_set(err, ERR_TOO_LARGE, "frame of %u bytes, at most %u are allowed here", bytes,
                       payload_max);
    }
    if (len - FRAME_HEADER_BYTES < bytes) {
        return ERR_AGAIN;
    }
    const uint8_t *payload = data + FRAME_HEADER_BYTES;
    if (checksum(data, payload, bytes) != get(data + AT_CHECKSUM, 4)) {
        return err_set(err, ERR_CORRUPT, "frame with a wrong checksum");
    }
    *f = (struct frame){
        .method = (uint16_t)get(data + AT_METHOD, 2),
        .kind = (enum frame_kind)kind,
        .request_id = get(data + AT_REQUEST_ID, 8),
        .deadline_ms = (uint32_t)get(data + AT_DEADLINE, 4),
        .payload = payload,
        .payload_bytes = bytes,
    };
    *used = FRAME_HEADER_BYTES + (size_t)bytes;
    return 0;
}
