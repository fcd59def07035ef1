#include "daemon/core/checkpoint.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/ledger.h"
#include "lib/buf.h"
#include "lib/err.h"
#include "lib/mem.h"
#include "proto/manifest.h"

#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS   60000

/* ---------------------------------------------------------------- memory */

void ckpt_destroy(void *object)
{
    struct ckpt *ckpt = object;
    if (ckpt == NULL) {
        return;
    }
    for (int64_t i = 0; ckpt->shards != NULL && i < ckpt->row.world_size; i++) {
        row_fini(&tables[TABLE_CKPT_SHARD], &ckpt->shards[i].row);
    }
    free(ckpt->shards);
    row_fini(&tables[TABLE_CHECKPOINT], &ckpt->row);
    free(ckpt);
}

static bool trained_before(const struct ckpt *a, const struct ckpt *b)
{
    return a->row.epoch != b->row.epoch ? a->row.epoch < b->row.epoch : a->row.step < b->row.step;
}

struct ckpt *ckpt_insert(struct core *core, struct ckpt *ckpt, struct job *job)
{
    ckpt->prev = core->ckpt_last;
    *(core->ckpt_last != NULL ? &core->ckpt_last->next : &core->ckpt_first) = ckpt;
    core->ckpt_last = ckpt;
    map_set(&core->ckpts, ckpt->row.id, ckpt);
    if (ckpt->row.state == CKPT_WRITING || ckpt->row.state == CKPT_COMMITTED) {
        ckpt->shards = mem_alloc_array((size_t)ckpt->row.world_size, sizeof *ckpt->shards);
    }
    if (job != NULL) {
        void *ckpts = job->ckpts;
        mem_grow(&ckpts, &job->ckpt_capacity, job->ckpt_count + 1, sizeof *job->ckpts);
        job->ckpts = ckpts;
        size_t at = job->ckpt_count++;
        while (at > 0 && trained_before(ckpt, job->ckpts[at - 1])) {
            job->ckpts[at] = job->ckpts[at - 1];
            at--;
        }
        job->ckpts[at] = ckpt;
    }
    return ckpt;
}

/* Its shard rows are of no use any more, once they are written. */
static void drop_shards(struct core *core, struct ckpt *ckpt)
{
    if (ckpt->shards != NULL) {
        struct ckpt *husk = mem_alloc(sizeof *husk);
        husk->row.world_size = ckpt->row.world_size;
        husk->shards = ckpt->shards;
        ckpt->shards = NULL;
        core_discard(core, ckpt_destroy, husk);
    }
}

static void leave_memory(struct core *core, struct ckpt *ckpt)
{
    struct job *job = core_job(core, ckpt->row.job_id);
    for (size_t i = 0; job != NULL && i < job->ckpt_count; i++) {
        if (job->ckpts[i] == ckpt) {
            memmove(job->ckpts + i, job->ckpts + i + 1,
                    (job->ckpt_count - i - 1) * sizeof *job->ckpts);
            job->ckpt_count--;
        }
    }
    *(ckpt->prev != NULL ? &ckpt->prev->next : &core->ckpt_first) = ckpt->next;
    *(ckpt->next != NULL ? &ckpt->next->prev : &core->ckpt_last) = ckpt->prev;
    map_remove(&core->ckpts, ckpt->row.id);
    core_discard(core, ckpt_destroy, ckpt);
}

static bool is_gone(const struct ckpt *ckpt)
{
    return ckpt->row.state == CKPT_DELETED && !ckpt->row.removing;
}

void ckpt_epoch_over(struct core *core, struct job *job)
{
    for (size_t i = job->ckpt_count; i-- > 0;) {
        if (is_gone(job->ckpts[i])) {
            leave_memory(core, job->ckpts[i]);
        }
    }
}

void ckpt_detach_job(struct core *core, struct job *job)
{
    ckpt_epoch_over(core, job);
    job->ckpt_count = 0;
}

/* ---------------------------------------------------------------- lookups */

