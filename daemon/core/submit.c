#include "daemon/core/submit.h"

#include <inttypes.h>

#include "daemon/core/job.h"
#include "daemon/core/node.h"
#include "lib/err.h"
#include "lib/mem.h"
#include "proto/jobspec.h"

static void reply_with_id(struct core *core, const struct input *in, uint64_t id, bool existing)
{
    if (in->token == 0) {
        return;
    }
    struct effect *reply = effect_list_add(&core->effects, EFFECT_REPLY, 0);
    reply->u.reply.token = in->token;
    reply->u.reply.id = id;
    reply->u.reply.existing = existing;
    reply->u.reply.text = "";
}

/* Whether the nodes ever registered could hold it, if they were all up and empty. Before the first
 * one, anything may come. */
static bool can_ever_fit(const struct core *core, const struct jobspec *spec,
                         uint32_t *large_enough)
{
    *large_enough = 0;
    for (size_t i = 0; i < core->node_count; i++) {
        *large_enough += node_capacity(core->nodes[i]) >= spec->gpus_per_node;
    }
    return core->node_count == 0 || *large_enough >= spec->nodes_min;
}

static struct job *create(struct core *core, const struct input_submit *submit)
{
    const struct jobspec *spec = submit->spec;
    struct job *job = mem_alloc(sizeof *job);
    struct job_row *row = &job->row;
    *row = (struct job_row){
        .id = core->next_job++,
        .priority = spec->priority,
        .nodes_requested = spec->nodes_min, /* an elastic job starts at its least size */
        .gpus_per_node = spec->gpus_per_node,
        .has_train = spec->has_train,
        .restart_max = spec->restart_max,
        .time_limit_ms = (int64_t)spec->time_limit_ms,
        .ckpt_keep = spec->checkpoint.keep > 0 ? spec->checkpoint.keep : 1,
        .state = JOB_PENDING,
        .submitted_ms = core->now_ms,
        .started_ms = ROW_NONE,
        .ended_ms = ROW_NONE,
        .exit_code = ROW_NONE,
        .exit_signal = ROW_NONE,
        .steps = spec->has_train ? (int64_t)spec->train.steps : 0,
        .loss = NAN,
        .mtp_loss = NAN,
        .grad_norm = NAN,
        .tokens_per_s = NAN,
        .valid_loss = NAN,
    };
    row_set_text(&row->submit_key, submit->key);
    row_set_text(&row->request_hash, submit->request_hash);
    row_set_text(&row->name, spec->name);
    row_set_text(&row->user, submit->user);
    row_set_text(&row->account, spec->account);
    row_set_text(&row->queue, spec->queue);
    row_set_text(&row->stage, spec->stage);
    row_set_text(&row->ckpt_dir, spec->checkpoint.dir);
    row_set_text(&row->spec, submit->spec_json);
    row_set_text(&row->model_json, submit->model_json);
    row_set_text(&row->workdir, submit->workdir);
    core_mark(core, TABLE_JOB, row);
    return job;
}

void job_submit(struct core *core, const struct input *in)
{
    const struct input_submit *submit = &in->u.submit;
    const struct jobspec *spec = submit->spec;
    if (submit->key != NULL && !submit->dry_run) {
        int same;
        uint64_t known = keys_find(&core->keys, submit->key, submit->request_hash, &same);
        if (known != 0 && same) {
            reply_with_id(core, in, known, true);
            return;
        }
        if (known != 0) {
            core_reply(core, in, ERR_CONFLICT,
                       "key %.80s was used for another request, job %" PRIu64
                       ": use a new key for a new job",
                       submit->key, known);
            return;
        }
    }
    uint32_t large_enough;
    if (!can_ever_fit(core, spec, &large_enough)) {
        core_reply(core, in, ERR_INVALID,
                   "%s: key 'nodes': the job can never start: it needs %" PRIu32
                   " nodes with %" PRIu32 " accelerators each, the cluster has %" PRIu32
                   " such nodes of %zu (lower nodes or "
                   "gpus_per_node)",
                   submit->place != NULL ? submit->place : spec->name, spec->nodes_min,
                   spec->gpus_per_node, large_enough, core->node_count);
        return;
    }
    if (submit->dry_run) {
        reply_with_id(core, in, 0, false);
        return;
    }
    struct job *job = create(core, submit);
    if (submit->key != NULL) {
        keys_add(&core->keys, submit->key, submit->request_hash, job->row.id);
    }
    job_insert(core, job);
    core_event(core, "job.submitted", job->row.id, 0, 0, "%s submitted job %" PRIu64 " (%s)",
               job->row.user, job->row.id, job->row.name);
    reply_with_id(core, in, job->row.id, false);
    job_enqueue(core, job);
}
