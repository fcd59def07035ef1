#include "trainer/tfevents.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/mem.h"

uint32_t tfevents_crc32c(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1))); /* Castagnoli, reflected */
        }
    }
    return ~crc;
}

uint32_t tfevents_mask(uint32_t crc)
{
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

/* ---- protobuf by hand: the three wire types that Event needs */

static void put_varint(struct buf *b, uint64_t v)
{
    do {
        uint8_t byte = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        buf_append(b, &byte, 1);
        v >>= 7;
    } while (v > 0);
}

static void put_key(struct buf *b, uint32_t field, uint32_t wire_type)
{
    put_varint(b, (uint64_t)field << 3 | wire_type);
}

static void put_double(struct buf *b, uint32_t field, double v)
{
    put_key(b, field, 1);
    buf_append(b, &v, sizeof v);
}

static void put_float(struct buf *b, uint32_t field, float v)
{
    put_key(b, field, 5);
    buf_append(b, &v, sizeof v);
}

static void put_bytes(struct buf *b, uint32_t field, const void *data, size_t len)
{
    put_key(b, field, 2);
    put_varint(b, len);
    buf_append(b, data, len);
}

/* Event: 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log. */
static void begin_event(struct buf *event, int64_t wall_ms, uint64_t step)
{
    put_double(event, 1, (double)wall_ms / 1000);
    if (step > 0) {
        put_key(event, 2, 0);
        put_varint(event, step);
    }
}

static int write_record(struct tfevents *t, const struct buf *event, struct err *err)
{
    struct buf record = {0};
    uint64_t len = event->len;
    uint32_t crc = tfevents_mask(tfevents_crc32c(&len, sizeof len));
    buf_append(&record, &len, sizeof len);
    buf_append(&record, &crc, sizeof crc);
    buf_append(&record, event->data, event->len);
    crc = tfevents_mask(tfevents_crc32c(event->data, event->len));
    buf_append(&record, &crc, sizeof crc);
    int rc = file_write_all(t->fd, record.data, record.len, err);
    buf_fini(&record);
    if (rc != 0) {
        err_wrap(err, "%s", t->path);
    }
    return rc;
}

int tfevents_open(struct tfevents *t, const char *dir, uint64_t first_step, struct err *err)
{
    *t = (struct tfevents){.fd = -1};
    TRY(file_mkdirs(dir, 0777, err));
    char host[64] = "localhost";
    gethostname(host, sizeof host - 1);
    t->path = mem_printf("%s/events.out.tfevents.%lld.%s.%d", dir,
                         (long long)(clock_wall_ms() / 1000), host, (int)getpid());
    t->fd = open(t->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    int rc = t->fd >= 0 ? 0 : err_set_errno(err, "cannot create %s", t->path);
    struct buf event = {0};
    if (rc == 0) {
        begin_event(&event, clock_wall_ms(), 0);
        put_bytes(&event, 3, "brain.Event:2", strlen("brain.Event:2"));
        rc = write_record(t, &event, err);
    }
    if (rc == 0 && first_step > 0) {
        static const uint8_t start[] = {1 << 3, 1}; /* SessionLog: 1 status = START */
        buf_reset(&event);
        begin_event(&event, clock_wall_ms(), first_step);
        put_bytes(&event, 7, start, sizeof start);
        rc = write_record(t, &event, err);
    }
    buf_fini(&event);
    if (rc != 0) {
        tfevents_close(t);
    }
    return rc;
}

int tfevents_write(struct tfevents *t, int64_t wall_ms, uint64_t step,
                   const struct tfevents_scalar *scalars, size_t count, struct err *err)
{
    if (t->fd < 0) {
        return 0;
    }
    struct buf summary = {0};
    struct buf value = {0};
    struct buf event = {0};
    for (size_t i = 0; i < count; i++) { /* Summary: repeated 1 value {1 tag, 2 simple_value} */
        buf_reset(&value);
        put_bytes(&value, 1, scalars[i].tag, strlen(scalars[i].tag));
        put_float(&value, 2, (float)scalars[i].value);
        put_bytes(&summary, 1, value.data, value.len);
    }
    begin_event(&event, wall_ms, step);
    put_bytes(&event, 5, summary.data, summary.len);
    int rc = write_record(t, &event, err);
    buf_fini(&summary);
    buf_fini(&value);
    buf_fini(&event);
    return rc;
}

void tfevents_close(struct tfevents *t)
{
    if (t->path != NULL && t->fd >= 0) {
        close(t->fd);
    }
    free(t->path);
    *t = (struct tfevents){.fd = -1};
}
