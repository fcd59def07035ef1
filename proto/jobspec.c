/* YAML -> tables (jobspec_fields.c) -> defaults that depend on other values -> checks that need
 * several values. Where a message is about one value it points at that value's place in the file.
 */
#include "proto/jobspec.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/jobspec_fields.h"

#define TEXT_BYTES_MAX (128u * 1024u) /* of command and env together */
#define UNSET          UINT64_MAX

static void set_defaults(struct jobspec *spec)
{
    *spec = (struct jobspec){
        .account = mem_strdup("default"),
        .stage = mem_strdup("pretrain"),
        .queue = mem_strdup("default"),
        .nodes_min = 1,
        .nodes_max = 1,
        .gpus_per_node = 1,
        .checkpoint = {.keep = 3},
        .restart_max = 3,
        .min_runtime_ms = UINT64_MAX,
        .train = {.sequence_length = 256,
                  .micro_batch = 1,
                  .precision = PRECISION_FP8,
                  .pipeline = 1,
                  .expert = 1,
                  .zero = 1,
                  .optimizer = {.lr = 2.2e-4,
                                .lr_min = -1,
                                .warmup_steps = UNSET,
                                .beta1 = 0.9,
                                .beta2 = 0.95,
                                .eps = 1e-8,
                                .weight_decay = 0.1,
                                .grad_clip = 1.0,
                                .no_decay = DECAY_NORMS},
                  .guard = guard_spec_default(),
                  .bias_update_speed = 0.001,
                  .balance_loss = 1e-4,
                  .mtp_lambda = 0.3,
                  .init_std = 0.006,
                  .seed = 1,
                  .valid_every = UNSET,
                  .valid_batches = 4},
    };
}

/* ---- what needs several values */
static const struct yaml_item *place_of(const struct yaml_item *map, const char *key)
{
    const struct yaml_item *item = yaml_get(map, key);
    return item != NULL ? item : map;
}

static int derive_length(struct train_spec *t, const struct yaml_item *train, uint64_t ranks,
                         struct err *err)
{
    uint64_t ways = ranks / t->pipeline;
    const struct yaml_item *steps = yaml_get(train, "steps");
    const struct yaml_item *tokens = yaml_get(train, "tokens");
    if (steps != NULL && tokens != NULL) {
        return yaml_refuse(tokens, err, "given together with steps (allowed: one of the two)");
    }
    if (steps == NULL && tokens == NULL) {
        return yaml_refuse(train, err,
                           "'steps' is missing (allowed: steps, or tokens such as 14.8T)");
    }
    const struct yaml_item *schedule = yaml_get(train, "schedule");
    TRY(schedule != NULL
            ? schedule_spec_read(schedule, t, (ways > 0 ? ways : 1) * t->micro_batch, err)
            : 0);
    if (!schedule_length(t, tokens != NULL ? UINT64_MAX : t->steps,
                         tokens != NULL ? t->tokens : UINT64_MAX, &t->steps, &t->tokens) ||
        t->steps > JOBSPEC_STEPS_MAX || t->tokens > 2 * JOBSPEC_TOKENS_MAX) {
        return yaml_refuse(steps != NULL ? steps : tokens, err,
                           "too long a run: steps x global_batch x sequence_length is over 10^18 "
                           "tokens");
    }
    return 0;
}

static int derive_train(struct jobspec *spec, const struct yaml_item *train, struct err *err)
{
    struct train_spec *t = &spec->train;
    const struct yaml_item *recipe = yaml_get(train, "recipe");
    TRY(derive_length(t, train, jobspec_world_size(spec, spec->nodes_min), err));
    t->recipe = recipe_of(t->precision);
    TRY(recipe != NULL ? recipe_read(recipe, &t->recipe, err) : 0);
    if (t->optimizer.lr_min < 0) {
        t->optimizer.lr_min = t->optimizer.lr / 10;
    } else if (t->optimizer.lr_min > t->optimizer.lr) {
        return yaml_refuse(yaml_get(yaml_get(train, "optimizer"), "lr_min"), err,
                           "%g is over lr (allowed: 0 to %g)", t->optimizer.lr_min,
                           t->optimizer.lr);
    }
    if (t->optimizer.warmup_steps == UNSET) {
        t->optimizer.warmup_steps = t->steps / 10 < 2000 ? t->steps / 10 : 2000;
    }
    if (t->data.valid == NULL) {
        if (t->valid_every != UNSET && t->valid_every != 0) {
            return yaml_refuse(yaml_get(train, "valid_every"), err, "needs data.valid");
        }
        t->valid_every = 0;
    } else if (t->valid_every == UNSET) {
        uint64_t twentieth = t->steps / 20 > 0 ? t->steps / 20 : 1;
        t->valid_every =
            spec->checkpoint.every_steps != 0 ? spec->checkpoint.every_steps : twentieth;
    }
    if (t->micro_batch > t->global_batch) {
        return yaml_refuse(place_of(train, "micro_batch"), err, "%u is over global_batch %u",
                           t->micro_batch, t->global_batch);
    }
    return 0;
}

