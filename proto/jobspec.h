/* The job file (contract §3): YAML in, a checked struct out. The coordinator checks it at submit,
 * the trainer reads it, dsctl checks it before it sends. Pure: reads no file. Errors name
 * file:line:column, the key, and the allowed values; an unknown key also names the nearest known
 * one. */
#ifndef PROTO_JOBSPEC_H
#define PROTO_JOBSPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/data_spec.h"
#include "proto/fault_spec.h"
#include "proto/guard_spec.h"
#include "proto/recipe.h"
#include "proto/rope_scaling.h"
#include "proto/schedule_spec.h"

#define JOBSPEC_NAME_MAX         63
#define JOBSPEC_NODES_MAX        65536
#define JOBSPEC_GPUS_MAX         64
#define JOBSPEC_ARRAY_MAX        10000u
#define JOBSPEC_SPARES_MAX       1024u
#define JOBSPEC_DEPENDENCIES_MAX 256u

/* Which of the trainer's back ends computes (trainer/backend.h). */
enum backend { BACKEND_CPU, BACKEND_CUDA };

/* The order of the micro-batches in a pipeline (proto/pipeline_schedule.h). */
enum pipeline_kind { PIPELINE_1F1B, PIPELINE_DUALPIPEV };

/* checkpoint.every: exactly one of the two is set; both 0 is `auto` (5 minutes in a run of this
 * size). */
struct ckpt_policy {
    uint64_t every_steps;
    uint64_t every_ms;
    uint32_t keep; /* newest committed ones kept; default 3, at least 1 */
    char *dir;     /* owned; NULL: the coordinator's default */
};

/* Parameters that weight decay may leave alone. */
enum decay_group {
    DECAY_NORMS = 1,
    DECAY_EMBEDDING = 2,
    DECAY_HEAD = 4,
    DECAY_GATE = 8,
    DECAY_LINEARS = 16,
};

struct train_spec {
    char *model; /* path of config.json, absolute */
    struct data_spec data;
    char *init_from;   /* folder of a checkpoint, or of a run's checkpoints, whose weights the run
                          starts with, absolute; or NULL: random weights, or init_job's */
    uint64_t init_job; /* `init_from: job:12`; the coordinator makes a folder of it. 0: none */
    struct rope_scaling rope; /* instead of the model file's; default: none */
    uint32_t sequence_length; /* tokens; default 256 */
    uint32_t global_batch;    /* sequences a step */
    uint32_t micro_batch;     /* sequences a rank works on at once; default 1 */
    uint64_t
        steps; /* one of steps and tokens; the other is derived, tokens rounded up to whole steps */
    uint64_t tokens;
    enum precision precision;         /* default fp8 */
    enum backend backend;             /* default cpu */
    struct recipe recipe;             /* default: recipe_of(precision) */
    uint32_t pipeline, expert;        /* mesh; default 1, 1 */
    enum pipeline_kind pipeline_kind; /* of the pipeline; default 1f1b */
    uint32_t zero; /* 1 (default): optimiser state parted over the data axis; 0: on every rank */
    struct {
        double lr;               /* default 2.2e-4 */
        double lr_min;           /* default lr / 10 */
        uint64_t warmup_steps;   /* default 2000 or a tenth of the run, whichever is less */
        uint64_t constant_steps; /* after the warm-up; the cosine covers the rest; default 0 */
        double beta1, beta2, eps, weight_decay; /* 0.9 0.95 1e-8 0.1 */
        double grad_clip;                       /* default 1.0; 0 none */
        uint32_t no_decay;                      /* bits of enum decay_group; default norms */
    } optimizer;
    double ema;                /* decay of the weights' moving average; default 0: none is kept */
    struct schedule_spec plan; /* default: nothing but optimizer's own */
    struct guard_spec guard;   /* default: guard_spec_default() */
    struct fault_spec fault;   /* default: none */
    double bias_update_speed;  /* gamma, default 0.001 */
    double balance_loss;       /* alpha of the sequence-wise loss, default 1e-4 */
    double mtp_lambda;         /* default 0.3 */
    double init_std;           /* default 0.006 */
    uint64_t seed;             /* default 1 */
    uint64_t valid_every;      /* steps; default checkpoint.every in steps, else a twentieth of
                                the run; 0 never, and always when there is no data.valid */
    uint32_t valid_batches;    /* global batches a validation; default 4 */
};

/* What another job must have done first. */
enum dependency_kind {
    DEPENDENCY_AFTER,        /* it has started, or ended without */
    DEPENDENCY_AFTER_ANY,    /* it has ended */
    DEPENDENCY_AFTER_OK,     /* it has completed */
    DEPENDENCY_AFTER_NOT_OK, /* it has failed or was cancelled */
};
struct dependency {
    enum dependency_kind kind;
    uint64_t job; /* of an array: its first job stands for all */
};
/* A point in time: absolute, or counted from the submit. Both 0: none. */
struct jobspec_time {
    int64_t at_ms;
    uint64_t in_ms;
};
/* What the whole gang must lie within. */
enum placement { PLACEMENT_ANY, PLACEMENT_ZONE, PLACEMENT_RACK, PLACEMENT_LEAF };
enum by_policy { BY_POLICY, BY_POLICY_YES, BY_POLICY_NO };

