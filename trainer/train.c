/* One step:
 *     gradients of the micro-batches -> summed over the ranks -> loss, loads and flags summed ->
 * norm, clipping -> AdamW
 *     -> router biases -> validation when due -> report -> checkpoint when due
 * What a rank decides on its own (a signal, the clock, a failed save) travels with the loss as a
 * flag, so that all ranks act on it after the same step. Everything else is a function of spec,
 * model, data and the checkpoint: a resumed run repeats the first one bit for bit on the same
 * layout. */
#include "trainer/train.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/utf8.h"
#include "proto/ds.pb-c.h"
#include "proto/reporter.h"
#include "trainer/agree.h"
#include "trainer/balance.h"
#include "trainer/ckpt_find.h"
#include "trainer/ckpt_load.h"
#include "trainer/ckpt_save.h"
#include "trainer/fault.h"
#include "trainer/feed.h"
#include "trainer/grad.h"
#include "trainer/model.h"
#include "trainer/optim.h"
#include "trainer/pipeline.h"
#include "trainer/profile.h"
#include "trainer/replicas.h"
#include "trainer/report.h"
#include "trainer/schedule.h"
#include "trainer/tie.h"
#include "trainer/watch.h"
#include "trainer/zero.h"

#define CKPT_AUTO_MS  300000 /* checkpoint.every: auto */
#define FLUSH_STEP_MS 1000
#define FLUSH_STOPPED_MS                                                                           \
    60000 /* how long a rank that was asked to go waits for its last save to be acknowledged */

struct train {
    const struct train_options *o;
    const struct train_spec *spec;
    struct feed feed;
    struct model *model;
    struct pipeline pipeline;
    struct param *params;
    size_t param_count;
    struct router *routers;
    size_t router_count;
    struct zero zero;
    struct optim optim;
    struct ckpt_tensors tensors;
    struct ckpt_saver *saver;
    struct watch watch;
    struct ckpt_facts at;      /* where the run stands */
    struct schedule_point now; /* of the step under way */
    double *layer_maxvio;      /* of each router, of the last step */
    struct report report;
    int32_t *tokens; /* this rank's sequences of a step, or a micro-batch of validation */
    int64_t saved_at_ms, step_began_ns;
    int64_t stall_ms, data_wait_ns;
    int64_t compare_ns; /* of all comparisons of replicas together */
    uint64_t compares;
};

/* What is summed over the ranks once a step. */
enum { LOSS, MTP_LOSS, TOKENS, STOP, STALE, SAVE, SAVE_FAILED, SUMS };

/* Sequences of a batch of n that are this rank's: [first, first + count). */
static void my_share(const struct train *t, uint64_t n, uint64_t *first, uint64_t *count)
{
    *count = n / mesh_batch_ways(t->o->mesh);
    *first = *count * mesh_batch_index(t->o->mesh);
}

/* ---- before the first step */

static void shard_durable(void *ctx, const struct ckpt_shard *shard)
{
    struct train *t = ctx;
    if (shard->rank == 0) {
        log_info("step %" PRIu64 ": wrote %s, %" PRIu64 " bytes in %" PRId64
                 " ms; training was held up %" PRId64 " ms",
                 shard->step, shard->file, shard->bytes, shard->write_ms, shard->stall_ms);
    }
    if (t->o->reporter == NULL) {
        return;
    }
    Ds__CkptShard part = DS__CKPT_SHARD__INIT;
    part.rank = shard->rank;
    part.file = (char *)shard->file;
    part.bytes = shard->bytes;
    part.xxh3 = (char *)shard->xxh3;
    part.sha256 = (char *)shard->sha256;
    Ds__ShardReport report = DS__SHARD_REPORT__INIT;
    report.step = shard->step;
    report.world_size = shard->world;
    report.shard = &part;
    report.layout = (char *)shard->layout;
    reporter_shard(t->o->reporter, &report);
}