struct ckpt *ckpt_newest(const struct job *job)
{
#ifdef MUTANT_resume_removed
    return job->ckpt_count > 0 ? job->ckpts[job->ckpt_count - 1] : NULL;
#endif
    for (size_t i = job->ckpt_count; i-- > 0;) {
        if (ckpt_is_good(job->ckpts[i])) {
            return job->ckpts[i];
        }
    }
    return NULL;
}

struct ckpt *ckpt_newest_of_epoch(const struct job *job, uint64_t epoch)
{
    struct ckpt *ckpt = ckpt_newest(job);
    return ckpt != NULL && ckpt->row.epoch == epoch ? ckpt : NULL;
}

static struct ckpt *find(const struct job *job, uint64_t epoch, int64_t step)
{
    for (size_t i = job->ckpt_count; i-- > 0;) {
        if (job->ckpts[i]->row.epoch == epoch && job->ckpts[i]->row.step == step) {
            return job->ckpts[i];
        }
    }
    return NULL;
}

char *core_ckpt_folder(const struct core *core, uint64_t job, int64_t submitted_ms,
                       const char *root)
{
    /* The time tells a job from another one with its number, of a database that was begun anew. */
    return mem_printf("%s/job-%06" PRIu64 "-%" PRIx64,
                      root != NULL ? root : core->config.checkpoint_dir, job,
                      (uint64_t)submitted_ms);
}

void ckpt_attempt_dir(const struct core *core, const struct job *job, const struct attempt *attempt,
                      char *text, size_t text_bytes)
{
    char *folder = core_ckpt_folder(core, job->row.id, job->row.submitted_ms, job->row.ckpt_dir);
    snprintf(text, text_bytes, "%s/t%05" PRId64 "-e%05" PRIu64, folder, attempt->row.term,
             attempt->row.epoch);
    free(folder);
}

static void encode_manifest(const struct ckpt *ckpt, struct buf *out)
{
    size_t count = (size_t)ckpt->row.world_size;
    struct manifest manifest = {
        .job = ckpt->row.job_id,
        .epoch = ckpt->row.epoch,
        .step = (uint64_t)ckpt->row.step,
        .world_size = (uint32_t)count,
        .layout = ckpt->row.layout,
        .shards = mem_alloc_array(count, sizeof *manifest.shards),
    };
    for (size_t i = 0; i < count; i++) {
        const struct ckpt_shard_row *row = &ckpt->shards[i].row;
        struct manifest_shard *shard = &manifest.shards[i];
        shard->rank = (uint32_t)i;
        shard->bytes = (uint64_t)row->bytes;
        snprintf(shard->file, sizeof shard->file, "%s", row->file);
        snprintf(shard->xxh3, sizeof shard->xxh3, "%s", row->xxh3);
        snprintf(shard->sha256, sizeof shard->sha256, "%s", row->sha256);
    }
    manifest_encode(&manifest, out);
    free(manifest.shards);
}

const char *ckpt_manifest(struct core *core, const struct ckpt *ckpt)
{
    struct buf text = {0};
    encode_manifest(ckpt, &text);
    const char *copy = effect_list_text(&core->effects, buf_cstr(&text));
    buf_fini(&text);
    return copy;
}

/* ---------------------------------------------------------------- orders */

static bool has_order(const struct ckpt *ckpt)
{
    return (ckpt->row.state == CKPT_COMMITTED && !ckpt->row.published) || ckpt->row.removing;
}

/* Who carries out an order about this checkpoint: the first connected node of the job's newest
 * attempt, else any: checkpoints are on shared storage. */
static const struct node *carrier(const struct core *core, const struct ckpt *ckpt)
{
    const struct job *job = core_job(core, ckpt->row.job_id);
    for (uint32_t i = 0; job != NULL && job->attempt != NULL && i < job->attempt->node_count; i++) {
        if (job->attempt->nodes[i].node->session != 0) {
            return job->attempt->nodes[i].node;
        }
    }
    for (size_t i = 0; i < core->node_count; i++) {
        if (core->nodes[i]->session != 0) {
            return core->nodes[i];
        }
    }
    return NULL;
}