/* Every size an elastic job may have must give whole meshes: the coordinator picks any. */
static int check_mesh(const struct jobspec *spec, const struct yaml_item *train, struct err *err)
{
    const struct train_spec *t = &spec->train;
    uint64_t ways = (uint64_t)t->pipeline * t->expert;
    uint64_t step = (uint64_t)spec->gpus_per_node;
    /* n * step divides by ways for every n of a range of two or more exactly when step does. */
    bool fits = (spec->nodes_min * step) % ways == 0 &&
                (spec->nodes_min == spec->nodes_max || step % ways == 0);
    if (!fits) {
        uint32_t nodes =
            (spec->nodes_min * step) % ways != 0 ? spec->nodes_min : spec->nodes_min + 1;
        return yaml_refuse(
            place_of(train, "parallel"), err,
            "pipeline %u x expert %u does not divide the %u ranks of %u node%s with %u "
            "GPUs (allowed: a product that divides them at every size)",
            t->pipeline, t->expert, jobspec_world_size(spec, nodes), nodes, nodes == 1 ? "" : "s",
            spec->gpus_per_node);
    }
    return 0;
}

static int check_text(const struct jobspec *spec, const struct yaml_item *root, struct err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < spec->command_count; i++) {
        bytes += strlen(spec->command[i]);
    }
    for (size_t i = 0; i < spec->env_count; i++) {
        bytes += strlen(spec->env[i]);
    }
    if (bytes > TEXT_BYTES_MAX) {
        return yaml_refuse(place_of(root, "command"), err,
                           "command and env are over 128 KiB (put the program into a file)");
    }
    return 0;
}

static int resolve(char **path, const char *dir, const struct yaml_item *root, struct err *err)
{
    if (*path == NULL || (*path)[0] == '/') {
        return 0;
    }
    if (strlen(dir) > JOBSPEC_PATH_MAX) {
        return yaml_refuse(root, err, "the folder of the job file has too long a path");
    }
    const char *rest = *path;
    while (rest[0] == '.' && rest[1] == '/') {
        rest += 2 + strspn(rest + 2, "/");
    }
    char *absolute = mem_printf("%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", rest);
    free(*path);
    *path = absolute;
    return 0;
}

static int check(struct jobspec *spec, const struct yaml_item *root, const char *spec_dir,
                 struct err *err)
{
    const struct yaml_item *train = yaml_get(root, "train");
    const struct yaml_item *command = yaml_get(root, "command");
    if (train != NULL && command != NULL) {
        return yaml_refuse(command, err, "given together with train (allowed: one of the two)");
    }
    if (train == NULL && command == NULL) {
        return yaml_refuse(root, err, "nothing to run: 'train' and 'command' are both missing");
    }
    spec->has_train = train != NULL;
    if (train != NULL) {
        if (spec->gpus_per_node == 0) {
            return yaml_refuse(yaml_get(root, "gpus_per_node"), err,
                               "0 is for a command (allowed for train: 1 to %u)", JOBSPEC_GPUS_MAX);
        }
        TRY(derive_train(spec, train, err));
        TRY(check_mesh(spec, train, err));
        if (spec->train.init_job != 0) {
            jobspec_depend(spec, DEPENDENCY_AFTER_OK, spec->train.init_job);
        }
    } else {
        spec->train = (struct train_spec){0};
    }
    TRY(jobspec_check_times(spec, root, err));
    TRY(check_text(spec, root, err));
    TRY(resolve(&spec->train.model, spec_dir, root, err));
    for (uint32_t i = 0; i < spec->train.data.source_count; i++) {
        TRY(resolve(&spec->train.data.sources[i].prefix, spec_dir, root, err));
    }
    TRY(resolve(&spec->train.data.valid, spec_dir, root, err));
    TRY(resolve(&spec->train.init_from, spec_dir, root, err));
    return resolve(&spec->checkpoint.dir, spec_dir, root, err);
}