static int create_model(struct train *t, struct err *err)
{
    struct model_options options = {
        .config = t->o->config,
        .op = t->o->op,
        .mesh = t->o->mesh,
        .expert_comm = t->o->expert,
        .precision = t->spec->precision,
        .recipe = &t->spec->recipe,
        .micro_batch = t->spec->micro_batch,
        .sequence_length = t->spec->sequence_length,
        .shortest_context = schedule_shortest_context(t->spec),
        .balance_alpha = t->spec->balance_loss,
        .mtp_lambda = t->spec->mtp_lambda,
        .init_std = t->spec->init_std,
        .seed = t->spec->seed,
    };
    uint64_t first;
    uint64_t count;
    my_share(t, t->spec->global_batch, &first, &count);
    uint32_t micros = (uint32_t)(count / t->spec->micro_batch);
    TRY(pipeline_plan(&options, t->spec->pipeline_kind, t->o->mesh, micros, err));
    TRY(model_create(&t->model, &options, err));
    pipeline_init(&t->pipeline, t->model, &options, t->spec->pipeline_kind, t->o->peers);
    t->params = model_params(t->model, &t->param_count);
    t->routers = model_routers(t->model, &t->router_count);
    t->layer_maxvio = mem_alloc_array(t->router_count, sizeof *t->layer_maxvio);
    return 0;
}

/* A product's order of additions depends on the number of threads. */
static int warn_of_threads(struct train *t, const struct ckpt_facts *was, struct err *err)
{
    uint64_t other = was->threads != 0 && was->threads != t->o->threads;
    TRY(t->o->world->ops->all_reduce_sum_u64(t->o->world, &other, 1, err));
    if (other > 0 && t->o->mesh->rank == 0) {
        log_warn(
            "the checkpoint was made with another number of threads than %" PRIu64
            " of the %u ranks have now: results repeat the other run's within rounding, not to "
            "the bit",
            other, t->o->mesh->world);
    }
    return 0;
}

/* Where the run stands, and how it came there. */
static void take_over(struct train *t, struct ckpt_facts *was)
{
    t->at.step = was->step;
    t->at.tokens = was->tokens;
    t->at.position = t->feed.cursor.position = was->position;
    t->at.loss = was->loss;
    t->at.mtp_loss = was->mtp_loss;
    t->at.valid_loss = was->valid_loss;
    t->at.valid_step = was->valid_step;
    t->at.guard = was->guard;
    t->at.origin = was->origin;
    was->origin = NULL;
}

static int resume(struct train *t, const char *dir, struct err *err)
{
    struct ckpt_facts was;
    int64_t start = clock_boot_ms();
    int rc = ckpt_load(dir, CKPT_ALL, &t->tensors, t->o->op, t->o->world, &was, err);
    if (rc == 0 && !was.weights_only) {
        rc = warn_of_threads(t, &was, err);
    }
    if (rc == 0 && t->o->mesh->rank == 0) {
        if (!was.weights_only) {
            ckpt_facts_warn(&was, &t->at);
        }
        log_info("resumed from %s: step %" PRIu64 ", %" PRIu64 " tokens%s, in %" PRId64 " ms", dir,
                 was.step, was.tokens, was.weights_only ? ", fresh optimiser moments" : "",
                 clock_boot_ms() - start);
    }
    if (rc == 0) {
        take_over(t, &was);
    }
    ckpt_facts_fini(&was);
    return rc;
}

/* Another run's weights, and nothing else of it. What is wrong with them no earlier checkpoint of
 * this job can mend, so it is wrong data. */
static int init_from(struct train *t, struct err *err)
{
    struct ckpt_facts was;
    struct comm *world = t->o->world;
    struct err why = {0};
    int64_t start = clock_boot_ms();
    char *dir = NULL; /* rank 0 looks for all: the newest of a running job may change meanwhile */
    if (world->rank == 0 && ckpt_find(t->spec->init_from, &dir, &why) != 0) {
        dir = NULL;
    }
    TRY(agree_text(world, &dir, err));
    if (dir == NULL) {
        return why.code != 0
                   ? err_set(err, ERR_DATA, "train.init_from: %s", why.text)
                   : err_set(err, ERR_DATA, "train.init_from: rank 0 finds no checkpoint in %s",
                             t->spec->init_from);
    }
    int rc = ckpt_load(dir, CKPT_WEIGHTS, &t->tensors, t->o->op, world, &was, err);
    if (rc == ERR_CORRUPT) {
        why = *err;
        *err = (struct err){0};
        rc = err_set(err, ERR_DATA, "train.init_from: %s", why.text);
    }
    if (rc == 0) {
        const char *before = was.origin != NULL ? was.origin : "random weights";
        t->at.origin = was.weights_only ? mem_strdup(before)
                                        : mem_printf("step %" PRIu64 " of %s, before that %.1000s",
                                                     was.step, dir, before);
        utf8_clean(t->at.origin, strlen(t->at.origin)); /* it may be cut */
        if (t->o->mesh->rank == 0) {
            log_info("starts with the weights of %s, of step %" PRIu64 " and %" PRIu64
                     " tokens, loaded in %" PRId64 " ms",
                     dir, was.step, was.tokens, clock_boot_ms() - start);
        }
    }
    ckpt_facts_fini(&was);
    free(dir);
    return rc;
}

