#include "trainer/inspect.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/manifest.h"
#include "proto/pipeline_schedule.h"
#include "trainer/ckpt_facts.h"
#include "trainer/hf_folder.h"
#include "trainer/hf_import.h"
#include "trainer/inspect_flight.h"
#include "trainer/safetensors.h"

static void print_tensors(const struct safetensors *s)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct safetensors_tensor *t = &s->tensors[i];
        printf("  %-72s %-5s [", t->name, t->dtype);
        for (uint32_t d = 0; d < t->dimensions; d++) {
            printf("%s%" PRIu64, d > 0 ? ", " : "", t->shape[d]);
        }
        printf("] %" PRIu64 " bytes\n", t->end - t->begin);
    }
}

static void print_file(const struct safetensors *s)
{
    printf("%s: %zu tensors, %" PRIu64 " bytes\n", s->path, s->count, s->file_bytes);
    print_tensors(s);
    printf("  metadata %s\n", s->metadata);
}

static int inspect_file(const char *path, struct err *err)
{
    struct safetensors s;
    TRY(safetensors_open(&s, path, err));
    print_file(&s);
    safetensors_close(&s);
    return 0;
}

/* ---- a Hugging Face folder */

static int inspect_hf(const char *dir, bool verify, struct err *err)
{
    struct hf_folder f;
    size_t tensors;
    if (verify) {
        TRY(hf_check(dir, &tensors, err));
    }
    TRY(hf_folder_open(&f, dir, err));
    const struct model_config *c = &f.config;
    printf("%s\n", dir);
    printf("  %" PRIu64 " parameters, %" PRIu64 " active, %" PRIu64 " more in %u MTP layer%s\n",
           model_config_params_total(c), model_config_params_active(c), model_config_params_mtp(c),
           c->num_nextn_predict_layers, c->num_nextn_predict_layers == 1 ? "" : "s");
    printf("  %u layers, hidden size %u, %u experts, vocabulary %u\n", c->num_hidden_layers,
           c->hidden_size, c->n_routed_experts, c->vocab_size);
    printf("  %zu tensors in %zu file%s\n", f.count, f.file_count, f.file_count == 1 ? "" : "s");
    for (size_t i = 0; i < f.file_count; i++) {
        print_file(&f.file[i]);
    }
    hf_folder_close(&f);
    if (verify) {
        printf("verified: all %zu tensors are of the model that config.json says, and finite\n",
               tensors);
    }
    return 0;
}

/* ---- a checkpoint */

/* Which layers the ranks at each place of the pipeline had: "0: layers 0-1 and 6-7, 1: ...". */
static void print_stages(enum pipeline_kind kind, uint32_t ranks, uint32_t layers)
{
    for (uint32_t r = 0; r < ranks; r++) {
        printf("%s %u: layers", r > 0 ? "," : "", r);
        for (uint32_t i = 0; i < pipeline_stages_here(kind); i++) {
            uint32_t first, count;
            pipeline_layers(layers, pipeline_stages(kind, ranks), pipeline_stage(kind, ranks, r, i),
                            &first, &count);
            printf("%s %u-%u", i > 0 ? " and" : "", first, first + count - 1);
        }
    }
    printf("\n");
}

static void print_mesh(const struct ckpt_facts *f)
{
    struct model_config config;
    if (f->parted && f->expert * f->data > 1) {
        printf("  optimiser state parted over %u ranks, that of experts over %u (ZeRO-1)\n",
               f->expert * f->data, f->data);
    }
    bool v = strcmp(f->schedule, "dualpipev") == 0;
    if ((v || f->pipeline > 1) && f->model != NULL &&
        model_config_parse(&config, f->model, strlen(f->model), "model", NULL) == 0) {
        printf("  pipeline %s:", f->schedule);
        print_stages(v ? PIPELINE_DUALPIPEV : PIPELINE_1F1B, f->pipeline, config.num_hidden_layers);
    }
}