static void order(struct core *core, const struct ckpt *ckpt, const struct node *node)
{
    const char *manifest = ckpt->row.removing ? NULL : ckpt_manifest(core, ckpt);
    const char *path = effect_list_text(&core->effects, ckpt->row.path);
    struct effect *effect = effect_list_add(
        &core->effects, ckpt->row.removing ? EFFECT_CKPT_REMOVE : EFFECT_CKPT_PUBLISH,
        node->session);
    effect->u.ckpt.ckpt = ckpt->row.id;
    effect->u.ckpt.path = path;
    effect->u.ckpt.manifest = manifest;
}

static void order_from_carrier(struct core *core, const struct ckpt *ckpt)
{
    const struct node *node = carrier(core, ckpt);
    if (node != NULL) {
        order(core, ckpt, node);
    }
}

void ckpt_redrive(struct core *core, const struct node *node)
{
    for (const struct ckpt *ckpt = core->ckpt_first; ckpt != NULL; ckpt = ckpt->next) {
        if (has_order(ckpt) && carrier(core, ckpt) == node) {
            order(core, ckpt, node);
        }
    }
}

void ckpt_reorder(struct core *core)
{
    for (const struct ckpt *ckpt = core->ckpt_first; ckpt != NULL; ckpt = ckpt->next) {
        if (has_order(ckpt)) {
            order_from_carrier(core, ckpt);
        }
    }
}

void ckpt_timer(struct core *core, uint64_t id)
{
    struct ckpt *ckpt = core_ckpt(core, id);
    if (ckpt != NULL && has_order(ckpt) && ckpt->retry_ms <= core->now_ms) {
        order_from_carrier(core, ckpt);
    }
}

/* A worker could not carry it out: again later, each time later. */
static void retry(struct core *core, struct ckpt *ckpt, const char *what, const char *why)
{
    ckpt->retry_wait_ms = ckpt->retry_wait_ms == 0 ? RETRY_FIRST_MS : ckpt->retry_wait_ms * 2;
    if (ckpt->retry_wait_ms > RETRY_MAX_MS) {
        ckpt->retry_wait_ms = RETRY_MAX_MS;
    }
    ckpt->retry_ms = core->now_ms + ckpt->retry_wait_ms;
    timers_set(&core->timers, TIMER_CKPT, ckpt->row.id, ckpt->retry_ms);
    core_event(core, "ckpt.order_failed", ckpt->row.job_id, ckpt->row.epoch, 0,
               "checkpoint %" PRIu64 " could not be %s, tried again in %.0f s: %s", ckpt->row.id,
               what, (double)ckpt->retry_wait_ms / 1000, why != NULL ? why : "no reason was given");
}

/* ---------------------------------------------------------------- end of a checkpoint */

void ckpt_set_newest(struct core *core, struct job *job)
{
    const struct ckpt *newest = ckpt_newest(job);
    job->row.ckpt_id = newest != NULL ? newest->row.id : 0;
    core_mark(core, TABLE_JOB, &job->row);
}

void ckpt_remove_files(struct core *core, struct ckpt *ckpt, const char *why)
{
    drop_shards(core, ckpt);
    ckpt->row.state = CKPT_DELETED;
    ckpt->row.removing = true;
    row_set_text(&ckpt->row.reason, why);
    core_mark(core, TABLE_CHECKPOINT, &ckpt->row);
    core_event(core, "ckpt.deleted", ckpt->row.job_id, ckpt->row.epoch, 0,
               "checkpoint %" PRIu64 " (job %" PRIu64 ", step %" PRId64 ") is removed: %s",
               ckpt->row.id, ckpt->row.job_id, ckpt->row.step, why);
    order_from_carrier(core, ckpt);
}

