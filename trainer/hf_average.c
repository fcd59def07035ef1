#include "trainer/hf_average.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/ckpt_tensors.h"
#include "trainer/tensor_list.h"

static uint64_t elements_of(const struct safetensors_tensor *t)
{
    return (t->end - t->begin) / sizeof(float);
}

static int map_average(struct hf_average *a, struct err *err)
{
    bool any = false;
    for (uint32_t f = 0; f < a->files; f++) {
        for (size_t i = 0; i < a->file[f].count; i++) {
            struct reshard_run run;
            const struct safetensors_tensor *t = &a->file[f].tensors[i];
            if (strcmp(t->dtype, "F32") != 0) {
                return err_set(err, ERR_CORRUPT, "%s: tensor %s has dtype %s, expected F32",
                               a->file[f].path, t->name, t->dtype);
            }
            TRY(reshard_parse(&run, t->name, elements_of(t), err));
            run.file = f;
            run.index = (uint32_t)i;
            any = any || strncmp(run.name, CKPT_EMA_PREFIX, strlen(CKPT_EMA_PREFIX)) == 0;
            reshard_map_add(&a->map, &run);
        }
    }
    const struct reshard_run *before, *again;
    if (reshard_map_sort(&a->map, &before, &again) != 0) {
        return err_set(err, ERR_CORRUPT, "tensor %s is twice there", again->name);
    }
    return any ? 0
               : err_set(err, ERR_CONFIG,
                         "the checkpoint holds no moving average of the weights (its run had no "
                         "train.ema; leave --ema out)");
}

int hf_average_open(struct hf_average *a, const struct manifest *manifest, const char *dir,
                    struct err *err)
{
    *a = (struct hf_average){0};
    TRY(manifest_verify(manifest, dir, 1, err));
    a->file = mem_alloc_array(manifest->world_size, sizeof *a->file);
    for (; a->files < manifest->world_size; a->files++) {
        char *path = mem_printf("%s/%s", dir, manifest->shards[a->files].file);
        int rc = safetensors_open(&a->file[a->files], path, err);
        free(path);
        TRY(rc);
    }
    return map_average(a, err);
}

void hf_average_close(struct hf_average *a)
{
    for (uint32_t i = 0; i < a->files; i++) {
        safetensors_close(&a->file[i]);
    }
    free(a->file);
    reshard_map_fini(&a->map);
    *a = (struct hf_average){0};
}

int hf_average_read(const struct hf_average *a, const char *tensor, bool plain, uint64_t first,
                    size_t count, float *out, struct err *err)
{
    char name[TENSOR_NAME_BYTES + sizeof CKPT_EMA_PREFIX];
    struct reshard_copy *copies = NULL;
    size_t n = 0;
    snprintf(name, sizeof name, "%s%s", plain ? "" : CKPT_EMA_PREFIX, tensor);
    int rc = reshard_map_find(&a->map, name, first, count, &copies, &n, err);
    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct safetensors *file = &a->file[copies[i].run->file];
        rc = safetensors_read_part(file, &file->tensors[copies[i].run->index],
                                   copies[i].from * sizeof *out, out + copies[i].to,
                                   copies[i].count * sizeof *out, err);
    }
    free(copies);
    return rc;
}
