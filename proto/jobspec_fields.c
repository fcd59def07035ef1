/* One line a key of the job file: its type, where it goes, what is allowed. Keys with a form of
 * their own have a reader each. */
#include "proto/jobspec_fields.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#define BATCH_MAX    16777216u
#define SEQUENCE_MAX 16777216u
#define COMMAND_MAX  4096u
#define ENV_MAX      512u

/* ---- text */
static bool valid_name(const char *s, const char *first, const char *rest)
{
    size_t len = strlen(s);
    return len >= 1 && len <= JOBSPEC_NAME_MAX && strchr(first, s[0]) != NULL &&
           strspn(s, rest) == len;
}

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define UPPER  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool valid_job_name(const char *s)
{
    return valid_name(s, LOWER DIGITS, LOWER DIGITS "._-");
}

static bool valid_group_name(const char *s)
{
    return valid_name(s, LOWER UPPER DIGITS, LOWER UPPER DIGITS "._-");
}

#define ALLOWED_JOB_NAME   "a-z 0-9 . _ -, at most 63, first a letter or digit"
#define ALLOWED_GROUP_NAME "letters, digits, . _ -, at most 63, first a letter or digit"

static bool valid_path(const char *s)
{
    size_t len = strlen(s);
    return len > 0 && len <= JOBSPEC_PATH_MAX && s[strcspn(s, "\n\r")] == 0;
}

#define ALLOWED_PATH "a path of at most 2047 bytes in one line"

static bool valid_stage(const char *s)
{
    static const char *const stages[] = {"pretrain", "context-extension", "post-training", "eval",
                                         "other"};
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        if (strcmp(s, stages[i]) == 0) {
            return true;
        }
    }
    return false;
}

#define ALLOWED_STAGE "pretrain, context-extension, post-training, eval, other"

/* ---- values with a form of their own; place is the struct that holds them */
static int read_count(const struct yaml_item *item, uint64_t max, uint64_t *count, struct err *err)
{
    struct err why;
    if (item->kind != YAML_ITEM_SCALAR) {
        return yaml_refuse(item, err,
                           "a number is expected (allowed: such as 200, 1.5e9 or 14.8T)");
    }
    if (count_parse(item->text, count, &why) != 0) {
        return yaml_refuse(item, err, "%s", why.text);
    }
    if (*count < 1 || *count > max) {
        return yaml_refuse(item, err, "%s is out of range (allowed: 1 to %g)", item->text,
                           (double)max);
    }
    return 0;
}

static int read_steps(const struct yaml_item *item, void *place, struct err *err)
{
    return read_count(item, JOBSPEC_STEPS_MAX, place, err);
}

static int read_tokens(const struct yaml_item *item, void *place, struct err *err)
{
    return read_count(item, JOBSPEC_TOKENS_MAX, place, err);
}

int jobspec_read_tokens(const struct yaml_item *item, uint64_t *tokens, struct err *err)
{
    return read_count(item, JOBSPEC_TOKENS_MAX, tokens, err);
}

static int read_duration(const struct yaml_item *item, uint64_t *ms, struct err *err)
{
    struct err why;
    if (item->kind != YAML_ITEM_SCALAR) {
        return yaml_refuse(item, err, "a duration is expected (allowed: such as 90s, 5m or 30d)");
    }
    return duration_parse(item->text, ms, &why) == 0 ? 0 : yaml_refuse(item, err, "%s", why.text);
}

static int read_time_limit(const struct yaml_item *item, void *place, struct err *err)
{
    return read_duration(item, place, err);
}

/* train.recipe and train.schedule: what they say depends on other values, so jobspec.c reads them
 * when those are known. */
static int read_later(const struct yaml_item *item, void *place, struct err *err)
{
    (void)item, (void)place, (void)err;
    return 0;
}

static int read_fault(const struct yaml_item *item, void *place, struct err *err)
{
    return fault_spec_read(item, place, err);
}