void ckpt_mark_corrupt(struct core *core, struct ckpt *ckpt, const char *reason)
{
    drop_shards(core, ckpt);
    ckpt->row.state = CKPT_CORRUPT;
    row_set_text(&ckpt->row.reason, reason != NULL ? reason : "a verification failed");
    core_mark(core, TABLE_CHECKPOINT, &ckpt->row);
    core_event(core, "ckpt.corrupt", ckpt->row.job_id, ckpt->row.epoch, 0,
               "checkpoint %" PRIu64 " (job %" PRIu64 ", step %" PRId64
               ") is corrupt and is not used again: %s",
               ckpt->row.id, ckpt->row.job_id, ckpt->row.step, ckpt->row.reason);
    struct job *job = core_job(core, ckpt->row.job_id);
    if (job != NULL) {
        ckpt_set_newest(core, job);
    }
}

void ckpt_drop_unfinished(struct core *core, struct job *job, uint64_t epoch)
{
    for (size_t i = 0; i < job->ckpt_count; i++) {
        struct ckpt *ckpt = job->ckpts[i];
        if (ckpt->row.state == CKPT_WRITING && ckpt->row.epoch == epoch) {
            ckpt_remove_files(core, ckpt, "its attempt ended before it was whole");
        }
    }
}

/* ---------------------------------------------------------------- shards */

static bool is_hex(const char *text, size_t len)
{
    return strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

/* What a rank says is used in paths and manifests, so it is checked here too. */
static const char *shard_problem(const struct input_shard *shard, const struct attempt *attempt)
{
    if (shard->world_size != attempt->world_size || shard->rank >= shard->world_size) {
        return "its rank or world size is not the attempt's";
    }
    size_t len = strlen(shard->file);
    if (len == 0 || len > CKPT_FILE_MAX || strchr(shard->file, '/') != NULL ||
        shard->file[0] == '.') {
        return "its file name is empty, too long, hidden or a path";
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)shard->file[i] <= 0x20 || strchr("\"\\\x7f", shard->file[i]) != NULL) {
            return "its file name has blanks, quotes or control characters";
        }
    }
    if (!is_hex(shard->xxh3, 32) || !is_hex(shard->sha256, 64)) {
        return "a digest is not 32 (xxh3) or 64 (sha256) lower-case hex digits";
    }
    if (shard->layout[0] != '{' || strlen(shard->layout) > CKPT_LAYOUT_MAX) {
        return "its layout is not a JSON object of at most 64 KiB";
    }
    if (shard->step > INT64_MAX || shard->bytes > INT64_MAX) {
        return "a number is out of range";
    }
    return NULL;
}

/* The attempt that may write now, or NULL after a refusal: the guard that makes a zombie harmless.
 */
static struct attempt *writing_attempt(struct core *core, const struct input *in)
{
    const struct input_shard *shard = &in->u.shard;
    struct job *job = core_job(core, shard->job);
    if (job == NULL && shard->job >= core->next_job) {
        core_reply(core, in, ERR_NOT_FOUND, "there is no job %" PRIu64, shard->job);
        return NULL;
    }
    struct attempt *attempt = job != NULL ? job->attempt : NULL;
    bool is_live = attempt != NULL && attempt->row.state != ATTEMPT_ENDED;
#ifdef MUTANT_epoch_guard
    if (is_live) {
        return attempt;
    }
#endif
    const struct node *node = core_node_of_session(core, in->session);
    if (!is_live || attempt->row.epoch != shard->epoch || node == NULL ||
        attempt_find_node(core, node, shard->job, shard->epoch) == NULL) {
        core_reply(core, in, ERR_STALE,
                   "epoch %" PRIu64 " of job %" PRIu64
                   " is over, or this node has no part in it: its checkpoints are not taken",
                   shard->epoch, shard->job);
        return NULL;
    }
    return attempt;
}