static void print_facts(const struct manifest *m, const struct ckpt_facts *f)
{
    if (f->weights_only) {
        printf("  weights alone: a run starts here with fresh optimiser moments\n");
    } else {
        printf("  job %" PRIu64 ", epoch %" PRIu64 ", step %" PRIu64 ", %" PRIu64
               " tokens, data position %" PRIu64 "\n",
               m->job, m->epoch, f->step, f->tokens, f->position);
        printf("  %s, seed %" PRIu64
               ", sequence length %u, global batch %u, mesh pipeline %u x expert %u x data %u\n",
               f->precision, f->seed, f->sequence_length, f->global_batch, f->pipeline, f->expert,
               f->data);
        print_mesh(f);
    }
    if (f->origin != NULL) {
        printf("  weights from %s\n", f->origin);
    }
    if (isfinite(f->loss)) {
        printf("  loss %.4f", f->loss);
        if (isfinite(f->mtp_loss)) {
            printf(", mtp_loss %.4f", f->mtp_loss);
        }
        if (isfinite(f->valid_loss) && f->valid_step > 0) {
            printf(", valid_loss %.4f after step %" PRIu64, f->valid_loss, f->valid_step);
        }
        printf("\n");
    }
    printf("  model sha256 %s\n", f->model_sha256);
    if (f->spec_sha256[0] != 0) {
        printf("  spec sha256 %s\n", f->spec_sha256);
    }
}

static int inspect_manifest(const struct manifest *m, const char *dir, struct err *err)
{
    struct ckpt_facts f;
    TRY(ckpt_facts_parse(&f, m->layout, dir, err));
    printf("%s\n", dir);
    print_facts(m, &f);
    ckpt_facts_fini(&f);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->world_size; i++) {
        bytes += m->shards[i].bytes;
    }
    printf("  %u shards, %" PRIu64 " bytes\n", m->world_size, bytes);
    for (uint32_t i = 0; i < m->world_size; i++) {
        const struct manifest_shard *shard = &m->shards[i];
        char path[PATH_MAX + 256];
        printf("  rank %u, xxh3 %s, sha256 %s\n", shard->rank, shard->xxh3, shard->sha256);
        snprintf(path, sizeof path, "%s/%s", dir, shard->file);
        TRY(inspect_file(path, err));
    }
    return 0;
}

static int inspect_ckpt(const char *dir, bool verify, struct err *err)
{
    struct manifest m = {0};
    int rc = manifest_read(&m, dir, err);
    if (rc == ERR_NOT_FOUND) {
        rc = err_set(err, ERR_CORRUPT,
                     "%s has no %s: it was never committed, or it is no checkpoint", dir,
                     MANIFEST_FILE);
    }
    if (rc == 0 && verify) {
        rc = manifest_verify(&m, dir, 1, err);
    }
    if (rc == 0) {
        rc = inspect_manifest(&m, dir, err);
    }
    if (rc == 0 && verify) {
        printf("verified: all %u shards have their sizes and digests\n", m.world_size);
    }
    manifest_fini(&m);
    return rc;
}

/* ---- */

static bool has_file(const char *dir, const char *name)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

int inspect(const char *path, bool verify, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return err_set_errno(err, "cannot open %s", path);
    }
    bool is_folder = S_ISDIR(st.st_mode);
    bool is_hf = is_folder && !has_file(path, MANIFEST_FILE) && has_file(path, "config.json");
    if (!has_file(path, MANIFEST_FILE) && inspect_is_flight(path, is_folder)) {
        return inspect_flight(path, is_folder, err);
    }
    if (verify && !is_folder) {
        return err_set(err, ERR_USAGE,
                       "%s is one file: --verify needs a checkpoint's folder, where the digests "
                       "are, or a Hugging Face folder",
                       path);
    }
    return is_hf       ? inspect_hf(path, verify, err)
           : is_folder ? inspect_ckpt(path, verify, err)
                       : inspect_file(path, err);
}
