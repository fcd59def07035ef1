/* The model against vectors of others (tests/reference/models.py: transformers, and plain PyTorch
 * for what that has not): logits, losses and the gradient of every parameter. */
#include "tests/unit/trainer/reference.h"
#include "trainer/model.h"

#define LOGIT_TOLERANCE    1e-4 /* of the logits' range */
#define LOSS_TOLERANCE     1e-5 /* relative */
#define GRADIENT_TOLERANCE 1e-4 /* relative L2, each tensor */
#define ZERO_TOLERANCE     1e-6 /* of the whole gradient's norm, where exact arithmetic gives 0 */

static void check_loss(struct vectors *v, const char *what, double got, const char *key)
{
    double want = vectors_fact(v, key);
    vectors_note(v, what, fabs(got - want) / fmax(1.0, fabs(want)), LOSS_TOLERANCE, "");
}

static void check_logits(struct vectors *v, struct model *model, const int32_t *tokens,
                         size_t count)
{
    struct err err = {0};
    float *want = vectors_floats(v, "logits", count);
    float *got = mem_alloc_array(count, sizeof *got);
    if (model_logits(model, tokens, got, &err) != 0) {
        fail_msg("%s", err.text);
    }
    double low = INFINITY, high = -INFINITY, worst = 0;
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)got[i] - want[i]);
        low = fmin(low, want[i]);
        high = fmax(high, want[i]);
        worst = error <= worst ? worst : error; /* NaN is worse than anything */
    }
    vectors_note(v, "logits", worst / (high - low), LOGIT_TOLERANCE, "");
    free(want);
    free(got);
}

/* Norms of the difference and of what is wanted. */
static void difference(const float *got, const float *want, size_t count, double *error,
                       double *norm)
{
    *error = *norm = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)got[i] - want[i];
        *error += d * d;
        *norm += (double)want[i] * want[i];
    }
    *error = sqrt(*error);
    *norm = sqrt(*norm);
}

static void check_gradients(struct vectors *v, const struct param *params, size_t count)
{
    double *error = mem_alloc_array(count, sizeof *error);
    double *norm = mem_alloc_array(count, sizeof *norm);
    double whole = 0;
    for (size_t i = 0; i < count; i++) {
        char name[160];
        snprintf(name, sizeof name, "grad.%s", params[i].name);
        float *want = vectors_floats(v, name, params[i].count);
        difference(params[i].grad, want, params[i].count, &error[i], &norm[i]);
        whole += norm[i] * norm[i];
        free(want);
    }
    double worst = 0, worst_zero = 0;
    const char *on = "", *on_zero = NULL;
    for (size_t i = 0; i < count; i++) {
        bool zero = norm[i] == 0;
        double e = zero ? error[i] / sqrt(whole) : error[i] / norm[i];
        double *most = zero ? &worst_zero : &worst;
        if (!(e <= *most) || (zero && on_zero == NULL)) {
            *most = e;
            *(zero ? &on_zero : &on) = params[i].name;
        }
    }
    vectors_note(v, "gradients", worst, GRADIENT_TOLERANCE, on);
    if (on_zero != NULL) {
        vectors_note(v, "gradients that are 0", worst_zero, ZERO_TOLERANCE, on_zero);
    }
    free(error);
    free(norm);
}

static void load_weights(struct model *model, const struct vectors *v)
{
    size_t count = 0;
    struct param *params = model_params(model, &count);
    for (size_t i = 0; i < count; i++) {
        float *data = vectors_floats(v, params[i].name, params[i].count);
        memcpy(params[i].weight, data, params[i].count * sizeof *data);
        free(data);
    }
    struct router *routers = model_routers(model, &count);
    for (size_t i = 0; i < count; i++) {
        float *data = vectors_floats(v, routers[i].name, routers[i].experts);
        memcpy(routers[i].bias, data, routers[i].experts * sizeof *data);
        free(data);
    }
    model_refresh(model);
}

static int32_t *read_tokens(const struct vectors *v, size_t count)
{
    float *raw = vectors_floats(v, "tokens", count);
    int32_t *tokens = mem_alloc_array(count, sizeof *tokens);
    for (size_t i = 0; i < count; i++) {
        tokens[i] = (int32_t)raw[i];
    }
    free(raw);
    return tokens;
}

static void check_model(struct vectors *v, struct model *model, uint32_t batch, uint32_t length,
                        uint32_t vocabulary)
{
    struct err err = {0};
    int32_t *tokens = read_tokens(v, (size_t)batch * (length + 1));
    check_logits(v, model, tokens, (size_t)batch * length * vocabulary);
    double targets = (double)batch * length;
    struct model_losses sums = {0};
    model_zero_grad(model);
    if (model_train(model, tokens, 1.0 / targets, &sums, &err) != 0) {
        fail_msg("%s: %s", v->name, err.text);
    }
    assert_int_equal(sums.tokens, batch * length);
    check_loss(v, "loss", sums.loss / targets, "loss");
    check_loss(v, "mtp loss", sums.mtp_loss / targets, "mtp_loss");
    check_loss(v, "balance loss", sums.balance / batch, "balance");
    size_t count = 0;
    const struct param *params = model_params(model, &count);
    check_gradients(v, params, count);
    free(tokens);
}

static void check_case(struct vectors *v)
{
    struct err err = {0};
    const char *text = vectors_text(v, "config");
    struct model_config config;
    if (model_config_parse(&config, text, strlen(text), v->file.path, &err) != 0) {
        fail_msg("%s", err.text);
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
        .micro_batch = (uint32_t)vectors_fact(v, "batch"),
        .sequence_length = (uint32_t)vectors_fact(v, "length"),
        .balance_alpha = vectors_fact(v, "balance_alpha"),
        .mtp_lambda = vectors_fact(v, "mtp_lambda"),
        .init_std = 0.02,
        .seed = 1,
    };
    struct model *model = NULL;
    if (model_create(&model, &options, &err) != 0) {
        fail_msg("%s: %s", v->file.path, err.text);
    }
    load_weights(model, v);
    check_model(v, model, options.micro_batch, options.sequence_length, config.vocab_size);
    model_destroy(model);
    comm_destroy(self);
}

/* Logits, losses and all gradients agree in every case of the folder. */
static void test_agrees(void **state)
{
    (void)state;
    vectors_each("model", check_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_agrees)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
