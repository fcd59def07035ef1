/* logits CKPT BATCH LENGTH [fp32|bf16|fp8]: the logits of a checkpoint's model, for comparing with
 * others'. Reads BATCH x LENGTH token ids from stdin (int32), writes BATCH x LENGTH x vocabulary
 * numbers to stdout (FP32). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/manifest.h"
#include "trainer/ckpt_load.h"
#include "trainer/model.h"

static int complain(const struct err *err)
{
    fprintf(stderr, "logits: %s\n", err->text);
    return 1;
}

static int read_config(const char *dir, struct model_config *config, struct err *err)
{
    struct manifest m;
    struct ckpt_facts facts;
    TRY(manifest_read(&m, dir, err));
    int rc = ckpt_facts_parse(&facts, m.layout, dir, err);
    manifest_fini(&m);
    TRY(rc);
    rc = model_config_parse(config, facts.model, strlen(facts.model), dir, err);
    ckpt_facts_fini(&facts);
    return rc;
}

static int load(struct model *model, const char *dir, const struct op_table *op, struct mesh *mesh,
                struct comm *self, struct err *err)
{
    struct optim optim;
    struct ckpt_tensors tensors;
    struct ckpt_facts facts;
    size_t params, routers;
    struct param *param = model_params(model, &params);
    struct router *router = model_routers(model, &routers);
    optim_init(&optim, op, param, params, NULL, 0);
    ckpt_tensors_init(&tensors, &optim, router, routers, mesh, false);
    int rc = ckpt_load(dir, CKPT_WEIGHTS, &tensors, op, self, &facts, err);
    ckpt_facts_fini(&facts);
    ckpt_tensors_fini(&tensors);
    optim_fini(&optim);
    model_refresh(model);
    return rc;
}

/* model_logits wants one token more a sequence: its target, which no logit depends on. */
static int32_t *read_tokens(uint32_t batch, uint32_t length)
{
    int32_t *tokens = mem_alloc_array((size_t)batch * (length + 1), sizeof *tokens);
    for (uint32_t b = 0; b < batch; b++) {
        if (fread(tokens + (size_t)b * (length + 1), sizeof *tokens, length, stdin) != length) {
            fprintf(stderr, "logits: stdin is too short\n");
            exit(1);
        }
    }
    return tokens;
}

int main(int argc, char **argv)
{
    struct mesh mesh = {.pipeline = 1, .expert = 1, .data = 1, .world = 1};
    struct comm *self = comm_self_create();
    struct model_config config;
    struct model *model;
    struct err err = {0};
    if (argc < 4) {
        fprintf(stderr, "usage: logits CKPT BATCH LENGTH [fp32|bf16|fp8]\n");
        return 64;
    }
    const char *precision = argc > 4 ? argv[4] : "fp32";
    if (read_config(argv[1], &config, &err) != 0) {
        return complain(&err);
    }
    const struct model_options options = {
        .config = &config,
        .op = op_cpu(1),
        .mesh = &mesh,
        .expert_comm = self,
        .precision = strcmp(precision, "fp8") == 0    ? PRECISION_FP8
                     : strcmp(precision, "bf16") == 0 ? PRECISION_BF16
                                                      : PRECISION_FP32,
        .micro_batch = (uint32_t)strtoul(argv[2], NULL, 10),
        .sequence_length = (uint32_t)strtoul(argv[3], NULL, 10),
    };
    if (model_create(&model, &options, &err) != 0 ||
        load(model, argv[1], options.op, &mesh, self, &err) != 0) {
        return complain(&err);
    }
    size_t count = (size_t)options.micro_batch * options.sequence_length * config.vocab_size;
    int32_t *tokens = read_tokens(options.micro_batch, options.sequence_length);
    float *logits = mem_alloc_array(count, sizeof *logits);
    if (model_logits(model, tokens, logits, &err) != 0) {
        return complain(&err);
    }
    bool written = fwrite(logits, sizeof *logits, count, stdout) == count && fflush(stdout) == 0;
    free(logits);
    free(tokens);
    model_destroy(model);
    comm_destroy(self);
    return written ? 0 : 1;
}
