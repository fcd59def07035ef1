/* A decoder layer and a multi-token prediction module: outputs and gradients against the oracle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/trainer/layer_fixture.h"
#include "trainer/fp8.h"

/* Layers are named by their number; the fixture's router gets the name of the one under test. */
static uint32_t layer_number;

static void name_router(struct layer_fixture *f)
{
    snprintf(f->router.name, sizeof f->router.name,
             "model.layers.%u.mlp.gate.e_score_correction_bias", layer_number);
}

/* ---- a decoder layer */

static void build_block(void *layer, struct builder *b, struct layer_fixture *f)
{
    name_router(f);
    block_build(layer, b, layer_number, &f->router);
}

static void run_block(struct oracle *o, struct shape s, const double *x, double *y)
{
    memcpy(y, x, s.rows * o->c->hidden_size * sizeof *y);
    o_block(o, layer_number, s.batch, s.seq, y);
}

/* Dense and mixture layers; the gradient runs through both residual branches in place. */
static void test_block(void **state)
{
    (void)state;
    int checked = 0;
    for (int trial = 0; trial < 60 && checked < 12; trial++) {
        struct layer_fixture f;
        struct block m = {0};
        layer_number = (uint32_t)trial % 3;
        layer_start(&f, op_cpu(1), build_block, &m);
        size_t rows = f.shape.rows, h = f.config.hidden_size;
        struct mat x = random_mat(rows, h), y = random_mat(rows, h), d = random_mat(rows, h);
        struct layer_case k = {&f,       run_block, doubles_of(x), doubles_of(d), doubles_of(y),
                               rows * h, rows * h};
        f.ctx.op->copy(x, m.x);
        assert_int_equal(block_forward(&f.ctx, &m, f.shape, y, NULL), 0);
        assert_int_equal(block_backward(&f.ctx, &m, f.shape, d, NULL), 0);
        layer_objective(&k);
        if (f.oracle.margin > 1e-4) {
            assert_true(layer_errors(&k, y, d) < 1e-4);
            checked++;
        }
        free(x.data), free(y.data), free(d.data), free(k.x), free(k.weight), free(k.y);
        layer_stop(&f);
    }
    assert_int_equal(checked, 12);
}

static void assert_bf16(struct mat m, size_t rows)
{
    for (size_t i = 0; i < rows * m.cols; i++) {
        assert_int_equal(float_bits(m.data[i / m.cols * m.ld + i % m.cols]) & 0xFFFF, 0);
    }
}

/* In a BF16 run every activation that is stored is a BF16 number. */
static void test_bf16_storage(void **state)
{
    (void)state;
    for (int trial = 0; trial < 12; trial++) {
        struct layer_fixture f;
        struct block m = {0};
        layer_number = (uint32_t)trial % 3;
        layer_start(&f, op_cpu(1), build_block, &m);
        size_t rows = f.shape.rows, pairs = rows * f.config.num_experts_per_tok;
        struct mat x = random_mat(rows, f.config.hidden_size), y = random_mat(rows, x.cols);
        f.ctx.recipe = recipe_of(PRECISION_BF16);
        f.ctx.op->copy(x, m.x);
        store(&f.ctx, m.x);
        assert_int_equal(block_forward(&f.ctx, &m, f.shape, y, NULL), 0);
        /* but the rotary key in latent: it is stored as part of k */
        struct mat latent = mat_cols(m.mla.latent, 0, m.mla.a.n - f.config.qk_rope_head_dim);
        const struct mat stored[] = {m.normed, m.middle, m.post,        m.y,
                                     y,        latent,   m.mla.kv_in,   m.mla.q,
                                     m.mla.k,  m.mla.kv, m.mla.out.full};
        for (size_t i = 0; i < sizeof stored / sizeof *stored; i++) {
            assert_bf16(stored[i], rows);
        }
        if (m.is_moe) {
            assert_bf16(m.moe.x_rows.full, pairs);
            assert_bf16(m.moe.routed.gu.full, pairs);
            assert_bf16(m.moe.routed.act, pairs);
            assert_bf16(m.moe.y_rows.full, pairs);
        } else {
            assert_bf16(m.ffn.gu.full, rows);
            assert_bf16(m.ffn.act, rows);
        }
        free(x.data), free(y.data);
        layer_stop(&f);
    }
}

/* Is each row on the E4M3 grid of its own largest number? */
static void assert_fp8_rows(struct mat m, size_t rows)
{
    for (size_t r = 0; r < rows; r++) {
        const float *x = m.data + r * m.ld;
        float top = 0;
        for (size_t c = 0; c < m.cols; c++) {
            top = fmaxf(top, fabsf(x[c]));
        }
        float scale = fmaxf(top, 1e-4f) / 448;
        for (size_t c = 0; c < m.cols; c++) {
            assert_true(fabsf(fp8_round(x[c] / scale) * scale - x[c]) <= 1e-6f * fabsf(x[c]));
        }
    }
}

/* What rounding once more does not change is on the grid already. */
static void assert_on_grid(const struct op_table *op, enum op_format format, struct mat m,
                           size_t rows)
{
    struct mat again = random_mat(rows, m.cols);
    op->quantise(format, (struct op_groups){0}, mat_rows(m, 0, rows), again);
    for (size_t r = 0; r < rows; r++) {
        assert_memory_equal(again.data + r * again.ld, m.data + r * m.ld, m.cols * sizeof(float));
    }
    free(again.data);
}

/* In an FP8 run the recipe's formats are what is kept: E5M6 of the attention's output, FP8 of
 * SwiGLU's inputs, FP8 with power-of-two scales of what went to the experts, BF16 of what came
 * back. */
