/* Each (rank, stream) has its own offset; chunks are cut into lines so that those of several never
 * mix. A follower goes round all of them, then looks at the job: a newer attempt takes over when
 * the old one's streams are final. */
#include "ctl/logs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/encode.h"
#include "ctl/jobs.h"
#include "ctl/ranks.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/utf8.h"

#define CHUNK_BYTES (256u * 1024u)
#define CALL_MS     30000
#define PAUSE_MS    300
#define LOOK_MS     1000 /* between looks at the job */

struct stream {
    uint32_t rank;
    enum log_stream which;
    uint64_t offset;
    bool opened; /* offset is known */
    bool final;
    struct buf line; /* the unfinished one */
};

struct follower {
    struct ctl *ctl;
    const struct log_request *request;
    Ds__Job *job; /* owned; as last seen */
    uint64_t epoch;
    struct stream *streams; /* owned */
    size_t stream_count;
    bool many; /* lines say their rank */
    int prefix_width;
    bool tail;    /* still the first attempt, of which the end was asked for */
    bool waiting; /* it was said that we wait */
};

/* ---- printing */

static void print_json_line(const struct follower *f, const struct stream *s, const char *text,
                            size_t len)
{
    char *copy = mem_alloc(len + 1);
    memcpy(copy, text, len);
    utf8_clean(copy, len);
    json_t *object = json_pack("{s:s, s:I, s:I, s:I, s:s, s:s}", "schema", "ds/log/v1", "job",
                               (json_int_t)f->request->job, "epoch", (json_int_t)f->epoch, "rank",
                               (json_int_t)s->rank, "stream",
                               s->which == LOG_STDERR ? "stderr" : "stdout", "line", copy);
    struct buf out = {0};
    encode_json(&out, object, false);
    fprintf(f->ctl->out, "%s\n", buf_cstr(&out));
    buf_fini(&out);
    json_decref(object);
    free(copy);
}

static void print_line(const struct follower *f, const struct stream *s, const char *text,
                       size_t len)
{
    if (f->ctl->output.format == OUTPUT_JSON) {
        print_json_line(f, s, text, len);
        return;
    }
    if (f->many) {
        char prefix[24];
        snprintf(prefix, sizeof prefix, "[%u%s]", s->rank, s->which == LOG_STDERR ? "!" : "");
        fprintf(f->ctl->out, "%-*s", f->prefix_width, prefix);
    }
    fwrite(text, 1, len, f->ctl->out);
    fputc('\n', f->ctl->out);
}

static void take_bytes(const struct follower *f, struct stream *s, const uint8_t *data, size_t len)
{
    buf_append(&s->line, data, len);
    size_t start = 0;
    for (;;) {
        const uint8_t *at = s->line.data + start;
        const uint8_t *end = s->line.len > start ? memchr(at, '\n', s->line.len - start) : NULL;
        if (end == NULL) {
            break;
        }
        print_line(f, s, (const char *)at, (size_t)(end - at));
        start += (size_t)(end - at) + 1;
    }
    buf_consume(&s->line, start);
}

static void finish_line(const struct follower *f, struct stream *s)
{
    if (s->line.len > 0) {
        print_line(f, s, (const char *)s->line.data, s->line.len);
        buf_reset(&s->line);
    }
}

/* ---- reading */

static int call(struct follower *f, uint16_t method, const void *request, void *reply,
                struct err *err)
{
    return f->request->follow
               ? session_call_patiently(&f->ctl->session, method, request, reply, CALL_MS, -1, err)
               : session_call(&f->ctl->session, method, request, reply, err);
}