static struct ckpt *create(struct core *core, struct attempt *attempt,
                           const struct input_shard *shard)
{
    struct job *job = attempt->job;
    struct ckpt *ckpt = mem_alloc(sizeof *ckpt);
    bool passed = attempt->row.last_step != ROW_NONE && (int64_t)shard->step <= job->row.step;
    ckpt->row = (struct checkpoint_row){
        .id = core->next_ckpt++,
        .job_id = job->row.id,
        .epoch = shard->epoch,
        .step = (int64_t)shard->step,
        .state = CKPT_WRITING,
        .world_size = shard->world_size,
        .created_ms = core->now_ms,
        .step_at_ms = passed ? job->row.step_at_ms : core->now_ms,
        .committed_ms = ROW_NONE,
        .given_up = attempt->row.guard_back_to != ROW_NONE &&
                    (int64_t)shard->step > attempt->row.guard_back_to,
    };
    char dir[4096];
    ckpt_attempt_dir(core, job, attempt, dir, sizeof dir);
    char *path = mem_printf("%s/step-%010" PRIu64, dir, shard->step);
    row_set_text(&ckpt->row.path, path);
    free(path);
    row_set_text(&ckpt->row.layout, shard->layout);
    return ckpt_insert(core, ckpt, job);
}

/* The commit point: in one transaction with the last shard. */
static void commit(struct core *core, struct attempt *attempt, struct ckpt *ckpt)
{
    struct job *job = attempt->job;
    struct buf manifest = {0};
    encode_manifest(ckpt, &manifest);
    char sha256[65];
    manifest_digest_text(manifest.data, manifest.len, sha256);
    buf_fini(&manifest);
    ckpt->row.state = CKPT_COMMITTED;
    ckpt->row.committed_ms = core->now_ms;
    row_set_text(&ckpt->row.sha256, sha256);
    ckpt_set_newest(core, job);
    if (!ckpt->row.given_up) { /* else it was on its way when the guard went back: no progress */
        job->row.fruitless = 0;
        meter_keep_waits(core, attempt);
    }
    attempt_saved(core, attempt, core->now_ms - ckpt->row.step_at_ms);
    core_event(core, "ckpt.committed", job->row.id, ckpt->row.epoch, 0,
               "checkpoint %" PRIu64 " of job %" PRIu64 " (%s) at step %" PRId64
               " is committed: %" PRId64 " bytes in %" PRId64 " shards",
               ckpt->row.id, job->row.id, job->row.name, ckpt->row.step, ckpt->row.bytes,
               ckpt->row.world_size);
    order_from_carrier(core, ckpt);
    if (!ckpt->row.given_up) {
        ckpt_retain(core, job);
    }
}

static bool same_shard(const struct ckpt_shard *known, const struct input_shard *shard)
{
    return known->known && strcmp(known->row.file, shard->file) == 0 &&
           known->row.bytes == (int64_t)shard->bytes && strcmp(known->row.xxh3, shard->xxh3) == 0 &&
           strcmp(known->row.sha256, shard->sha256) == 0;
}

