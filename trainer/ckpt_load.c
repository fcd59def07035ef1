#include "trainer/ckpt_load.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/manifest.h"
#include "trainer/agree.h"
#include "trainer/ckpt_save.h"
#include "trainer/reshard.h"
#include "trainer/safetensors.h"

/* ---- what is saved */

/* A checkpoint's open files and the map of what is in them. */
struct shards {
    struct safetensors *file; /* owned */
    size_t count;
    struct reshard_map map;
};

static uint64_t elements_of(const struct safetensors_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->dimensions; i++) {
        n *= t->shape[i];
    }
    return n;
}

static int build_map(struct shards *s, struct err *err)
{
    for (size_t i = 0; i < s->count; i++) {
        for (size_t k = 0; k < s->file[i].count; k++) {
            const struct safetensors_tensor *t = &s->file[i].tensors[k];
            struct reshard_run run;
            int rc = reshard_parse(&run, t->name, elements_of(t), err);
            if (rc != 0) {
                return err_wrap(err, "%s", s->file[i].path);
            }
            run.file = (uint32_t)i;
            run.index = (uint32_t)k;
            reshard_map_add(&s->map, &run);
        }
    }
    const struct reshard_run *a = NULL;
    const struct reshard_run *b = NULL;
    if (reshard_map_sort(&s->map, &a, &b) != 0) {
        const struct safetensors *x = &s->file[a->file];
        const struct safetensors *y = &s->file[b->file];
        return err_set(err, ERR_CORRUPT, "tensor %s is in two shards: %s and %s",
                       y->tensors[b->index].name, x->path, y->path);
    }
    return 0;
}

/* Tensors beside the moments. */
static uint64_t count_found(const struct shards *s)
{
    uint64_t found = 0;
    for (size_t i = 0; i < s->map.count; i++) {
        const char *name = s->map.run[i].name;
        bool moment = strncmp(name, CKPT_MOMENT_PREFIX, strlen(CKPT_MOMENT_PREFIX)) == 0;
        found += !moment && (i == 0 || strcmp(s->map.run[i - 1].name, name) != 0);
    }
    return found;
}

/* ---- reading */

/* Is the stored tensor what the model wants? */
static int check_tensor(const struct safetensors *s, const struct safetensors_tensor *have,
                        bool whole, const struct ckpt_tensor *want, struct err *err)
{
    const uint64_t shape[2] = {want->rows, want->cols};
    uint32_t dimensions = want->is_vector ? 1 : 2;
    if (strcmp(have->dtype, "F32") != 0) {
        return err_set(err, ERR_CORRUPT, "%s: tensor %s has dtype %s, expected F32", s->path,
                       have->name, have->dtype);
    }
    if (whole && (have->dimensions != dimensions ||
                  memcmp(have->shape, shape, dimensions * sizeof *shape) != 0)) {
        char has[128];
        char needs[64];
        safetensors_shape_text(has, sizeof has, have->dimensions, have->shape);
        safetensors_shape_text(needs, sizeof needs, dimensions, shape);
        return err_set(err, ERR_CORRUPT, "%s: tensor %s has shape %s, the model needs %s", s->path,
                       have->name, has, needs);
    }
    return 0;
}

/* Runs beyond the end would be of another model's tensor. */
static int check_end(const struct shards *s, const struct reshard_run *run,
                     const struct ckpt_tensor *want, struct err *err)
{
    if (run->first + run->count > (uint64_t)want->rows * want->cols) {
        return err_set(err, ERR_CORRUPT,
                       "%s: tensor %s ends beyond the %llu elements of the model's",
                       s->file[run->file].path, s->file[run->file].tensors[run->index].name,
                       (unsigned long long)want->rows * want->cols);
    }
    return 0;
}

/* name: of what is saved. */
static int read_tensor(const struct shards *s, const struct ckpt_tensor *t, const char *name,
                       const struct op_table *op, float *scratch, struct err *err)
{
    struct reshard_copy *copies = NULL;
    size_t count = 0;
    const struct reshard_run *any = reshard_map_first(&s->map, name);
    if (any == NULL && t->optional) {
        return 0;
    }
    if (any != NULL) {
        const struct safetensors *file = &s->file[any->file];
        TRY(check_tensor(file, &file->tensors[any->index], any->whole, t, err));
    }
    int rc = reshard_map_find(&s->map, name, t->first, t->count, &copies, &count, NULL);
    if (rc != 0) {
        return err_set(err, ERR_CORRUPT, "tensor %s, or a part of it, is in none of the %zu shards",
                       name, s->count);
    }
    for (size_t i = 0; i < count && rc == 0; i++) {
        const struct reshard_copy *c = &copies[i];
        const struct safetensors *file = &s->file[c->run->file];
        const struct safetensors_tensor *have = &file->tensors[c->run->index];
        float *to = (t->host ? t->data : scratch) + c->to;
        rc = check_tensor(file, have, c->run->whole, t, err);
        rc = rc == 0 ? check_end(s, c->run, t, err) : rc;
        rc = rc == 0 ? safetensors_read_part(file, have, c->from * sizeof *to, to,
                                             c->count * sizeof *to, err)
                     : rc;
    }
    free(copies);
    if (rc == 0 && !t->host) {
        op->copy_from_host(t->data, scratch, t->count * sizeof *scratch);
    }
    return rc;
}