/* Prints what is there now. */
static int drain(struct follower *f, struct stream *s, bool *moved, struct err *err)
{
    for (bool end = s->final; !end;) {
        Ds__LogRead request = DS__LOG_READ__INIT;
        Ds__LogChunk *chunk = NULL;
        request.job = f->request->job;
        request.has_epoch = 1;
        request.epoch = f->epoch;
        request.rank = s->rank;
        request.stream = (uint32_t)s->which;
        request.offset = s->offset;
        request.has_limit_bytes = 1;
        request.limit_bytes = CHUNK_BYTES;
        request.has_tail_lines = f->tail && !s->opened;
        request.tail_lines = f->request->tail_lines;
        TRY(call(f, RPC_JOB_LOGS, &request, &chunk, err));
        take_bytes(f, s, chunk->data.data, chunk->data.len);
        *moved = *moved || chunk->data.len > 0;
        s->opened = true;
        s->offset = chunk->next_offset;
        s->final = chunk->final && chunk->end;
        end = chunk->end || chunk->data.len == 0;
        rpc_free(&chunk->base);
    }
    if (s->final || !f->request->follow) {
        finish_line(f, s);
    }
    return 0;
}

/* ---- the attempt */

static void forget_streams(struct follower *f)
{
    for (size_t i = 0; i < f->stream_count; i++) {
        finish_line(f, &f->streams[i]);
        buf_fini(&f->streams[i].line);
    }
    free(f->streams);
    f->streams = NULL;
    f->stream_count = 0;
}

static int open_attempt(struct follower *f, const Ds__Attempt *attempt, struct err *err)
{
    uint32_t per_node = f->job->gpus_per_node > 0 ? f->job->gpus_per_node : 1;
    uint32_t nodes = attempt->n_nodes > 0 ? (uint32_t)attempt->n_nodes : f->job->nodes_requested;
    const char *list = f->request->ranks != NULL ? f->request->ranks : "0";
    uint32_t *ranks = NULL;
    size_t count = 0;
    TRY(ranks_parse(list, nodes * per_node, &ranks, &count, err));
    forget_streams(f);
    f->epoch = attempt->epoch;
    f->many = count > 1 || strcmp(list, "all") == 0;
    f->prefix_width = snprintf(NULL, 0, "[%u!] ", ranks[count - 1]);
    f->streams = mem_alloc_array(count * 2, sizeof *f->streams);
    for (size_t i = 0; i < count; i++) {
        for (int which = LOG_STDOUT; which <= LOG_STDERR; which++) {
            if (((unsigned)f->request->streams & (unsigned)which) != 0) {
                f->streams[f->stream_count++] =
                    (struct stream){.rank = ranks[i], .which = (enum log_stream)which};
            }
        }
    }
    free(ranks);
    return 0;
}

static int look_at_job(struct follower *f, struct err *err)
{
    Ds__JobId request = DS__JOB_ID__INIT;
    Ds__Job *job = NULL;
    request.id = f->request->job;
    TRY(call(f, RPC_JOB_SHOW, &request, &job, err));
    rpc_free((ProtobufCMessage *)f->job);
    f->job = job;
    return 0;
}

/* The attempt asked for, or the newest; NULL when there is none. */
static const Ds__Attempt *find_attempt(const struct follower *f)
{
    const Ds__Attempt *newest = NULL;
    for (size_t i = 0; i < f->job->n_attempts; i++) {
        const Ds__Attempt *a = f->job->attempts[i];
        if (f->request->attempt != 0 ? a->attempt == f->request->attempt
                                     : newest == NULL || a->epoch > newest->epoch) {
            newest = a;
        }
    }
    return newest;
}

static int no_attempt(const struct follower *f, struct err *err)
{
    const Ds__Job *job = f->job;
    if (f->request->attempt != 0) {
        return err_set(err, ERR_NOT_FOUND,
                       "job %" PRIu64 " (%s) has no attempt %" PRIu64 ": it has had %" PRIu64,
                       job->id, job->name, f->request->attempt, job->attempt);
    }
    return err_set(err, ERR_NOT_FOUND,
                   "job %" PRIu64
                   " (%s) has no logs: it is %s and never started (dsctl job why %" PRIu64 ")",
                   job->id, job->name, job->state, job->id);
}