/* Where the run begins, and what the guard decided about it. */
static int begin_run(struct train *t, struct err *err)
{
    const struct train_options *o = t->o;
    char *dir = NULL;
    bool own = o->resume_dir == NULL || watch_owns(&t->watch, o->resume_dir);
    TRY(watch_choose(&t->watch, o->resume_dir, own, &dir, err));
    int rc = 0;
    if (dir != NULL) {
        rc = resume(t, dir, err);
    } else if (t->spec->init_from != NULL) {
        rc = init_from(t, err);
    } else {
        model_init(t->model);
    }
    free(dir);
    TRY(rc);
    watch_take_over(&t->watch, t->spec, own, &t->at, &t->feed.cursor);
    model_refresh(t->model);
    return 0;
}

static void log_recipe(const struct recipe *recipe)
{
    struct buf text = {0};
    recipe_json(&text, recipe);
    log_info("recipe: %s", buf_cstr(&text));
    buf_fini(&text);
}

static int setup(struct train *t, struct err *err)
{
    const struct train_options *o = t->o;
    int rc = feed_open(&t->feed, t->spec, o->config->vocab_size, err);
    TRY(agree(o->world, rc, "opening the data", err));
    rc = create_model(t, err);
    TRY(agree(o->world, rc, "creating the model", err));
    struct optim_window windows[2];
    zero_init(&t->zero, t->model, t->spec->zero > 0, o->batch, o->data);
    zero_windows(&t->zero, windows);
    t->pipeline.final = (struct model_final){zero_final, &t->zero};
    optim_init(&t->optim, o->op, t->params, t->param_count, windows, 2);
    if (t->spec->ema > 0) {
        optim_keep_ema(&t->optim);
    }
    ckpt_tensors_init(&t->tensors, &t->optim, t->routers, t->router_count, o->mesh, t->zero.parted);
    t->saver = ckpt_saver_create(&t->tensors, o->op, o->ckpt_dir, o->mesh->rank, o->mesh->world,
                                 o->threads, shard_durable, t);
    uint64_t first;
    uint64_t count;
    my_share(t, t->spec->global_batch, &first, &count);
    t->tokens = mem_alloc_array((size_t)count * (t->spec->sequence_length + 1), sizeof *t->tokens);
    ckpt_facts_init(&t->at, o->spec, o->config, o->mesh, o->threads, t->feed.train_tokens);
    TRY(watch_init(&t->watch, t->spec, &t->at, o->world, o->reporter, o->ckpt_dir, o->epoch, err));
    TRY(begin_run(t, err));
    rc = report_init(&t->report, o->mesh->rank == 0, o->reporter, o->epoch, t->spec->steps,
                     o->tb_dir, t->at.step + 1, err);
    TRY(agree(o->world, rc, "opening the event files", err));
    if (o->mesh->rank == 0) {
        log_info("%s, %zu tensors here, %.1f MiB, %.1f MiB of optimiser state and %.1f MiB for a "
                 "checkpoint's copy a rank, mesh pipeline %u x expert %u x data %u, back end %s",
                 o->spec->name, t->param_count, (double)model_bytes(t->model) / (1 << 20),
                 (double)optim_bytes(&t->optim) / (1 << 20),
                 (double)ckpt_saver_bytes(t->saver) / (1 << 20), o->mesh->pipeline, o->mesh->expert,
                 o->mesh->data, o->op->name);
        log_recipe(&t->spec->recipe);
    }
    return 0;
}

static void teardown(struct train *t)
{
    report_fini(&t->report);
    ckpt_saver_destroy(t->saver);
    ckpt_tensors_fini(&t->tensors);
    optim_fini(&t->optim);
    zero_fini(&t->zero);
    pipeline_fini(&t->pipeline);
    model_destroy(t->model);
    feed_close(&t->feed);
    watch_fini(&t->watch);
    ckpt_facts_fini(&t->at);
    free(t->tokens);
    free(t->layer_maxvio);
}

/* ---- a step */

static void begin_step(struct train *t)
{
    t->now = schedule_next(t->spec, t->at.step, t->at.tokens);
    t->now.lr *= guard_lr_factor(&t->at.guard, t->now.step);
    model_set_context(t->model, t->now.context);
    model_set_mtp_lambda(t->model, t->now.mtp_lambda);
}