static int read_guard(const struct yaml_item *item, void *place, struct err *err)
{
    return guard_spec_read(item, place, err);
}

static int read_rope_scaling(const struct yaml_item *item, void *place, struct err *err)
{
    return rope_scaling_read_job(item, place, err);
}

/* train.init_from: a folder, or job:12. */
static int read_init_from(const struct yaml_item *item, void *place, struct err *err)
{
    struct train_spec *t = place;
    if (item->kind != YAML_ITEM_SCALAR || !valid_path(item->text)) {
        return yaml_refuse(item, err,
                           "is no folder (allowed: one of a checkpoint, such as dstrain import "
                           "makes, or of a job's checkpoints, or job:ID)");
    }
    free(t->init_from);
    t->init_from = NULL;
    t->init_job = 0;
    if (strncmp(item->text, "job:", 4) != 0) {
        t->init_from = mem_strdup(item->text);
        return 0;
    }
    struct yaml_item id = *item; /* quoted or not */
    id.plain = true;
    id.text += 4;
    return yaml_to_u64(&id, 1, INT64_MAX, &t->init_job, err);
}

/* checkpoint.every: steps, a duration, or auto. */
static int read_every(const struct yaml_item *item, void *place, struct err *err)
{
    struct ckpt_policy *p = place;
    p->every_steps = p->every_ms = 0;
    if (item->kind == YAML_ITEM_SCALAR && strcmp(item->text, "auto") == 0) {
        return 0;
    }
    if (item->kind == YAML_ITEM_SCALAR && strspn(item->text, DIGITS) == strlen(item->text)) {
        return yaml_to_u64(item, 1, JOBSPEC_STEPS_MAX, &p->every_steps, err);
    }
    struct err why;
    if (item->kind != YAML_ITEM_SCALAR || duration_parse(item->text, &p->every_ms, &why) != 0) {
        return yaml_refuse(item, err,
                           "%.60s is neither steps nor a duration (allowed: such as 50, 5m, "
                           "or auto)",
                           item->kind == YAML_ITEM_SCALAR ? item->text : "this");
    }
    if (p->every_ms < 1000) {
        return yaml_refuse(item, err, "%s is too often (allowed: 1s or more)", item->text);
    }
    return 0;
}

/* nodes: 2, or {min: 1, max: 4}. */
static int read_nodes(const struct yaml_item *item, void *place, struct err *err)
{
    struct jobspec *spec = place;
    if (item->kind == YAML_ITEM_MAP) {
        static const struct yaml_field range[] = {{.key = "min",
                                                   .type = YAML_U32,
                                                   .offset = offsetof(struct jobspec, nodes_min),
                                                   .low = 1,
                                                   .high = JOBSPEC_NODES_MAX},
                                                  {.key = "max",
                                                   .type = YAML_U32,
                                                   .offset = offsetof(struct jobspec, nodes_max),
                                                   .low = 1,
                                                   .high = JOBSPEC_NODES_MAX,
                                                   .required = true},
                                                  {.key = NULL}};
        TRY(yaml_read(item, range, spec, err));
        if (spec->nodes_min > spec->nodes_max) {
            return yaml_refuse(item, err, "min %u is over max %u", spec->nodes_min,
                               spec->nodes_max);
        }
        return 0;
    }
    uint64_t nodes;
    TRY(yaml_to_u64(item, 1, JOBSPEC_NODES_MAX, &nodes, err));
    spec->nodes_min = spec->nodes_max = (uint32_t)nodes;
    return 0;
}

