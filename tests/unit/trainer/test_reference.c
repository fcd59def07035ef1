/* The model against vectors that transformers computed (tests/reference/make_vectors.py): logits,
 * losses and the gradient of every parameter. DS_VECTORS names another folder of vectors. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "lib/mem.h"
#include "trainer/model.h"
#include "trainer/safetensors.h"

#define LOGIT_TOLERANCE    1e-4 /* of the logits' range */
#define LOSS_TOLERANCE     1e-5 /* relative */
#define GRADIENT_TOLERANCE 1e-4 /* relative L2, each tensor */
#define GRADIENT_FLOOR                                                                             \
    1e-7 /* a gradient that is zero in exact arithmetic is rounding noise on both sides */

static double fact(json_t *facts, const char *key)
{
    const char *text = json_string_value(json_object_get(facts, key));
    assert_non_null(text);
    return strtod(text, NULL);
}

static float *tensor(const struct safetensors *file, const char *name, size_t count)
{
    struct err err = {0};
    float *data = mem_alloc_array(count, sizeof *data);
    const struct safetensors_tensor *t = safetensors_find(file, name);
    if (t == NULL || safetensors_read_f32(file, t, data, count, &err) != 0) {
        fail_msg("%s: %s", name, t == NULL ? "missing from the vectors" : err.text);
    }
    return data;
}

static void check_close(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fmax(1.0, fabs(want)))) {
        fail_msg("%s is %.9g, the reference says %.9g", what, got, want);
    }
}

static void check_logits(struct model *model, const struct safetensors *file, const int32_t *tokens,
                         size_t count)
{
    struct err err = {0};
    float *want = tensor(file, "logits", count);
    float *got = mem_alloc_array(count, sizeof *got);
    if (model_logits(model, tokens, got, &err) != 0) {
        fail_msg("%s", err.text);
    }
    double low = INFINITY, high = -INFINITY, worst = 0;
    for (size_t i = 0; i < count; i++) {
        low = fmin(low, want[i]);
        high = fmax(high, want[i]);
        worst = fmax(worst, fabs((double)got[i] - want[i]));
    }
    if (!(worst <= LOGIT_TOLERANCE * (high - low))) {
        fail_msg("a logit is off by %g of the range %g", worst, high - low);
    }
    free(want);
    free(got);
}

static void check_gradient(const struct safetensors *file, const struct param *p)
{
    char name[160];
    snprintf(name, sizeof name, "grad.%s", p->name);
    float *want = tensor(file, name, p->count);
    double error = 0, norm = 0;
    for (size_t i = 0; i < p->count; i++) {
        double d = (double)p->grad[i] - want[i];
        error += d * d;
        norm += (double)want[i] * want[i];
    }
    if (!(sqrt(error) <= GRADIENT_TOLERANCE * sqrt(norm) + GRADIENT_FLOOR)) {
        fail_msg("gradient of %s: relative L2 error %g (norm %g)", p->name, sqrt(error / norm),
                 sqrt(norm));
    }
    free(want);
}

static void load_weights(struct model *model, const struct safetensors *file)
{
    size_t count = 0;
    struct param *params = model_params(model, &count);
    for (size_t i = 0; i < count; i++) {
        float *data = tensor(file, params[i].name, params[i].count);
        memcpy(params[i].weight, data, params[i].count * sizeof *data);
        free(data);
    }
    struct router *routers = model_routers(model, &count);
    for (size_t i = 0; i < count; i++) {
        float *data = tensor(file, routers[i].name, routers[i].experts);
        memcpy(routers[i].bias, data, routers[i].experts * sizeof *data);
        free(data);
    }
    model_refresh(model);
}

static void check_case(const char *path)
{
    struct err err = {0};
    struct safetensors file = {0};
    if (safetensors_open(&file, path, &err) != 0) {
        fail_msg("%s", err.text);
    }
    json_t *facts = json_loads(file.metadata, 0, NULL);
    const char *config_text = json_string_value(json_object_get(facts, "config"));
    struct model_config config;
    if (model_config_parse(&config, config_text, strlen(config_text), path, &err) != 0) {
        fail_msg("%s", err.text);
    }
    uint32_t batch = (uint32_t)fact(facts, "batch");
    uint32_t length = (uint32_t)fact(facts, "length");
    size_t token_count = (size_t)batch * (length + 1);
    float *raw = tensor(&file, "tokens", token_count);
    int32_t *tokens = mem_alloc_array(token_count, sizeof *tokens);
    for (size_t i = 0; i < token_count; i++) {
        tokens[i] = (int32_t)raw[i];
    }
    struct mesh mesh;
    assert_int_equal(mesh_init(&mesh, 1, 0, 1, 1, &err), 0);
    struct comm *self = comm_self_create();
    struct model_options options = {
        .config = &config,
        .op = op_cpu(1),
        .mesh = &mesh,
        .expert_comm = self,
        .precision = PRECISION_FP32,
        .micro_batch = batch,
        .sequence_length = length,
        .balance_alpha = fact(facts, "balance_alpha"),
        .mtp_lambda = fact(facts, "mtp_lambda"),
        .init_std = 0.02,
        .seed = 1,
    };
    struct model *model = NULL;
    if (model_create(&model, &options, &err) != 0) {
        fail_msg("%s: %s", path, err.text);
    }
    load_weights(model, &file);
    check_logits(model, &file, tokens, (size_t)batch * length * config.vocab_size);

    double targets = (double)batch * length;
    struct model_losses sums = {0};
    model_zero_grad(model);
    if (model_train(model, tokens, 1.0 / targets, &sums, &err) != 0) {
        fail_msg("%s: %s", path, err.text);
    }
    assert_int_equal(sums.tokens, batch * length);
    check_close("loss", sums.loss / targets, fact(facts, "loss"), LOSS_TOLERANCE);
    check_close("mtp loss", sums.mtp_loss / targets, fact(facts, "mtp_loss"), LOSS_TOLERANCE);
    check_close("balance loss", sums.balance / batch, fact(facts, "balance"), LOSS_TOLERANCE);
    size_t count = 0;
    const struct param *params = model_params(model, &count);
    for (size_t i = 0; i < count; i++) {
        check_gradient(&file, &params[i]);
    }
    model_destroy(model);
    comm_destroy(self);
    json_decref(facts);
    free(raw);
    free(tokens);
    safetensors_close(&file);
}

/* Logits, losses and all gradients agree with transformers in every case of the folder. */
static void test_agrees_with_transformers(void **state)
{
    (void)state;
    const char *folder =
        getenv("DS_VECTORS") != NULL ? getenv("DS_VECTORS") : "tests/reference/vectors";
    struct dirent **entries = NULL;
    int found = scandir(folder, &entries, NULL, alphasort);
    int checked = 0;
    for (int i = 0; i < found; i++) {
        if (strstr(entries[i]->d_name, ".safetensors") != NULL) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
            print_message("%s\n", entries[i]->d_name);
            check_case(path);
            checked++;
        }
        free(entries[i]);
    }
    free(entries);
    assert_true(checked > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_agrees_with_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