void ckpt_shard_report(struct core *core, const struct input *in)
{
    const struct input_shard *shard = &in->u.shard;
    struct attempt *attempt = writing_attempt(core, in);
    if (attempt == NULL) {
        return;
    }
    const char *problem = shard_problem(shard, attempt);
    if (problem != NULL) {
        core_reply(core, in, ERR_INVALID, "shard refused: %s", problem);
        return;
    }
    struct ckpt *ckpt = find(attempt->job, shard->epoch, (int64_t)shard->step);
    if (ckpt == NULL) {
        ckpt = create(core, attempt, shard);
    }
    if (strcmp(ckpt->row.layout, shard->layout) != 0) {
        core_reply(core, in, ERR_CONFLICT,
                   "shard refused: rank %" PRIu32 " has another layout than the first",
                   shard->rank);
        return;
    }
    if (ckpt->shards == NULL) {
        core_reply(core, in, 0, "%s",
                   ""); /* a repeat, much later: the checkpoint was given up since */
        return;
    }
    struct ckpt_shard *known = &ckpt->shards[shard->rank];
    if (same_shard(known, shard)) {
        core_reply(core, in, 0, "%s", ""); /* a repeat */
        return;
    }
    if (ckpt->row.state != CKPT_WRITING) {
        core_reply(core, in, ERR_CONFLICT, "shard refused: checkpoint %" PRIu64 " is already %s",
                   ckpt->row.id, ckpt_state_names[ckpt->row.state]);
        return;
    }
    ckpt->row.bytes += (int64_t)shard->bytes - (known->known ? known->row.bytes : 0);
    ckpt->known += !known->known;
    known->known = true;
    known->row.ckpt_id = ckpt->row.id;
    known->row.rank = shard->rank;
    known->row.bytes = (int64_t)shard->bytes;
    row_set_text(&known->row.file, shard->file);
    row_set_text(&known->row.xxh3, shard->xxh3);
    row_set_text(&known->row.sha256, shard->sha256);
    core_mark(core, TABLE_CKPT_SHARD, &known->row);
    core_mark(core, TABLE_CHECKPOINT, &ckpt->row);
    core_reply(core, in, 0, "%s", "");
#ifdef MUTANT_ckpt_short
    if (ckpt->known >= ckpt->row.world_size - 1) {
        commit(core, attempt, ckpt);
        return;
    }
#endif
    if (ckpt->known == ckpt->row.world_size) {
        commit(core, attempt, ckpt);
    }
}

/* ---------------------------------------------------------------- answers */

static struct ckpt *find_answered(struct core *core, const struct input *in)
{
    struct ckpt *ckpt = core_ckpt(core, in->u.ckpt.ckpt);
    if (ckpt == NULL || is_gone(ckpt)) {
        core_reply(core, in, ERR_NOT_FOUND,
                   "there is no checkpoint %" PRIu64 " on disk (dsctl ckpt list)", in->u.ckpt.ckpt);
        return NULL;
    }
    return ckpt;
}

void ckpt_verified(struct core *core, const struct input *in)
{
    struct ckpt *ckpt = find_answered(core, in);
    if (ckpt == NULL) {
        return;
    }
    if (ckpt->row.state != CKPT_COMMITTED) {
        core_reply(core, in, ERR_CONFLICT,
                   "checkpoint %" PRIu64 " is %s, only a COMMITTED one is verified", ckpt->row.id,
                   ckpt_state_names[ckpt->row.state]);
        return;
    }
    if (in->u.ckpt.ok) {
        core_event(core, "ckpt.verified", ckpt->row.job_id, ckpt->row.epoch, 0,
                   "checkpoint %" PRIu64 " is intact", ckpt->row.id);
    } else {
        ckpt_mark_corrupt(core, ckpt, in->u.ckpt.text);
    }
    core_reply(core, in, 0, "%s", "");
}

void ckpt_published(struct core *core, const struct input *in)
{
    struct ckpt *ckpt = find_answered(core, in);
    if (ckpt == NULL) {
        return;
    }
    if (ckpt->row.state == CKPT_COMMITTED && !ckpt->row.published) {
        if (in->u.ckpt.ok) {
            ckpt->row.published = true;
            ckpt->retry_wait_ms = 0;
            core_mark(core, TABLE_CHECKPOINT, &ckpt->row);
        } else {
            retry(core, ckpt, "published", in->u.ckpt.text);
        }
    }
    core_reply(core, in, 0, "%s", "");
}

void ckpt_removed(struct core *core, const struct input *in)
{
    struct ckpt *ckpt = find_answered(core, in);
    if (ckpt == NULL) {
        return;
    }
    if (ckpt->row.removing) {
        if (in->u.ckpt.ok) {
            ckpt->row.removing = false;
            core_mark(core, TABLE_CHECKPOINT, &ckpt->row);
            const struct job *job = core_job(core, ckpt->row.job_id);
            if (job == NULL || (uint64_t)job->row.epoch != ckpt->row.epoch) {
                leave_memory(core, ckpt);
            }
        } else {
            retry(core, ckpt, "removed", in->u.ckpt.text);
        }
    }
    core_reply(core, in, 0, "%s", "");
}