static void test_fp8_storage(void **state)
{
    (void)state;
    size_t mixtures = 0;
    for (int trial = 0; trial < 12; trial++) {
        struct layer_fixture f;
        struct block m = {0};
        layer_number = (uint32_t)trial % 3;
        layer_start_as(&f, PRECISION_FP8, op_cpu(1), build_block, &m);
        size_t rows = f.shape.rows, pairs = rows * f.config.num_experts_per_tok;
        struct mat x = random_mat(rows, f.config.hidden_size), y = random_mat(rows, x.cols);
        f.ctx.op->copy(x, m.x);
        assert_int_equal(block_forward(&f.ctx, &m, f.shape, y, NULL), 0);
        struct mat out = kept_unpack(&f.ctx, &m.mla.out, rows);
        assert_on_grid(f.ctx.op, OP_E5M6_ROW, out, rows);
        assert_true(f.ctx.op->sum_squares(out.data, rows * out.cols) > 0);
        const struct ffn *ffn = m.is_moe ? &m.moe.routed : &m.ffn;
        size_t width = ffn->gu.full.cols / 2, count = m.is_moe ? pairs : rows;
        struct mat gu = kept_unpack(&f.ctx, &ffn->gu, count);
        assert_fp8_rows(mat_cols(gu, 0, width), count);
        assert_fp8_rows(mat_cols(gu, width, width), count);
        if (m.is_moe) {
            mixtures++;
            struct mat y_rows = kept_unpack(&f.ctx, &m.moe.y_rows, pairs);
            struct mat x_rows = kept_unpack(&f.ctx, &m.moe.x_rows, pairs);
            assert_on_grid(f.ctx.op, OP_FP8_ROW_POW2, x_rows, pairs);
            assert_bf16(y_rows, pairs);
            assert_true(f.ctx.op->sum_squares(y_rows.data, pairs * x.cols) > 0);
        }
        free(x.data), free(y.data);
        layer_stop(&f);
    }
    assert_true(mixtures > 0 && mixtures < 12);
}

/* ---- a prediction module: the objective is its loss */

struct module {
    struct linear embed;
    struct mtp mtp;
    struct head head;
};

static uint32_t depth;
static int32_t tokens[3 * 8];

static void build_module(void *layer, struct builder *b, struct layer_fixture *f)
{
    struct module *m = layer;
    f->config.tie_word_embeddings = true;
    f->config.num_hidden_layers = 1;
    layer_number = f->config.num_hidden_layers + depth - 1;
    name_router(f);
    m->embed = (struct linear){0};
    params_linear(b->params, &m->embed, LINEAR_HIGH, -1, "model.", "embed_tokens.weight",
                  f->config.vocab_size, f->config.hidden_size);
    mtp_build(&m->mtp, b, depth, &f->router);
    head_build(&m->head, b, &m->embed);
}

/* x: what the module before gives, one position more than this one has. */
static void run_module(struct oracle *o, struct shape s, const double *x, double *y)
{
    (void)y;
    size_t seq = s.seq - depth, count = s.batch * (seq + 1) * o->c->hidden_size;
    double *previous = o_new(count);
    memcpy(previous, x, count * sizeof *previous);
    o->balance += o_mtp(o, depth, seq, previous, tokens);
    free(previous);
}

static void load(struct module *m, struct layer_fixture *f)
{
    size_t seq = m->mtp.shape.seq;
    for (size_t i = 0; i < f->shape.batch * (f->shape.seq + 1); i++) {
        tokens[i] = (int32_t)pick(0, f->config.vocab_size - 1);
    }
    for (size_t i = 0; i < m->mtp.shape.rows; i++) {
        size_t at = i / seq * (f->shape.seq + 1) + i % seq;
        m->mtp.token[i] = tokens[at + depth];
        m->mtp.target[i] = tokens[at + depth + 1];
    }
}

/* Depth 1: embeddings and hidden states one position apart, shared embedding and head. */
static void test_mtp(void **state)
{
    (void)state;
    int checked = 0;
    depth = 1;
    for (int trial = 0; trial < 60 && checked < 12; trial++) {
        struct layer_fixture f;
        struct module m = {0};
        layer_start(&f, op_cpu(1), build_module, &m);
        load(&m, &f);
        struct mtp *p = &m.mtp;
        size_t rows = f.shape.batch * (p->shape.seq + 1), h = f.config.hidden_size;
        struct mat previous = random_mat(rows, h), dprevious = random_mat(rows, h);
        struct mat dnormed = random_mat(p->shape.rows, h), none = mat_of(NULL, 0, 0);
        struct layer_case k = {
            .f = &f, .run = run_module, .x = doubles_of(previous), .x_count = rows * h};
        k.y = o_new(1);
        f.ctx.op->zero(dprevious);
        assert_int_equal(mtp_forward(&f.ctx, p, &m.embed, previous, NULL), 0);
        head_loss(&f.ctx, &m.head, p->normed, p->target, 1, dnormed);
        f.ctx.op->rmsnorm_backward(p->out, p->norm.w, p->rstd, dnormed, p->dout, false,
                                   f.ctx.grad_scale, p->norm.grad);
        assert_int_equal(mtp_backward(&f.ctx, p, &m.embed, dprevious, NULL), 0);
        layer_objective(&k);
        if (f.oracle.margin > 1e-4) {
            assert_true(layer_errors(&k, none, dprevious) < 1e-4);
            checked++;
        }
        free(previous.data), free(dprevious.data), free(dnormed.data), free(k.x), free(k.y);
        layer_stop(&f);
    }
    assert_int_equal(checked, 12);
}

int main(void)
{
    random_start("test_layer_block");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block),
        cmocka_unit_test(test_bf16_storage),
        cmocka_unit_test(test_fp8_storage),
        cmocka_unit_test(test_mtp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