static void say_waiting(struct follower *f)
{
    if (!f->waiting) {
        const Ds__Reason *r = f->job->reason;
        bool told = r != NULL && r->text[0] != 0;
        ctl_note(f->ctl, "job %" PRIu64 " (%s) is %s%s%s; its logs follow when it starts",
                 f->job->id, f->job->name, f->job->state, told ? ": " : "", told ? r->text : "");
        f->waiting = true;
    }
}

/* Waits for the first attempt. */
static int first_attempt(struct follower *f, struct err *err)
{
    for (;;) {
        TRY(look_at_job(f, err));
        const Ds__Attempt *attempt = find_attempt(f);
        if (attempt != NULL) {
            return open_attempt(f, attempt, err);
        }
        if (!f->request->follow || f->request->attempt != 0 || job_has_ended(f->job->state)) {
            return no_attempt(f, err);
        }
        say_waiting(f);
        clock_sleep_ms(LOOK_MS);
    }
}

/* ---- going round */

static bool all_final(const struct follower *f)
{
    for (size_t i = 0; i < f->stream_count; i++) {
        if (!f->streams[i].final) {
            return false;
        }
    }
    return true;
}

/* What a node that is away or an attempt that is still starting answers: a follower asks again. */
static bool may_pass(int code)
{
    return code == ERR_UNREACHABLE || code == ERR_AGAIN || code == ERR_TIMEOUT ||
           code == ERR_NOT_FOUND;
}

/* One round over all streams. A trouble that may pass is kept in *trouble. */
static int go_round(struct follower *f, bool *moved, struct err *trouble, struct err *err)
{
    trouble->code = 0;
    for (size_t i = 0; i < f->stream_count; i++) {
        struct err e = {0};
        int rc = drain(f, &f->streams[i], moved, &e);
        if (rc != 0 && (!f->request->follow || !may_pass(rc))) {
            *err = e;
            return rc;
        }
        if (rc != 0) {
            *trouble = e;
        }
    }
    fflush(f->ctl->out);
    return ferror(f->ctl->out) ? err_set_errno(err, "cannot write the output") : 0;
}

/* Moves on to a newer attempt; *over when nothing more can come. */
static int next_attempt(struct follower *f, const struct err *trouble, bool *over, struct err *err)
{
    TRY(look_at_job(f, err));
    const Ds__Attempt *attempt = find_attempt(f);
    bool newer = attempt != NULL && attempt->epoch != f->epoch;
    if (newer && (all_final(f) || trouble->code != 0)) {
        ctl_note(f->ctl, "job %" PRIu64 ": attempt %" PRIu64 " starts here", f->job->id,
                 attempt->attempt);
        f->tail = false;
        return open_attempt(f, attempt, err);
    }
    bool ended = job_has_ended(f->job->state) || (f->request->attempt != 0 && all_final(f));
    *over = ended && !newer && (all_final(f) || trouble->code != 0);
    if (*over && trouble->code != 0 && !all_final(f)) {
        *err = *trouble;
        return trouble->code;
    }
    return 0;
}

static int follow(struct follower *f, struct err *err)
{
    int64_t looked_ms = clock_boot_ms();
    for (bool over = false; !over;) {
        bool moved = false;
        struct err trouble;
        TRY(go_round(f, &moved, &trouble, err));
        bool quiet = all_final(f) || trouble.code != 0;
        if (quiet || clock_boot_ms() - looked_ms >= LOOK_MS) {
            TRY(next_attempt(f, &trouble, &over, err));
            looked_ms = clock_boot_ms();
        }
        if (!moved && !over) {
            clock_sleep_ms(PAUSE_MS);
        }
    }
    return 0;
}

int logs_print(struct ctl *ctl, const struct log_request *request, struct err *err)
{
    struct follower f = {.ctl = ctl, .request = request, .tail = request->tail};
    bool moved = false;
    struct err trouble;
    int rc = first_attempt(&f, err);
    if (rc == 0) {
        rc = request->follow ? follow(&f, err) : go_round(&f, &moved, &trouble, err);
    }
    forget_streams(&f);
    rpc_free((ProtobufCMessage *)f.job);
    return rc;
}
