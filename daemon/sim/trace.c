#include "daemon/sim/trace.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"

#define TRACE_BYTES_MAX (1u << 30)

struct trace_job *trace_add(struct trace *trace)
{
    void *jobs = trace->jobs;
    mem_grow(&jobs, &trace->capacity, trace->count + 1, sizeof *trace->jobs);
    trace->jobs = jobs;
    struct trace_job *job = &trace->jobs[trace->count++];
    *job = (struct trace_job){0};
    return job;
}

void trace_fini(struct trace *trace)
{
    for (size_t i = 0; i < trace->count; i++) {
        free(trace->jobs[i].id);
        free(trace->jobs[i].user);
    }
    free(trace->jobs);
    *trace = (struct trace){0};
}

struct order {
    int64_t submit_ms;
    size_t at;
};

static int compare(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    if (x->submit_ms != y->submit_ms) {
        return x->submit_ms < y->submit_ms ? -1 : 1;
    }
    return x->at < y->at ? -1 : x->at > y->at;
}

/* By time of submit, those of the same time as in the file; the clock begins with the first. */
static void sort(struct trace *trace)
{
    struct order *order = mem_alloc_array(trace->count, sizeof *order);
    struct trace_job *jobs = mem_alloc_array(trace->count, sizeof *jobs);
    for (size_t i = 0; i < trace->count; i++) {
        order[i] = (struct order){trace->jobs[i].submit_ms, i};
    }
    qsort(order, trace->count, sizeof *order, compare);
    for (size_t i = 0; i < trace->count; i++) {
        jobs[i] = trace->jobs[order[i].at];
        jobs[i].submit_ms -= order[0].submit_ms;
    }
    free(order);
    free(trace->jobs);
    trace->jobs = jobs;
    trace->capacity = trace->count;
}

/* ---- the file */
static int unpack(const char *path, struct buf *out, struct err *err)
{
    gzFile file = gzopen(path, "rb");
    if (file == NULL) {
        return err_set_errno(err, "open %s", path);
    }
    gzbuffer(file, 1u << 17);
    int got, rc = 0;
    while ((got = gzread(file, buf_reserve(out, 1u << 20), 1u << 20)) > 0 && rc == 0) {
        out->len += (size_t)got;
        if (out->len > TRACE_BYTES_MAX) {
            rc = err_set(err, ERR_TOO_LARGE, "%s: more than %u bytes when unpacked", path,
                         TRACE_BYTES_MAX);
        }
    }
    int code;
    const char *why = gzerror(file, &code);
    if (rc == 0 && (got < 0 || code == Z_BUF_ERROR)) {
        rc = err_set(err, ERR_INVALID, "%s: a damaged gzip file: %s", path,
                     why[0] != 0 ? why : "it ends too early");
    }
    gzclose(file);
    return rc;
}

static int read_text(const char *path, struct buf *text, struct err *err)
{
    static const struct {
        const char *magic, *program;
    } packers[] = {{"\xfd"
                    "7zXZ",
                    "xz -d"},
                   {"BZh", "bunzip2"},
                   {"\x28\xb5\x2f\xfd", "zstd -d"},
                   {"PK\x03\x04", "unzip"}};
    TRY(file_read(path, TRACE_BYTES_MAX, text, err));
    if (text->len > 2 && memcmp(text->data, "\x1f\x8b", 2) == 0) {
        buf_reset(text);
        TRY(unpack(path, text, err));
    }
    for (size_t i = 0; i < sizeof packers / sizeof packers[0]; i++) {
        size_t len = strlen(packers[i].magic);
        if (text->len > len && memcmp(text->data, packers[i].magic, len) == 0) {
            return err_set(err, ERR_INVALID, "%s is packed: unpack it first (%s)", path,
                           packers[i].program);
        }
    }
    if (text->len > 0 && memchr(text->data, 0, text->len) != NULL) {
        return err_set(err, ERR_INVALID, "%s is no text: it holds a NUL byte", path);
    }
    return 0;
}

static bool is_swf(const char *path, const char *text)
{
    size_t len = strlen(path);
    len -= len > 3 && strcasecmp(path + len - 3, ".gz") == 0 ? 3 : 0;
    if (len > 4 && strncasecmp(path + len - 4, ".swf", 4) == 0) {
        return true;
    }
    if (len > 4 && strncasecmp(path + len - 4, ".csv", 4) == 0) {
        return false;
    }
    size_t line = strcspn(text, "\n");
    return text[0] == ';' || memchr(text, ',', line) == NULL;
}

int trace_load(struct trace *trace, const char *path, struct err *err)
{
    *trace = (struct trace){0};
    struct buf text = {0};
    int rc = read_text(path, &text, err);
    if (rc == 0) {
        char *content = buf_cstr(&text);
        rc = is_swf(path, content) ? trace_read_swf(trace, content, path, err)
                                   : trace_read_csv(trace, content, path, err);
    }
    buf_fini(&text);
    if (rc == 0 && trace->count == 0) {
        rc = err_set(err, ERR_INVALID,
                     "%s holds no job that ran (%zu jobs that never ran, or asked for nothing, "
                     "were left out)",
                     path, trace->skipped);
    }
    if (rc != 0) {
        trace_fini(trace);
        return rc;
    }
    sort(trace);
    return 0;
}