/* Micro-batch i of this rank's sequences of the step. */
static int train_tokens(void *ctx, uint32_t i, const int32_t **tokens, struct err *err)
{
    const struct train *t = ctx;
    (void)err;
    *tokens = t->tokens + (size_t)i * t->spec->micro_batch * ((size_t)t->spec->sequence_length + 1);
    return 0;
}

static int accumulate_gradients(struct train *t, struct model_losses *sums, struct err *err)
{
    uint64_t first;
    uint64_t count;
    my_share(t, t->now.batch, &first, &count);
    double targets = (double)t->now.batch * t->spec->sequence_length;
    const struct pipeline_feed feed = {t, train_tokens};
    int64_t start = clock_boot_ns();
    int rc = feed_train(&t->feed, first, (uint32_t)count, t->tokens, err);
    fault_tokens(&t->spec->fault, &t->feed, first, (uint32_t)count, t->tokens, t->o->epoch);
    t->data_wait_ns += clock_boot_ns() - start;
    TRY(agree(t->o->world, rc, "reading the data", err));
    model_zero_grad(t->model);
    model_router_reset(t->model);
    TRY(pipeline_train(&t->pipeline, &feed, (uint32_t)(count / t->spec->micro_batch), 1.0 / targets,
                       sums, err));
    TRY(tie_sum_gradient(t->model, t->o->ends, err));
    fault_gradient(&t->spec->fault, t->model, t->o->op, t->now.step, t->o->mesh->rank, t->o->epoch);
    return zero_reduce(&t->zero, err);
}

static bool save_is_due(const struct train *t)
{
    const struct ckpt_policy *policy = &t->o->spec->checkpoint;
    if (policy->every_steps > 0) {
        return (t->at.step + 1) % policy->every_steps == 0;
    }
    /* one clock decides for all: rank 0's */
    int64_t every_ms = policy->every_ms > 0 ? (int64_t)policy->every_ms : CKPT_AUTO_MS;
    return t->o->mesh->rank == 0 && clock_boot_ms() - t->saved_at_ms >= every_ms;
}

static int sum_facts(struct train *t, const struct model_losses *mine, double *sums,
                     struct err *err)
{
    bool stop = *t->o->stop != 0;
    bool stale = false;
    if (t->o->reporter != NULL) {
        stop = stop || reporter_stop_requested(t->o->reporter);
        stale = reporter_is_stale(t->o->reporter);
    }
    sums[LOSS] = mine->loss;
    sums[MTP_LOSS] = mine->mtp_loss;
    sums[TOKENS] = (double)mine->tokens;
    sums[STOP] = stop;
    sums[STALE] = stale;
    sums[SAVE] = save_is_due(t);
    sums[SAVE_FAILED] = ckpt_saver_failed(t->saver);
    TRY(t->o->world->ops->all_reduce_sum_f64(t->o->world, sums, SUMS, err));
    if (sums[STALE] > 0) {
        return err_set(err, ERR_STALE,
                       "epoch %" PRIu64 " of this job is over: another attempt runs", t->o->epoch);
    }
    if (sums[SAVE_FAILED] > 0) {
        return agree(t->o->world, ckpt_saver_failed(t->saver) ? ckpt_saver_wait(t->saver, err) : 0,
                     "checkpoint", err);
    }
    return 0;
}

static int check_course(struct train *t, const struct report_step *out, struct err *err)
{
    const struct guard_sample sample = {.step = t->at.step + 1,
                                        .loss = out->loss,
                                        .mtp_loss = out->mtp_loss,
                                        .grad_norm = out->grad_norm,
                                        .has_mtp = t->o->config->num_nextn_predict_layers > 0};
    const char *suspect = isfinite(out->grad_norm) ? NULL : grad_suspect(t->model, t->o->op);
    if (suspect != NULL) {
        log_warn("step %" PRIu64 ": not finite, first in the gradient of %s", sample.step, suspect);
    }
    return watch_step(&t->watch, &t->at.guard, &sample, err);
}