static int read_tensors(const struct shards *s, const struct ckpt_tensors *tensors,
                        enum ckpt_content content, const struct op_table *op, struct err *err)
{
    size_t largest = 0;
    for (size_t i = 0; i < tensors->count; i++) {
        largest = tensors->item[i].count > largest ? tensors->item[i].count : largest;
    }
    float *scratch = mem_alloc_array(largest, sizeof *scratch);
    int rc = 0;
    for (size_t i = 0; i < tensors->count && rc == 0; i++) {
        const struct ckpt_tensor *t = &tensors->item[i];
        char name[sizeof t->name + sizeof CKPT_EMA_PREFIX];
        bool average = content == CKPT_EMA && !t->moment && !t->host; /* router biases have none */
        snprintf(name, sizeof name, "%s%s", average ? CKPT_EMA_PREFIX : "", t->name);
        if (content == CKPT_ALL || !t->moment) {
            rc = read_tensor(s, t, name, op, scratch, err);
        }
    }
    free(scratch);
    return rc;
}

/* A checkpoint that cannot be read is as good as damaged: the coordinator tries the one before. */
static int as_corrupt(int rc, struct err *err)
{
    if (rc != 0 && err != NULL) {
        err->code = ERR_CORRUPT;
    }
    return rc == 0 ? 0 : ERR_CORRUPT;
}

/* Each rank reads its share of the files whole; together they read every byte once. */
static int check_files(const struct manifest *m, const char *dir, const struct comm *world,
                       struct err *err)
{
    for (uint32_t i = world->rank; i < m->world_size; i += world->size) {
        struct manifest one = {.world_size = 1, .shards = &m->shards[i]};
        TRY(manifest_verify(&one, dir, 0, err));
    }
    return 0;
}

static int open_shards(struct shards *s, const struct manifest *m, const char *dir, struct err *err)
{
    s->file = mem_alloc_array(m->world_size, sizeof *s->file);
    for (; s->count < m->world_size; s->count++) {
        char path[PATH_MAX + 256];
        snprintf(path, sizeof path, "%s/%s", dir, m->shards[s->count].file);
        TRY(safetensors_open(&s->file[s->count], path, err));
    }
    return build_map(s, err);
}

static void close_shards(struct shards *s)
{
    for (size_t i = 0; i < s->count; i++) {
        safetensors_close(&s->file[i]);
    }
    free(s->file);
    reshard_map_fini(&s->map);
}

/* Tensors beside the moments that a whole checkpoint of this model has. */
static int count_tensors(const struct ckpt_tensors *tensors, struct comm *world, uint64_t *count,
                         struct err *err)
{
    *count = 0;
    for (size_t i = 0; i < tensors->count; i++) {
        *count += tensors->item[i].owned && !tensors->item[i].moment;
    }
    return world->ops->all_reduce_sum_u64(world, count, 1, err);
}

/* Threads of the rank in this one's place. */
static void read_threads(const struct shards *s, uint32_t rank, struct ckpt_facts *facts)
{
    const struct safetensors *file = &s->file[rank < s->count ? rank : s->count - 1];
    json_t *metadata = json_loads(file->metadata, 0, NULL);
    const char *text = json_string_value(json_object_get(metadata, CKPT_THREADS_KEY));
    if (text != NULL) {
        facts->threads = (uint32_t)strtoul(text, NULL, 10);
    }
    json_decref(metadata);
}

static int check_average(const struct shards *s, struct err *err)
{
    for (size_t i = 0; i < s->map.count; i++) {
        if (strncmp(s->map.run[i].name, CKPT_EMA_PREFIX, strlen(CKPT_EMA_PREFIX)) == 0) {
            return 0;
        }
    }
    return err_set(err, ERR_CONFIG,
                   "it holds no moving average of the weights (its run had no train.ema; leave "
                   "--ema out)");
}

static int load_here(const struct manifest *m, const char *dir, const struct ckpt_tensors *tensors,
                     enum ckpt_content content, uint64_t expected, const struct op_table *op,
                     uint32_t rank, struct ckpt_facts *facts, struct err *err)
{
    struct shards s = {0};
    int rc = open_shards(&s, m, dir, err);
    if (rc == 0) {
        rc = content == CKPT_EMA ? check_average(&s, err) : 0;
    }
    if (rc == 0) {
        rc = read_tensors(&s, tensors, content, op, err);
    }
    uint64_t found = rc == 0 ? count_found(&s) : expected;
    if (found != expected) {
        rc = err_set(err, ERR_CORRUPT,
                     "it holds %llu tensors, this model has %llu (made for another model?)",
                     (unsigned long long)found, (unsigned long long)expected);
    }
    if (rc == 0) {
        read_threads(&s, rank, facts);
    }
    close_shards(&s);
    return rc;
}

int ckpt_load(const char *dir, enum ckpt_content content, const struct ckpt_tensors *tensors,
              const struct op_table *op, struct comm *world, struct ckpt_facts *facts,
              struct err *err)
{
    struct manifest m = {0};
    uint64_t expected = 0;
    *facts = (struct ckpt_facts){0};
    int rc = manifest_read(&m, dir, err);
    if (rc == 0) {
        rc = ckpt_facts_parse(facts, m.layout, dir, err);
    }
    if (rc == 0 && facts->step != m.step) {
        rc = err_set(err, ERR_CORRUPT, "%s: the manifest is of step %llu, its layout of step %llu",
                     dir, (unsigned long long)m.step, (unsigned long long)facts->step);
    }
    if (rc == 0) {
        rc = check_files(&m, dir, world, err);
    }
    TRY_GOTO(agree(world, as_corrupt(rc, err), "checkpoint", err), out);
    content = facts->weights_only && content == CKPT_ALL ? CKPT_WEIGHTS : content;
    TRY_GOTO(count_tensors(tensors, world, &expected, err), out);
    rc = load_here(&m, dir, tensors, content, expected, op, world->rank, facts, err);
    if (rc != 0) {
        err_wrap(err, "%s", dir);
    }
    rc = agree(world, rc == ERR_CONFIG ? rc : as_corrupt(rc, err), "checkpoint", err);
out:
    manifest_fini(&m);
    return rc;
}