/* command: a list of words, or one text for the shell. */
static int read_command(const struct yaml_item *item, void *place, struct err *err)
{
    struct jobspec *spec = place;
    if (item->kind == YAML_ITEM_SCALAR && item->text[0] != 0) {
        spec->command = mem_alloc_array(3, sizeof(char *));
        spec->command[0] = mem_strdup("/bin/sh");
        spec->command[1] = mem_strdup("-c");
        spec->command[2] = mem_strdup(item->text);
        spec->command_count = 3;
        return 0;
    }
    if (item->kind != YAML_ITEM_LIST || item->count == 0 || item->count > COMMAND_MAX) {
        return yaml_refuse(item, err,
                           "no program (allowed: a list of 1 to %u words, or one text for "
                           "/bin/sh -c)",
                           COMMAND_MAX);
    }
    spec->command = mem_alloc_array(item->count, sizeof(char *));
    for (size_t i = 0; i < item->count; i++) {
        const struct yaml_item *word = item->items[i];
        if (word->text == NULL || (i == 0 && word->text[0] == 0)) {
            return yaml_refuse(word, err, "a word is expected%s", i == 0 ? ": the program" : "");
        }
        spec->command[spec->command_count++] = mem_strdup(word->text);
    }
    return 0;
}

/* The worker sets these; a job cannot. */
static bool is_reserved(const char *name)
{
    static const char *const names[] = {
        "RANK",      "WORLD_SIZE",  "LOCAL_RANK",  "LOCAL_WORLD_SIZE",
        "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return strncmp(name, "DS_", 3) == 0;
}

static int read_env(const struct yaml_item *item, void *place, struct err *err)
{
    struct jobspec *spec = place;
    if (item->kind != YAML_ITEM_MAP || item->count > ENV_MAX) {
        return yaml_refuse(item, err,
                           "a map of at most %u entries is expected (allowed: NAME: value "
                           "lines)",
                           ENV_MAX);
    }
    spec->env = mem_alloc_array(item->count, sizeof(char *));
    for (size_t i = 0; i < item->count; i++) {
        const struct yaml_item *entry = item->items[i];
        const char *name = entry->key;
        size_t len = strlen(name);
        if (len == 0 || len > 255 || strspn(name, UPPER LOWER DIGITS "_") != len ||
            isdigit((unsigned char)name[0])) {
            return yaml_refuse(entry, err,
                               "not a name of an environment variable (allowed: letters, "
                               "digits and _, first no digit)");
        }
        if (is_reserved(name)) {
            return yaml_refuse(entry, err, "set by the worker, not by a job");
        }
        if (entry->text == NULL) {
            return yaml_refuse(entry, err, "one text is expected");
        }
        bool null = entry->kind == YAML_ITEM_NULL;
        spec->env[spec->env_count++] = mem_printf("%s=%s", name, null ? "" : entry->text);
    }
    return 0;
}

const char *const jobspec_decay_groups[] = {"norms", "embedding", "head", "gate", "linears", NULL};

/* optimizer.no_decay: a list of groups, maybe empty. */
static int read_no_decay(const struct yaml_item *item, void *place, struct err *err)
{
    uint32_t *bits = place;
    if (item->kind != YAML_ITEM_LIST) {
        return yaml_refuse(item, err,
                           "a list is expected (allowed: of norms, embedding, head, "
                           "gate, linears)");
    }
    *bits = 0;
    for (size_t i = 0; i < item->count; i++) {
        const char *text = item->items[i]->text;
        uint32_t bit = 0;
        for (uint32_t g = 0; text != NULL && jobspec_decay_groups[g] != NULL; g++) {
            bit |= strcmp(text, jobspec_decay_groups[g]) == 0 ? 1u << g : 0;
        }
        if (bit == 0) {
            return yaml_refuse(item->items[i], err,
                               "%.60s is not one of them (allowed: norms, embedding, head, gate, "
                               "linears)",
                               text != NULL ? text : "this");
        }
        *bits |= bit;
    }
    return 0;
}

/* ---- tables */
static const char *const precisions[] = {"fp32", "bf16", "fp8", NULL};
static const char *const backends[] = {"cpu", "cuda", NULL};
static const char *const pipeline_kinds[] = {"1f1b", "dualpipev", NULL};

#define AT(member) .offset = offsetof(struct train_spec, member)
#define REAL(name, member, least, most)                                                            \
    {                                                                                              \
        .key = name, .type = YAML_DOUBLE, AT(member), .min = (least), .max = (most)                \
    }
#define WHOLE32(name, member, least, most)                                                         \
    {                                                                                              \
        .key = name, .type = YAML_U32, AT(member), .low = (least), .high = (most)                  \
    }
#define WHOLE64(name, member, least, most)                                                         \
    {                                                                                              \
        .key = name, .type = YAML_U64, AT(member), .low = (least), .high = (most)                  \
    }

/* Offsets of the inner tables count from the start of train_spec: their YAML_MAP has offset 0. */
static int read_data(const struct yaml_item *item, void *place, struct err *err)
{
    return data_spec_read(place, item, err);
}

static const struct yaml_field parallel_fields[] = {
    WHOLE32("pipeline", pipeline, 1, 65536),
    WHOLE32("expert", expert, 1, 65536),
    {.key = "schedule", .type = YAML_CHOICE, AT(pipeline_kind), .choices = pipeline_kinds},
    WHOLE32("zero", zero, 0, 1),
    {.key = NULL}};
static const struct yaml_field optimizer_fields[] = {
    REAL("lr", optimizer.lr, 1e-12, 10),
    REAL("lr_min", optimizer.lr_min, 0, 10),
    WHOLE64("warmup_steps", optimizer.warmup_steps, 0, JOBSPEC_STEPS_MAX),
    WHOLE64("constant_steps", optimizer.constant_steps, 0, JOBSPEC_STEPS_MAX),
    REAL("beta1", optimizer.beta1, 0, 0.999999),
    REAL("beta2", optimizer.beta2, 0, 0.999999),
    REAL("eps", optimizer.eps, 1e-30, 1),
    REAL("weight_decay", optimizer.weight_decay, 0, 100),
    REAL("grad_clip", optimizer.grad_clip, 0, 1e6),
    {.key = "no_decay", .type = YAML_CUSTOM, AT(optimizer.no_decay), .read = read_no_decay},
    {.key = NULL}};
static const struct yaml_field train_fields[] = {
    {.key = "model",
     .type = YAML_TEXT,
     AT(model),
     .required = true,
     .valid = valid_path,
     .allowed = "path of a Hugging Face config.json"},
    {.key = "data",
     .type = YAML_CUSTOM,
     AT(data),
     .read = read_data,
     .required = true,
     .allowed = "{train: PREFIX, valid: PREFIX}"},
    {.key = "init_from", .type = YAML_CUSTOM, .read = read_init_from},
    {.key = "rope_scaling", .type = YAML_CUSTOM, AT(rope), .read = read_rope_scaling},
    WHOLE32("sequence_length", sequence_length, 1, SEQUENCE_MAX),
    {.key = "global_batch",
     .type = YAML_U32,
     AT(global_batch),
     .low = 1,
     .high = BATCH_MAX,
     .required = true,
     .allowed = "sequences a step"},
    WHOLE32("micro_batch", micro_batch, 1, BATCH_MAX),
    {.key = "steps", .type = YAML_CUSTOM, AT(steps), .read = read_steps},
    {.key = "tokens", .type = YAML_CUSTOM, AT(tokens), .read = read_tokens},
    {.key = "precision", .type = YAML_CHOICE, AT(precision), .choices = precisions},
    {.key = "backend", .type = YAML_CHOICE, AT(backend), .choices = backends},
    {.key = "recipe", .type = YAML_CUSTOM, .read = read_later},
    {.key = "schedule", .type = YAML_CUSTOM, .read = read_later},
    {.key = "guard", .type = YAML_CUSTOM, AT(guard), .read = read_guard},
    {.key = "fault", .type = YAML_CUSTOM, AT(fault), .read = read_fault},
    REAL("ema", ema, 0, 0.99999999),
    {.key = "parallel", .type = YAML_MAP, .fields = parallel_fields},
    {.key = "optimizer", .type = YAML_MAP, .fields = optimizer_fields},
    REAL("bias_update_speed", bias_update_speed, 0, 1),
    REAL("balance_loss", balance_loss, 0, 100),
    REAL("mtp_lambda", mtp_lambda, 0, 100),
    REAL("init_std", init_std, 1e-9, 10),
    WHOLE64("seed", seed, 0, UINT64_MAX),
    WHOLE64("valid_every", valid_every, 0, JOBSPEC_STEPS_MAX),
    WHOLE32("valid_batches", valid_batches, 1, 1000000),
    {.key = NULL}};

#undef AT
#define AT(member) .offset = offsetof(struct jobspec, member)

static const struct yaml_field checkpoint_fields[] = {
    {.key = "every", .type = YAML_CUSTOM, .read = read_every},
    {.key = "keep",
     .type = YAML_U32,
     .offset = offsetof(struct ckpt_policy, keep),
     .low = 1,
     .high = 100000},
    {.key = "dir",
     .type = YAML_TEXT,
     .offset = offsetof(struct ckpt_policy, dir),
     .valid = valid_path,
     .allowed = ALLOWED_PATH},
    {.key = NULL}};
static const struct yaml_field restart_fields[] = {
    {.key = "max", .type = YAML_U32, AT(restart_max), .high = 1000000}, {.key = NULL}};
const struct yaml_field jobspec_fields[] = {
    {.key = "name",
     .type = YAML_TEXT,
     AT(name),
     .required = true,
     .valid = valid_job_name,
     .allowed = ALLOWED_JOB_NAME},
    {.key = "account",
     .type = YAML_TEXT,
     AT(account),
     .valid = valid_group_name,
     .allowed = ALLOWED_GROUP_NAME},
    {.key = "stage", .type = YAML_TEXT, AT(stage), .valid = valid_stage, .allowed = ALLOWED_STAGE},
    {.key = "queue",
     .type = YAML_TEXT,
     AT(queue),
     .valid = valid_group_name,
     .allowed = ALLOWED_GROUP_NAME},
    {.key = "priority", .type = YAML_I64, AT(priority), .low = -1000000, .high = 1000000},
    {.key = "nodes", .type = YAML_CUSTOM, .read = read_nodes},
    {.key = "gpus_per_node", .type = YAML_U32, AT(gpus_per_node), .high = JOBSPEC_GPUS_MAX},
    {.key = "train", .type = YAML_MAP, AT(train), .fields = train_fields},
    {.key = "command", .type = YAML_CUSTOM, .read = read_command},
    {.key = "env", .type = YAML_CUSTOM, .read = read_env},
    {.key = "checkpoint", .type = YAML_MAP, AT(checkpoint), .fields = checkpoint_fields},
    {.key = "restart", .type = YAML_MAP, .fields = restart_fields},
    {.key = "time_limit", .type = YAML_CUSTOM, AT(time_limit_ms), .read = read_time_limit},
    {.key = "array", .type = YAML_CUSTOM, .read = jobspec_read_array},
    {.key = "dependencies", .type = YAML_CUSTOM, .read = jobspec_read_dependencies},
    {.key = "not_before", .type = YAML_CUSTOM, AT(not_before), .read = jobspec_read_time},
    {.key = "deadline", .type = YAML_CUSTOM, AT(deadline), .read = jobspec_read_time},
    {.key = "preemptible", .type = YAML_CUSTOM, .read = jobspec_read_preemptible},
    {.key = "min_runtime", .type = YAML_CUSTOM, AT(min_runtime_ms), .read = read_time_limit},
    {.key = "spares", .type = YAML_U32, AT(spares), .high = JOBSPEC_SPARES_MAX},
    {.key = "hold", .type = YAML_BOOL, AT(hold)},
    {.key = "placement", .type = YAML_CHOICE, AT(placement), .choices = placement_names},
    {.key = NULL}};