/* From the data to updated weights. */
static int optimise(struct train *t, struct report_step *out, double *sums, struct err *err)
{
    const struct train_options *o = t->o;
    struct model_losses mine = {0};
    uint64_t step = t->at.step + 1;
    begin_step(t);
    TRY(accumulate_gradients(t, &mine, err));
    TRY(sum_facts(t, &mine, sums, err));
    TRY(balance_sum_loads(t->routers, t->router_count, o->world, err));
    TRY(grad_norm(&t->zero, o->op, o->world, &out->grad_norm, err));
    out->loss = sums[LOSS] / sums[TOKENS];
    out->mtp_loss = o->config->num_nextn_predict_layers > 0 ? sums[MTP_LOSS] / sums[TOKENS] : NAN;
    TRY(check_course(t, out, err));
    double scale = grad_clip_scale(out->grad_norm, t->spec->optimizer.grad_clip);
    out->lr = t->now.lr;
    t->stall_ms += ckpt_saver_copied(t->saver);
    optim_step(&t->optim, t->spec, step, out->lr, scale);
    TRY(zero_gather(&t->zero, err));
    TRY(tie_copy_weights(t->model, o->ends, err));
    out->balance_maxvio = balance_max_violation(t->routers, t->router_count, t->layer_maxvio);
    out->layer_maxvio = t->layer_maxvio;
    out->routers = t->routers;
    out->router_count = t->router_count;
    balance_update(t->routers, t->router_count, t->now.bias_speed);
    fault_weight(&t->spec->fault, t->model, o->op, step, o->mesh->rank, o->epoch);
    model_refresh(t->model);
    t->at.step = step;
    t->at.tokens += (uint64_t)sums[TOKENS];
    cursor_advance(&t->feed.cursor, t->now.batch);
    t->at.position = t->feed.cursor.position;
    t->at.loss = out->loss;
    t->at.mtp_loss = out->mtp_loss;
    out->step = step;
    out->tokens = t->at.tokens;
    return 0;
}

static uint64_t valid_sequences(const struct train *t)
{
    return (uint64_t)t->spec->valid_batches * t->spec->global_batch;
}

static int valid_tokens(void *ctx, uint32_t i, const int32_t **tokens, struct err *err)
{
    struct train *t = ctx;
    uint64_t first;
    uint64_t count;
    my_share(t, valid_sequences(t), &first, &count);
    first += (uint64_t)i * t->spec->micro_batch;
    *tokens = t->tokens;
    return feed_valid(&t->feed, first, t->spec->micro_batch, valid_sequences(t), t->tokens, err);
}

/* Loss and MaxVio over the whole validation set, at the context of the step before. */
static int validate(struct train *t, struct report_step *out, struct err *err)
{
    uint64_t first;
    uint64_t count;
    my_share(t, valid_sequences(t), &first, &count);
    struct model_losses mine = {0};
    const struct pipeline_feed feed = {t, valid_tokens};
    model_router_reset(t->model);
    TRY(pipeline_eval(&t->pipeline, &feed, (uint32_t)(count / t->spec->micro_batch), true, &mine,
                      err));
    double sums[2] = {mine.loss, (double)mine.tokens};
    TRY(t->o->world->ops->all_reduce_sum_f64(t->o->world, sums, 2, err));
    TRY(balance_sum_loads(t->routers, t->router_count, t->o->world, err));
    out->valid_maxvio = balance_max_violation(t->routers, t->router_count, NULL);
    out->valid_loss = sums[0] / sums[1];
    t->at.valid_loss = out->valid_loss;
    t->at.valid_step = t->at.step;
    return 0;
}

/* Known beforehand: the first step shows where the run starts, the last where it ends. */
static bool validation_is_due(const struct train *t)
{
    uint64_t every = t->spec->valid_every;
    uint64_t step = t->at.step;
    return t->feed.has_valid && every > 0 &&
           (step == 1 || step == t->spec->steps || step % every == 0);
}

static int compare_replicas(struct train *t, struct err *err)
{
    const struct train_options *o = t->o;
    const struct replica_groups groups = {.world = o->world, .batch = o->batch, .data = o->data};
    struct replica_finding finding;
    int64_t start = clock_boot_ns();
    int rc = replicas_check(&t->tensors, o->op, o->mesh, &groups, &finding, err);
    t->compare_ns += clock_boot_ns() - start;
    t->compares++;
    return rc == ERR_SILENT ? watch_replicas(&t->watch, t->at.step, &finding, err) : rc;
}

static bool compare_is_due(const struct train *t)
{
    uint32_t every = t->spec->guard.compare_every;
    return every > 0 && t->at.step % every == 0;
}

/* For the record: the position alone decides what is shown. */
static void note_sources(struct train *t)
{
    uint64_t shown[DATA_SOURCES_MAX];
    feed_shown(&t->feed, shown);
    t->at.source_count = t->feed.source_count;
    for (uint32_t i = 0; i < t->feed.source_count; i++) {
        const struct corpus *c = &t->feed.sources[i];
        t->at.sources[i] = (struct ckpt_source){c->data.tokens, c->sampler.windows, shown[i]};
    }
}