/* Where a value stood in the job file, for later messages; line 0: it was left out or overridden.
 */
struct jobspec_place {
    uint32_t line, column;
};

struct jobspec {
    char *name;       /* ^[a-z0-9][a-z0-9._-]{0,62}$ */
    char *account;    /* default "default" */
    char *stage;      /* pretrain (default) | context-extension | post-training | eval | other */
    char *queue;      /* default "default" */
    int64_t priority; /* -1000000..1000000, default 0 */
    uint32_t nodes_min, nodes_max; /* equal unless elastic; default 1 */
    uint32_t gpus_per_node; /* default 1; 0, for a command only: one rank a node, no accelerator */
    bool has_train;         /* else command */
    struct train_spec train;
    char **command; /* owned, command_count items, not NULL-terminated */
    size_t command_count;
    char **env; /* NAME=value of `env:` */
    size_t env_count;
    struct ckpt_policy checkpoint;
    uint32_t restart_max;   /* restarts without a newer checkpoint in between; default 3 */
    uint64_t time_limit_ms; /* 0 none */
    uint32_t *array;        /* owned; an array of jobs: their indices, ascending; NULL: one job */
    size_t array_count;
    uint32_t array_limit;            /* of them run at a time; 0: all */
    struct dependency *dependencies; /* owned; ascending by job, kind */
    size_t dependency_count;
    bool singleton; /* one job of this name and user at a time, in the order of submission */
    struct jobspec_time not_before, deadline;
    enum by_policy preemptible; /* default: what the queue says */
    uint64_t min_runtime_ms;    /* before it may be preempted; UINT64_MAX: by policy */
    uint32_t spares;            /* nodes kept beside the gang for when one fails */
    bool hold;                  /* submitted, not started before a release */
    enum placement placement;
    struct {
        struct jobspec_place nodes, sequence_length, global_batch, micro_batch, pipeline, expert;
        struct jobspec_place queue, account, priority, time_limit, deadline, dependencies, array;
        struct jobspec_place plan; /* train.schedule */
    } places;
};

/* yaml: the text, spec_name: for messages, spec_dir: absolute folder against which relative paths
 * are resolved, set: k=v overrides (dotted keys), applied in order before checking. On success the
 * caller calls jobspec_fini. */
int jobspec_parse(struct jobspec *spec, const char *yaml, size_t yaml_bytes, const char *spec_name,
                  const char *spec_dir, const char *const *set, size_t set_count, struct err *err);
void jobspec_fini(struct jobspec *spec); /* a zeroed one is fine */

/* Canonical JSON with every value explicit and paths absolute; parses back to an equal spec (it is
 * YAML too). Caller frees. */
char *jobspec_to_json(const struct jobspec *spec);

/* file:line:column of a value, or the file alone. Caller frees. */
char *jobspec_place_text(const char *spec_name, struct jobspec_place place);

/* Ranks in the gang at n nodes. */
uint32_t jobspec_world_size(const struct jobspec *spec, uint32_t nodes);

struct model_config;
/* The model of a job, from its file's text: with the job's own rope_scaling, which reaches as many
 * positions as its factor says, and checked against the job. */
int jobspec_model(const struct jobspec *spec, const char *json, size_t json_bytes,
                  const char *spec_name, struct model_config *model, struct err *err);
/* What needs the model, and what the trainer cannot do: experts divide over the mesh, the batch
 * over it at every size of an elastic job, stages have layers, sequence length within the model's
 * positions. spec_name for the message. */
int jobspec_check_model(const struct jobspec *spec, const struct model_config *model,
                        const char *spec_name, struct err *err);

/* "90", "1500ms", "30s", "5m", "1h30m", "1.5h", "30d" -> ms (a bare number is seconds), at most a
 * hundred years. */
int duration_parse(const char *text, uint64_t *ms, struct err *err);
/* "2026-01-31", "2026-01-31T06:00", "2026-01-31T06:00:00Z", "...+01:00" -> Unix ms; without a zone
 * it is UTC. */
int time_parse(const char *text, int64_t *ms, struct err *err);
/* RFC 3339 in UTC, to the second. text: 21 bytes. */
void time_format(int64_t ms, char *text, size_t text_bytes);
/* "0-99", "1,5,7-11", "0-100:10", and "%N" after it: at most N at a time. Sorted, no index twice.
 * The caller frees *indices. */
int array_parse(const char *text, uint32_t **indices, size_t *count, uint32_t *limit,
                struct err *err);
/* The shortest such text that parses back to the same. The caller frees it. */
char *array_format(const uint32_t *indices, size_t count, uint32_t limit);
extern const char *const dependency_names[]; /* of the job file, NULL-terminated */
extern const char *const placement_names[];
/* "after:12 afterok:13 singleton": how the coordinator keeps them. NULL when there are none; the
 * caller frees it. */
char *dependencies_format(const struct dependency *list, size_t count, bool singleton);
int dependencies_parse(const char *text, struct dependency **list, size_t *count, bool *singleton,
                       struct err *err);

/* "200", "14.8T", "1.5e9", "64K" -> count. Exact: what is no whole number is refused. K M B (or G)
 * T are powers of 1000. */
int count_parse(const char *text, uint64_t *count, struct err *err);

#endif
