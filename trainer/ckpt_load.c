#include "trainer/ckpt_load.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/manifest.h"
#include "trainer/agree.h"
#include "trainer/safetensors.h"

/* ---- each name once */

struct place {
    const char *name, *path;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct place *)a)->name, ((const struct place *)b)->name);
}

int ckpt_check_unique(const struct safetensors *files, size_t file_count, struct err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < file_count; i++) {
        n += files[i].count;
    }
    struct place *places = mem_alloc_array(n, sizeof *places);
    n = 0;
    for (size_t i = 0; i < file_count; i++) {
        for (size_t k = 0; k < files[i].count; k++) {
            places[n++] = (struct place){files[i].tensors[k].name, files[i].path};
        }
    }
    qsort(places, n, sizeof *places, by_name);
    int rc = 0;
    for (size_t i = 1; i < n && rc == 0; i++) {
        if (strcmp(places[i - 1].name, places[i].name) == 0) {
            rc = err_set(err, ERR_CORRUPT, "tensor %s is in two shards: %s and %s", places[i].name,
                         places[i - 1].path, places[i].path);
        }
    }
    free(places);
    return rc;
}

/* ---- reading */

/* Is the stored tensor what the model wants? */
static int check_tensor(const struct safetensors *s, const struct safetensors_tensor *have,
                        const struct ckpt_tensor *want, struct err *err)
{
    const uint64_t shape[2] = {want->rows, want->cols};
    uint32_t dimensions = want->is_vector ? 1 : 2;
    if (strcmp(have->dtype, "F32") != 0) {
        return err_set(err, ERR_CORRUPT, "%s: tensor %s has dtype %s, expected F32", s->path,
                       have->name, have->dtype);
    }
    if (have->dimensions != dimensions ||
        memcmp(have->shape, shape, dimensions * sizeof *shape) != 0) {
        char has[128];
        char needs[64];
        safetensors_shape_text(has, sizeof has, have->dimensions, have->shape);
        safetensors_shape_text(needs, sizeof needs, dimensions, shape);
        return err_set(err, ERR_CORRUPT, "%s: tensor %s has shape %s, the model needs %s", s->path,
                       have->name, has, needs);
    }
    return 0;
}

static int read_tensor(const struct safetensors *shards, size_t shard_count,
                       const struct ckpt_tensor *t, const struct op_table *op, float *scratch,
                       struct err *err)
{
    for (size_t i = 0; i < shard_count; i++) {
        const struct safetensors_tensor *have = safetensors_find(&shards[i], t->name);
        if (have == NULL) {
            continue;
        }
        TRY(check_tensor(&shards[i], have, t, err));
        TRY(safetensors_read_f32(&shards[i], have, t->host ? t->data : scratch, t->count, err));
        if (!t->host) {
            op->copy_from_host(t->data, scratch, t->count * sizeof *scratch);
        }
        return 0;
    }
    return err_set(err, ERR_CORRUPT, "tensor %s is in none of the %zu shards", t->name,
                   shard_count);
}

static int read_tensors(const struct safetensors *shards, size_t shard_count,
                        const struct ckpt_tensors *tensors, bool moments, const struct op_table *op,
                        struct err *err)
{
    size_t largest = 0;
    for (size_t i = 0; i < tensors->count; i++) {
        largest = tensors->item[i].count > largest ? tensors->item[i].count : largest;
    }
    float *scratch = mem_alloc_array(largest, sizeof *scratch);
    int rc = 0;
    for (size_t i = 0; i < tensors->count && rc == 0; i++) {
        if (moments || !tensors->item[i].moment) {
            rc = read_tensor(shards, shard_count, &tensors->item[i], op, scratch, err);
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

static int open_shards(const struct manifest *m, const char *dir, struct safetensors *shards,
                       struct err *err)
{
    for (uint32_t i = 0; i < m->world_size; i++) {
        char path[PATH_MAX + 256];
        snprintf(path, sizeof path, "%s/%s", dir, m->shards[i].file);
        TRY(safetensors_open(&shards[i], path, err));
    }
    return 0;
}

/* Tensors that a whole checkpoint of this model has. */
static int count_tensors(const struct ckpt_tensors *tensors, bool moments, struct comm *expert,
                         uint64_t *count, struct err *err)
{
    uint64_t dense = 0;
    *count = 0;
    for (size_t i = 0; i < tensors->count; i++) {
        const struct ckpt_tensor *t = &tensors->item[i];
        if (moments || !t->moment) {
            *(t->expert ? count : &dense) += 1;
        }
    }
    TRY(expert->ops->all_reduce_sum_u64(expert, count, 1, err));
    *count += dense;
    return 0;
}

static uint64_t count_found(const struct safetensors *shards, size_t shard_count, bool moments)
{
    uint64_t found = 0;
    for (size_t i = 0; i < shard_count; i++) {
        for (size_t k = 0; k < shards[i].count; k++) {
            const char *name = shards[i].tensors[k].name;
            found += moments || strncmp(name, CKPT_MOMENT_PREFIX, strlen(CKPT_MOMENT_PREFIX)) != 0;
        }
    }
    return found;
}

static int load_here(const struct manifest *m, const char *dir, const struct ckpt_tensors *tensors,
                     bool moments, uint64_t expected, const struct op_table *op, struct err *err)
{
    struct safetensors *shards = mem_alloc_array(m->world_size, sizeof *shards);
    int rc = open_shards(m, dir, shards, err);
    if (rc == 0) {
        rc = ckpt_check_unique(shards, m->world_size, err);
    }
    if (rc == 0) {
        rc = read_tensors(shards, m->world_size, tensors, moments, op, err);
    }
    uint64_t found = rc == 0 ? count_found(shards, m->world_size, moments) : expected;
    if (found != expected) {
        rc = err_set(err, ERR_CORRUPT,
                     "it holds %llu tensors, this model has %llu (made for another model?)",
                     (unsigned long long)found, (unsigned long long)expected);
    }
    for (uint32_t i = 0; i < m->world_size; i++) {
        safetensors_close(&shards[i]);
    }
    free(shards);
    return rc;
}

int ckpt_load(const char *dir, enum ckpt_content content, const struct ckpt_tensors *tensors,
              const struct op_table *op, struct comm *world, struct comm *expert,
              struct ckpt_facts *facts, struct err *err)
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
    bool moments = content == CKPT_ALL && !facts->weights_only;
    TRY_GOTO(count_tensors(tensors, moments, expert, &expected, err), out);
    rc = load_here(&m, dir, tensors, moments, expected, op, err);
    if (rc != 0) {
        err_wrap(err, "%s", dir);
    }
    rc = agree(world, as_corrupt(rc, err), "checkpoint", err);
out:
    manifest_fini(&m);
    return rc;
}