/* last: this process trains no further. */
static int save(struct train *t, bool last, struct err *err)
{
    TRY(compare_replicas(t, err));
    note_sources(t);
    int64_t stall_ms = 0;
    int rc = ckpt_save(t->saver, &t->at, last, &stall_ms, err);
    t->stall_ms += stall_ms;
    t->saved_at_ms = clock_boot_ms();
    return rc;
}

static void finish_report(struct train *t, struct report_step *out)
{
    int64_t now = clock_boot_ns();
    out->step_ms = (now - t->step_began_ns) / 1000000;
    double seconds = (double)(now - t->step_began_ns) / 1e9;
    out->tokens_per_s = (double)t->now.batch * t->spec->sequence_length / seconds;
    out->ckpt_stall_ms = t->stall_ms;
    t->stall_ms = 0;
    out->data_wait_ms = t->data_wait_ns / 1000000;
    report_step(&t->report, out);
    profile_step(now - t->step_began_ns);
    t->step_began_ns = now;
    t->data_wait_ns = 0;
}

/* ---- the run */

/* Every rank's last save is written and acknowledged, or all fail alike. */
static int finish_saves(struct train *t, struct err *err)
{
    int rc = ckpt_saver_wait(t->saver, err);
    TRY(agree(t->o->world, rc, "checkpoint", err));
    if (t->o->reporter == NULL) {
        return 0;
    }
    for (int64_t deadline = 0;;) {
        rc = reporter_flush(t->o->reporter, FLUSH_STEP_MS, err);
        if (rc != ERR_TIMEOUT) {
            return rc;
        }
        bool leaving = *t->o->stop != 0 || reporter_stop_requested(t->o->reporter);
        if (leaving && deadline == 0) {
            deadline = clock_boot_ms() + FLUSH_STOPPED_MS;
        }
        if (leaving && clock_boot_ms() >= deadline) {
            return err_set(err, ERR_AGAIN,
                           "the checkpoint of step %" PRIu64
                           " is written, but the coordinator did not "
                           "acknowledge it in time",
                           t->at.step);
        }
    }
}

/* Another run's last step is this run's, too: it leaves a checkpoint of its own. */
static int nothing_to_do(struct train *t, struct err *err)
{
    if (t->o->mesh->rank == 0) {
        log_info("step %" PRIu64 " of %" PRIu64 " is done already", t->at.step, t->spec->steps);
    }
    if (t->o->resume_dir == NULL || watch_owns(&t->watch, t->o->resume_dir)) {
        return 0;
    }
    TRY(agree(t->o->world, save(t, true, err), "checkpoint", err));
    return finish_saves(t, err);
}

static int loop(struct train *t, struct err *err)
{
    if (t->at.step >= t->spec->steps) {
        return nothing_to_do(t, err);
    }
    t->saved_at_ms = clock_boot_ms();
    t->step_began_ns = clock_boot_ns();
    for (;;) {
        double sums[SUMS] = {0};
        struct report_step out = {.valid_loss = NAN, .valid_maxvio = NAN};
        TRY(optimise(t, &out, sums, err));
        if (validation_is_due(t)) {
            TRY(validate(t, &out, err));
        }
        bool last = t->at.step == t->spec->steps;
        bool stop = sums[STOP] > 0 && !last;
        if (sums[SAVE] > 0 || last || stop) {
            int rc = save(t, last || stop, err);
            TRY(agree(t->o->world, rc, "checkpoint", err));
        } else if (compare_is_due(t)) {
            TRY(compare_replicas(t, err));
        }
        finish_report(t, &out);
        if (last || stop) {
            TRY(finish_saves(t, err));
            return last ? 0
                        : err_set(err, ERR_PREEMPTED,
                                  "asked to stop: saved at step %" PRIu64 " and left", t->at.step);
        }
    }
}

int train_run(const struct train_options *options, struct err *err)
{
    struct train t = {.o = options, .spec = &options->spec->train};
    int rc = setup(&t, err);
    if (rc == 0) {
        rc = loop(&t, err);
    }
    if (rc == 0 && t.compares > 0 && options->mesh->rank == 0 && options->mesh->world > 1) {
        log_info("compared the replicas %" PRIu64 " times, %.1f ms each", t.compares,
                 (double)t.compare_ns / 1e6 / (double)t.compares);
    }
    teardown(&t);
    return rc;
}