static struct jobspec_place place_in(const struct yaml_item *map, const char *key,
                                     const char *spec_name)
{
    const struct yaml_item *item = map != NULL ? yaml_get(map, key) : NULL;
    if (item == NULL || strcmp(item->source, spec_name) != 0) {
        return (struct jobspec_place){0};
    }
    return (struct jobspec_place){item->line, item->column};
}

static void remember_places(struct jobspec *spec, const struct yaml_item *root,
                            const char *spec_name)
{
    const struct yaml_item *train = yaml_get(root, "train");
    const struct yaml_item *parallel = train != NULL ? yaml_get(train, "parallel") : NULL;
    spec->places.nodes = place_in(root, "nodes", spec_name);
    spec->places.sequence_length = place_in(train, "sequence_length", spec_name);
    spec->places.global_batch = place_in(train, "global_batch", spec_name);
    spec->places.micro_batch = place_in(train, "micro_batch", spec_name);
    spec->places.plan = place_in(train, "schedule", spec_name);
    spec->places.queue = place_in(root, "queue", spec_name);
    spec->places.account = place_in(root, "account", spec_name);
    spec->places.priority = place_in(root, "priority", spec_name);
    spec->places.time_limit = place_in(root, "time_limit", spec_name);
    spec->places.deadline = place_in(root, "deadline", spec_name);
    spec->places.dependencies = place_in(root, "dependencies", spec_name);
    spec->places.array = place_in(root, "array", spec_name);
    spec->places.pipeline = place_in(parallel, "pipeline", spec_name);
    spec->places.expert = place_in(parallel, "expert", spec_name);
}

char *jobspec_place_text(const char *spec_name, struct jobspec_place place)
{
    return place.line > 0 ? mem_printf("%s:%u:%u", spec_name, place.line, place.column)
                          : mem_strdup(spec_name);
}

int jobspec_parse(struct jobspec *spec, const char *yaml, size_t yaml_bytes, const char *spec_name,
                  const char *spec_dir, const char *const *set, size_t set_count, struct err *err)
{
    struct yaml_tree tree = {0};
    int rc = 0;
    *spec = (struct jobspec){0};
    if (spec_dir[0] != '/') {
        return err_set(err, ERR_INVALID, "%s: its folder '%s' is not an absolute path", spec_name,
                       spec_dir);
    }
    TRY_GOTO(yaml_load(&tree, yaml, yaml_bytes, spec_name, err), out);
    for (size_t i = 0; i < set_count; i++) {
        TRY_GOTO(yaml_set(&tree, set[i], err), out);
    }
    set_defaults(spec);
    TRY_GOTO(yaml_read(tree.root, jobspec_fields, spec, err), out);
    TRY_GOTO(check(spec, tree.root, spec_dir, err), out);
    remember_places(spec, tree.root, spec_name);
out:
    yaml_fini(&tree);
    if (rc != 0) {
        jobspec_fini(spec);
    }
    return rc;
}

static void free_list(char **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i]);
    }
    free(list);
}

void jobspec_fini(struct jobspec *spec)
{
    free(spec->name);
    free(spec->account);
    free(spec->stage);
    free(spec->queue);
    free(spec->train.model);
    data_spec_fini(&spec->train.data);
    free(spec->train.init_from);
    free(spec->checkpoint.dir);
    free_list(spec->command, spec->command_count);
    free_list(spec->env, spec->env_count);
    free(spec->array);
    free(spec->dependencies);
    *spec = (struct jobspec){0};
}

uint32_t jobspec_world_size(const struct jobspec *spec, uint32_t nodes)
{
    return nodes * (spec->gpus_per_node > 0 ? spec->gpus_per_node : 1);
}
