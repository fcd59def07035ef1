#include "daemon/sim/trace.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

static bool is_swf(const char *path, const char *text)
{
    size_t len = strlen(path);
    if (len > 4 && strcasecmp(path + len - 4, ".swf") == 0) {
        return true;
    }
    if (len > 4 && strcasecmp(path + len - 4, ".csv") == 0) {
        return false;
    }
    size_t line = strcspn(text, "\n");
    return text[0] == ';' || memchr(text, ',', line) == NULL;
}

int trace_load(struct trace *trace, const char *path, struct err *err)
{
    *trace = (struct trace){0};
    struct buf text = {0};
    int rc = file_read(path, TRACE_BYTES_MAX, &text, err);
    if (rc == 0 && text.len > 0 && memchr(text.data, 0, text.len) != NULL) {
        rc = err_set(err, ERR_INVALID,
                     "%s is no text: it holds a NUL byte (unpack it first, if it is compressed)",
                     path);
    }
    if (rc == 0) {
        char *content = buf_cstr(&text);
        rc = is_swf(path, content) ? trace_read_swf(trace, content, path, err)
                                   : trace_read_csv(trace, content, path, err);
    }
    buf_fini(&text);
    if (rc == 0 && trace->count == 0) {
        rc = err_set(err, ERR_INVALID, "%s holds no job that ran (%zu lines were skipped)", path,
                     trace->skipped);
    }
    if (rc != 0) {
        trace_fini(trace);
        return rc;
    }
    sort(trace);
    return 0;
}
