/* One line a key, in the order of jobspec.h. The forms are those that parse back to the same
 * values: nodes as a range, durations in ms, the length as steps. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/buf_json.h"
#include "proto/jobspec.h"
#include "proto/jobspec_fields.h"

static const char *const precisions[] = {"fp32", "bf16", "fp8"};
static const char *const backends[] = {"cpu", "cuda"};
static const char *const pipeline_kinds[] = {"1f1b", "dualpipev"};

static void put_key(struct buf *out, const char *key)
{
    const char *comma = out->len > 0 && out->data[out->len - 1] != '{' ? ", " : "";
    buf_printf(out, "%s\"%s\": ", comma, key);
}

static void put_text(struct buf *out, const char *key, const char *text)
{
    put_key(out, key);
    buf_json_text(out, text);
}

static void put_u64(struct buf *out, const char *key, uint64_t value)
{
    put_key(out, key);
    buf_printf(out, "%" PRIu64, value);
}

static void put_double(struct buf *out, const char *key, double value)
{
    put_key(out, key);
    buf_json_double(out, value);
}

static void put_no_decay(struct buf *out, uint32_t groups)
{
    put_key(out, "no_decay");
    buf_append_str(out, "[");
    for (uint32_t g = 0; jobspec_decay_groups[g] != NULL; g++) {
        if ((groups & 1u << g) != 0) {
            buf_append_str(out, out->data[out->len - 1] == '[' ? "" : ", ");
            buf_json_text(out, jobspec_decay_groups[g]);
        }
    }
    buf_append_str(out, "]");
}

static void put_train(struct buf *out, const struct train_spec *t)
{
    put_key(out, "train");
    buf_append_str(out, "{");
    put_text(out, "model", t->model);
    put_key(out, "data");
    data_spec_put(out, &t->data);
    put_key(out, "init_from");
    if (t->init_job != 0) {
        buf_printf(out, "\"job:%" PRIu64 "\"", t->init_job);
    } else {
        buf_json_text(out, t->init_from);
    }
    put_key(out, "rope_scaling");
    rope_scaling_json(out, &t->rope);
    put_u64(out, "sequence_length", t->sequence_length);
    put_u64(out, "global_batch", t->global_batch);
    put_u64(out, "micro_batch", t->micro_batch);
    put_u64(out, "steps", t->steps);
    put_text(out, "precision", precisions[t->precision]);
    put_text(out, "backend", backends[t->backend]);
    put_key(out, "recipe");
    recipe_json(out, &t->recipe);
    put_key(out, "parallel");
    buf_append_str(out, "{");
    put_u64(out, "pipeline", t->pipeline);
    put_u64(out, "expert", t->expert);
    put_text(out, "schedule", pipeline_kinds[t->pipeline_kind]);
    put_u64(out, "zero", t->zero);
    buf_append_str(out, "}");
    put_key(out, "optimizer");
    buf_append_str(out, "{");
    put_double(out, "lr", t->optimizer.lr);
    put_double(out, "lr_min", t->optimizer.lr_min);
    put_u64(out, "warmup_steps", t->optimizer.warmup_steps);
    put_u64(out, "constant_steps", t->optimizer.constant_steps);
    put_double(out, "beta1", t->optimizer.beta1);
    put_double(out, "beta2", t->optimizer.beta2);
    put_double(out, "eps", t->optimizer.eps);
    put_double(out, "weight_decay", t->optimizer.weight_decay);
    put_double(out, "grad_clip", t->optimizer.grad_clip);
    put_no_decay(out, t->optimizer.no_decay);
    buf_append_str(out, "}");
    put_double(out, "ema", t->ema);
    put_key(out, "schedule");
    schedule_spec_json(out, &t->plan);
    put_key(out, "guard");
    guard_spec_json(out, &t->guard);
    put_key(out, "fault");
    fault_spec_json(out, &t->fault);
    put_double(out, "bias_update_speed", t->bias_update_speed);
    put_double(out, "balance_loss", t->balance_loss);
    put_double(out, "mtp_lambda", t->mtp_lambda);
    put_double(out, "init_std", t->init_std);
    put_u64(out, "seed", t->seed);
    put_u64(out, "valid_every", t->valid_every);
    put_u64(out, "valid_batches", t->valid_batches);
    buf_append_str(out, "}");
}

static void put_command(struct buf *out, const struct jobspec *spec)
{
    put_key(out, "command");
    for (size_t i = 0; i < spec->command_count; i++) {
        buf_append_str(out, i == 0 ? "[" : ", ");
        buf_json_text(out, spec->command[i]);
    }
    buf_append_str(out, "]");
}

static void put_env(struct buf *out, const struct jobspec *spec)
{
    put_key(out, "env");
    buf_append_str(out, "{");
    for (size_t i = 0; i < spec->env_count; i++) {
        const char *equals = strchr(spec->env[i], '=');
        buf_printf(out, "%s\"%.*s\": ", i > 0 ? ", " : "", (int)(equals - spec->env[i]),
                   spec->env[i]);
        buf_json_text(out, equals + 1);
    }
    buf_append_str(out, "}");
}

static void put_checkpoint(struct buf *out, const struct ckpt_policy *p)
{
    put_key(out, "checkpoint");
    buf_append_str(out, "{");
    if (p->every_steps > 0) {
        put_u64(out, "every", p->every_steps);
    } else if (p->every_ms > 0) {
        put_key(out, "every");
        buf_printf(out, "\"%" PRIu64 "ms\"", p->every_ms);
    } else {
        put_text(out, "every", "auto");
    }
    put_u64(out, "keep", p->keep);
    put_text(out, "dir", p->dir);
    buf_append_str(out, "}");
}

static void put_array(struct buf *out, const struct jobspec *spec)
{
    char *text = spec->array_count > 0
                     ? array_format(spec->array, spec->array_count, spec->array_limit)
                     : NULL;
    put_text(out, "array", text);
    free(text);
}

static void put_dependencies(struct buf *out, const struct jobspec *spec)
{
    put_key(out, "dependencies");
    buf_append_str(out, "{");
    for (int kind = 0; dependency_names[kind] != NULL; kind++) {
        put_key(out, dependency_names[kind]);
        buf_append_str(out, "[");
        const char *comma = "";
        for (size_t i = 0; i < spec->dependency_count; i++) {
            if ((int)spec->dependencies[i].kind == kind) {
                buf_printf(out, "%s%" PRIu64, comma, spec->dependencies[i].job);
                comma = ", ";
            }
        }
        buf_append_str(out, "]");
    }
    put_key(out, "singleton");
    buf_append_str(out, spec->singleton ? "true" : "false");
    buf_append_str(out, "}");
}

static void put_time(struct buf *out, const char *key, struct jobspec_time time)
{
    put_key(out, key);
    if (time.in_ms > 0) {
        buf_printf(out, "\"%" PRIu64 "ms\"", time.in_ms);
    } else if (time.at_ms != 0) {
        char text[32];
        time_format(time.at_ms, text, sizeof text);
        buf_printf(out, "\"%s\"", text);
    } else {
        buf_append_str(out, "null");
    }
}

static void put_when(struct buf *out, const struct jobspec *spec)
{
    static const char *const preemptible[] = {"null", "true", "false"};
    put_array(out, spec);
    put_dependencies(out, spec);
    put_time(out, "not_before", spec->not_before);
    put_time(out, "deadline", spec->deadline);
    put_key(out, "preemptible");
    buf_append_str(out, preemptible[spec->preemptible]);
    put_key(out, "min_runtime");
    if (spec->min_runtime_ms != UINT64_MAX) {
        buf_printf(out, "\"%" PRIu64 "ms\"", spec->min_runtime_ms);
    } else {
        buf_append_str(out, "null");
    }
    put_u64(out, "spares", spec->spares);
    put_key(out, "hold");
    buf_append_str(out, spec->hold ? "true" : "false");
    put_text(out, "placement", placement_names[spec->placement]);
}

char *jobspec_to_json(const struct jobspec *spec)
{
    struct buf out = {0};
    buf_append_str(&out, "{");
    put_text(&out, "name", spec->name);
    put_text(&out, "account", spec->account);
    put_text(&out, "stage", spec->stage);
    put_text(&out, "queue", spec->queue);
    put_key(&out, "priority");
    buf_printf(&out, "%" PRId64, spec->priority);
    put_key(&out, "nodes");
    buf_printf(&out, "{\"min\": %u, \"max\": %u}", spec->nodes_min, spec->nodes_max);
    put_u64(&out, "gpus_per_node", spec->gpus_per_node);
    if (spec->has_train) {
        put_train(&out, &spec->train);
    } else {
        put_command(&out, spec);
    }
    put_env(&out, spec);
    put_checkpoint(&out, &spec->checkpoint);
    put_key(&out, "restart");
    buf_printf(&out, "{\"max\": %u}", spec->restart_max);
    put_key(&out, "time_limit");
    if (spec->time_limit_ms > 0) {
        buf_printf(&out, "\"%" PRIu64 "ms\"", spec->time_limit_ms);
    } else {
        buf_append_str(&out, "null");
    }
    put_when(&out, spec);
    buf_append_str(&out, "}");
    buf_cstr(&out);
    return (char *)out.data; /* the buffer's memory, NUL-terminated, is the caller's now */
}
