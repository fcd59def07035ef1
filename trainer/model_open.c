#include "trainer/model_open.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "proto/manifest.h"
#include "trainer/ckpt_load.h"
#include "trainer/ckpt_tensors.h"
#include "trainer/optim.h"

#define MODEL_BYTES_MAX (1u << 20)
#define THREADS_MAX     1024

int model_open_threads(void)
{
    const char *text = getenv("OMP_NUM_THREADS");
    long wanted = text != NULL ? strtol(text, NULL, 10) : 0;
    cpu_set_t set;
    if (wanted > 0) {
        return wanted < THREADS_MAX ? (int)wanted : THREADS_MAX;
    }
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static int read_config(struct open_model *o, const char *dir, const char *config_path,
                       struct err *err)
{
    struct buf text = {0};
    if (config_path != NULL) {
        int rc = file_read(config_path, MODEL_BYTES_MAX, &text, err);
        if (rc == 0) {
            rc = model_config_parse(&o->config, buf_cstr(&text), text.len, config_path, err);
        }
        buf_fini(&text);
        return rc;
    }
    if (o->facts.model == NULL) {
        return err_set(err, ERR_USAGE,
                       "%s does not hold its model's configuration (name the config.json of the "
                       "job with --model)",
                       dir);
    }
    return model_config_parse(&o->config, o->facts.model, strlen(o->facts.model), dir, err);
}

/* A checkpoint of another model would be refused by its tensors' shapes, but not for another
 * rope_theta or number of experts per token. */
static int check_config(const struct open_model *o, const char *config_path, struct err *err)
{
    char sha256[65];
    char *text = model_config_to_json(&o->config);
    manifest_digest_text(text, strlen(text), sha256);
    free(text);
    if (config_path != NULL && strcmp(sha256, o->facts.model_sha256) != 0) {
        return err_set(err, ERR_CONFIG,
                       "%s is not the configuration that the checkpoint was made with (it has "
                       "sha256 %s, the checkpoint wants %s)",
                       config_path, sha256, o->facts.model_sha256);
    }
    return 0;
}

int model_open_facts(struct open_model *o, const char *dir, const char *config_path,
                     struct err *err)
{
    struct manifest m = {0};
    *o = (struct open_model){.mesh = {.pipeline = 1, .expert = 1, .data = 1, .world = 1}};
    if (access(dir, F_OK) != 0) {
        return err_set_errno(err, "cannot open %s", dir);
    }
    int rc = manifest_read(&m, dir, err);
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err){0};
        rc = err_set(err, ERR_CORRUPT,
                     "%s has no %s: it was never committed, or it is no checkpoint", dir,
                     MANIFEST_FILE);
    }
    if (rc == 0) {
        rc = ckpt_facts_parse(&o->facts, m.layout, dir, err);
    }
    manifest_fini(&m);
    if (rc == 0) {
        rc = read_config(o, dir, config_path, err);
    }
    return rc == 0 ? check_config(o, config_path, err) : rc;
}

static int load(struct open_model *o, const char *dir, const struct op_table *op, struct err *err)
{
    size_t count;
    size_t routers;
    struct ckpt_facts again;
    struct ckpt_tensors tensors;
    struct optim optim;
    struct router *router = model_routers(o->model, &routers);
    struct param *params = model_params(o->model, &count);
    optim_init(&optim, op, params, count, NULL, 0);
    ckpt_tensors_init(&tensors, &optim, router, routers, &o->mesh, false);
    int rc = ckpt_load(dir, o->ema ? CKPT_EMA : CKPT_WEIGHTS, &tensors, op, o->self, &again, err);
    ckpt_facts_fini(&again);
    ckpt_tensors_fini(&tensors);
    optim_fini(&optim);
    return rc;
}

int model_open_weights(struct open_model *o, const char *dir, const struct op_table *op,
                       enum precision precision, uint32_t sequence_length, struct err *err)
{
    o->self = comm_self_create();
    const struct model_options options = {.config = &o->config,
                                          .op = op,
                                          .mesh = &o->mesh,
                                          .expert_comm = o->self,
                                          .precision = precision,
                                          .micro_batch = 1,
                                          .sequence_length = sequence_length,
                                          .seed = 1};
    TRY(model_create(&o->model, &options, err));
    TRY(load(o, dir, op, err));
    model_refresh(o->model);
    return 0;
}

void model_open_fini(struct open_model *o)
{
    model_destroy(o->model);
    comm_destroy(o->self);
    ckpt_facts_fini(&o->facts);
    *o = (struct open_model){0};
}
