/* The BF16 kernels that work row by row, against the CPU back end on the same BF16 numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/gpu/check.h"
#include "trainer/cuda/embed.h"
#include "trainer/cuda/loss.h"
#include "trainer/cuda/norm.h"
#include "trainer/cuda/optimiser.h"
#include "trainer/cuda/permute.h"
#include "trainer/cuda/rotary.h"
#include "trainer/cuda/router.h"
#include "trainer/cuda/state.h"
#include "trainer/cuda/swiglu.h"
#include "trainer/half.h"

#define FP32      1e-5
#define BF16      1e-2
#define RUN(call) check_true(#call, (call) == 0)

/* BF16 numbers on the device, and the same as floats here; or a place for results. */
struct half {
    uint16_t *device;
    float *x;
    size_t count;
};

static struct half half_random(size_t count)
{
    uint16_t *codes = mem_alloc_array(count, sizeof *codes);
    struct half h = {.x = mem_alloc_array(count, sizeof(float)), .count = count};
    fill_bf16(codes, count);
    for (size_t i = 0; i < count; i++) {
        h.x[i] = bf16_decode(codes[i]);
    }
    h.device = upload(codes, count * sizeof *codes);
    free(codes);
    return h;
}

static struct half half_empty(size_t count)
{
    return (struct half){poisoned(count * sizeof(uint16_t)), mem_alloc_array(count, sizeof(float)),
                         count};
}

/* Compares x, what it should be, with the device's. */
static void half_check(const char *what, const struct half *h, double bound)
{
    uint16_t *codes = download(h->device, h->count * sizeof *codes);
    float *got = mem_alloc_array(h->count, sizeof *got);
    for (size_t i = 0; i < h->count; i++) {
        got[i] = bf16_decode(codes[i]);
    }
    check_floats(what, got, h->x, h->count, bound);
    free(codes);
    free(got);
}

static void half_free(struct half *h)
{
    check.gpu->release(h->device);
    free(h->x);
}

/* Row codes must be those that quantise_rows gives of what the kernel itself wrote. */
static void codes_check(const char *what, const struct half *y, size_t rows, size_t cols, int pow2,
                        struct fp8_codes codes)
{
    size_t scales = (cols + 127) / 128 * rows;
    struct fp8_codes want = {poisoned(rows * cols), poisoned(scales * sizeof(float))};
    RUN(quantise_rows(y->device, rows, cols, pow2, want, cuda_state.stream));
    void *a = download(codes.code, rows * cols), *b = download(want.code, rows * cols);
    check_bytes(what, a, b, rows * cols);
    free(a);
    free(b);
    a = download(codes.scale, scales * sizeof(float));
    b = download(want.scale, scales * sizeof(float));
    check_bytes(what, a, b, scales * sizeof(float));
    free(a);
    free(b);
    void *all[] = {codes.code, codes.scale, want.code, want.scale};
    for (size_t i = 0; i < 4; i++) {
        check.gpu->release(all[i]);
    }
}

static struct fp8_codes codes_make(size_t rows, size_t cols)
{
    return (struct fp8_codes){poisoned(rows * cols),
                              poisoned((cols + 127) / 128 * rows * sizeof(float))};
}

static void norms(void)
{
    size_t rows = check_size(300, 4000), cols = 8 * check_size(30, 1024),
           ld = cols + 8 * check_below(3);
    int pow2 = (int)check_below(2), add = (int)check_below(2);
    struct half x = half_random(rows * ld), dy = half_random(rows * cols);
    struct half y = half_empty(rows * cols), dx = half_random(rows * ld);
    struct pair w = pair_dense(1, cols), dw = pair_dense(1, cols), rstd = pair_poisoned(1, rows);
    struct mat mx = {x.x, rows, cols, ld}, mdx = {dx.x, rows, cols, ld};
    struct fp8_codes codes = codes_make(rows, cols);
    check.cpu->rmsnorm(mx, w.cpu.data, 1e-6f, mat_of(y.x, rows, cols), rstd.cpu.data);
    RUN(norm_forward(x.device, ld, rows, cols, w.gpu.data, 1e-6f, y.device, rstd.gpu.data, codes,
                     pow2, cuda_state.stream));
    half_check("norm_forward", &y, BF16);
    pair_check("norm_forward rstd", rstd, FP32);
    codes_check("norm_forward codes", &y, rows, cols, pow2, codes);
    float *partial = poisoned(norm_partials(rows, cols) * sizeof *partial);
    check.cpu->rmsnorm_backward(mx, w.cpu.data, rstd.cpu.data, mat_of(dy.x, rows, cols), mdx,
                                add != 0, 0.6f, dw.cpu.data);
    RUN(norm_backward(x.device, ld, rows, cols, w.gpu.data, rstd.gpu.data, dy.device, dx.device, ld,
                      add, 0.6f, dw.gpu.data, partial, cuda_state.stream));
    half_check("norm_backward dx", &dx, BF16);
    pair_check("norm_backward dw", dw, FP32);
    check.gpu->release(partial);
    half_free(&x);
    half_free(&dy);
    half_free(&y);
    half_free(&dx);
    pair_free(&w);
    pair_free(&dw);
    pair_free(&rstd);
}

static void swiglus(void)
{
    size_t rows = check_size(30, 2000), cols = 128 * check_size(3, 20), cells = rows * cols;
    struct half gu = half_random(2 * cells), out = half_empty(cells), dout = half_random(cells);
    struct half dgu = half_empty(2 * cells), again = half_empty(cells);
    struct fp8_codes codes = codes_make(rows, cols), kept = codes_make(rows, 2 * cols);
    check.cpu->swiglu(mat_of(gu.x, rows, 2 * cols), mat_of(out.x, rows, cols));
    RUN(swiglu_forward(gu.device, rows, cols, out.device, codes, cuda_state.stream));
    half_check("swiglu_forward", &out, BF16);
    codes_check("swiglu_forward codes", &out, rows, cols, 0, codes);
    check.cpu->swiglu_backward(mat_of(gu.x, rows, 2 * cols), mat_of(dout.x, rows, cols),
                               mat_of(dgu.x, rows, 2 * cols), mat_of(again.x, rows, cols));
    RUN(swiglu_backward(gu.device, dout.device, rows, cols, dgu.device, again.device,
                        cuda_state.stream));
    half_check("swiglu_backward", &dgu, BF16);
    half_check("swiglu_backward, out", &again, BF16);
    /* from codes: on the numbers they stand for */
    RUN(quantise_rows(gu.device, rows, 2 * cols, 0, kept, cuda_state.stream));
    check.cpu->quantise(OP_FP8_ROW, (struct op_groups){0}, mat_of(gu.x, rows, 2 * cols),
                        mat_of(gu.x, rows, 2 * cols));
    check.cpu->swiglu_backward(mat_of(gu.x, rows, 2 * cols), mat_of(dout.x, rows, cols),
                               mat_of(dgu.x, rows, 2 * cols), mat_of(again.x, rows, cols));
    codes = codes_make(rows, cols);
    RUN(swiglu_forward_kept(kept, rows, cols, again.device, codes, cuda_state.stream));
    half_check("swiglu_forward_kept", &again, BF16);
    codes_check("swiglu_forward_kept codes", &again, rows, cols, 0, codes);
    RUN(swiglu_backward_kept(kept, dout.device, rows, cols, dgu.device, again.device,
                             cuda_state.stream));
    half_check("swiglu_backward_kept", &dgu, BF16);
    half_check("swiglu_backward_kept, out", &again, BF16);
    struct half *all[] = {&gu, &out, &dout, &dgu, &again};
    for (size_t i = 0; i < 5; i++) {
        half_free(all[i]);
    }
    check.gpu->release(kept.code);
    check.gpu->release(kept.scale);
}

static struct op_heads floats(float *x, size_t row, size_t head)
{
    return (struct op_heads){x, row, head};
}

static struct half_heads halves(uint16_t *x, size_t row, size_t head)
{
    return (struct half_heads){x, row, head};
}

static void positions(void)
{
    size_t seq = 1 + check_below(9), rows = seq * check_size(4, 400), heads = check_size(9, 128);
    size_t nope = 8 * (1 + check_below(16)), dim = 8 * (1 + check_below(8)), all = nope + dim;
    size_t ld = dim + 8 * check_below(3);
    struct pair table = pair_dense(seq, dim);
    struct half shared = half_random(rows * ld), from = half_random(rows * heads * nope);
    struct half k = half_empty(rows * heads * all), turned = half_random(rows * heads * dim);
    const float *t = table.gpu.data;
    int inverse = (int)check_below(2);
    check.cpu->rope(floats(turned.x, heads * dim, dim), rows, seq, heads, dim, table.cpu.data,
                    inverse != 0);
    RUN(rotary(halves(turned.device, heads * dim, dim), rows, seq, heads, dim, t, inverse,
               cuda_state.stream));
    half_check("rotary", &turned, BF16);
    float *key = mem_alloc_array(rows * ld, sizeof *key);
    memcpy(key, shared.x, rows * ld * sizeof *key);
    check.cpu->rope(floats(key, ld, dim), rows, seq, 1, dim, table.cpu.data, false);
    check.cpu->keys(floats(from.x, heads * nope, nope), nope, (struct mat){key, rows, dim, ld},
                    heads, floats(k.x, heads * all, all));
    RUN(rotary_keys(halves(from.device, heads * nope, nope), nope, shared.device, ld, dim, rows,
                    seq, heads, t, halves(k.device, heads * all, all), cuda_state.stream));
    half_check("rotary_keys", &k, BF16);
    struct half dk = half_random(rows * heads * all);
    struct mat dshared = {shared.x, rows, dim, ld};
    check.cpu->keys_backward(floats(dk.x, heads * all, all), heads,
                             floats(from.x, heads * nope, nope), nope, dshared);
    check.cpu->rope(floats(shared.x, ld, dim), rows, seq, 1, dim, table.cpu.data, true);
    RUN(rotary_keys_backward(halves(dk.device, heads * all, all), nope, dim, rows, seq, heads, t,
                             halves(from.device, heads * nope, nope), shared.device, ld,
                             cuda_state.stream));
    half_check("rotary_keys_backward", &from, 0);
    half_check("rotary_keys_backward, shared", &shared, BF16);
    free(key);
    pair_free(&table);
    struct half *every[] = {&shared, &from, &k, &turned, &dk};
    for (size_t i = 0; i < 5; i++) {
        half_free(every[i]);
    }
}

static void moves(void)
{
    size_t tokens = check_size(20, 1000), cols = 8 * check_size(40, 900),
           top_k = 1 + check_below(8);
    size_t pairs = tokens * top_k;
    uint32_t *place = mem_alloc_array(pairs, sizeof *place);
    for (size_t i = 0; i < pairs; i++) {
        size_t j = check_below(i + 1);
        place[i] = place[j];
        place[j] = (uint32_t)i;
    }
    uint32_t *device = upload(place, pairs * sizeof *place);
    struct half y = half_random(pairs * cols), to = half_empty(pairs * cols);
    struct half out = half_random(tokens * cols);
    struct pair weight = pair_dense(1, pairs), dweight = pair_poisoned(1, pairs);
    struct mat my = mat_of(y.x, pairs, cols), mout = mat_of(out.x, tokens, cols);
    check.cpu->gather(my, place, mat_of(to.x, pairs, cols));
    RUN(gather_rows(y.device, device, pairs, cols, to.device, cuda_state.stream));
    half_check("gather_rows", &to, 0);
    struct fp8_codes before = codes_make(pairs, cols), after = codes_make(pairs, cols);
    RUN(quantise_rows(y.device, pairs, cols, 1, before, cuda_state.stream));
    RUN(gather_codes(before, pairs, device, pairs, cols, after, cuda_state.stream));
    codes_check("gather_codes", &to, pairs, cols, 1, after);
    bool weighted = check_below(2) == 0;
    check.cpu->combine(my, place, weighted ? weight.cpu.data : NULL, top_k, mout);
    RUN(combine_rows(y.device, device, weighted ? weight.gpu.data : NULL, top_k, tokens, cols,
                     out.device, cuda_state.stream));
    half_check("combine_rows", &out, BF16);
    struct half dout = half_random(tokens * cols);
    check.cpu->combine_backward(mat_of(dout.x, tokens, cols), my, place, weight.cpu.data, top_k,
                                mat_of(to.x, pairs, cols), dweight.cpu.data);
    RUN(combine_backward_rows(dout.device, y.device, device, weight.gpu.data, top_k, tokens, cols,
                              to.device, dweight.gpu.data, cuda_state.stream));
    half_check("combine_backward_rows", &to, BF16);
    pair_check("combine_backward_rows, weights", dweight, 1e-4);
    half_free(&y);
    half_free(&to);
    half_free(&out);
    half_free(&dout);
    pair_free(&weight);
    pair_free(&dweight);
    check.gpu->release(before.code);
    check.gpu->release(before.scale);
    check.gpu->release(device);
    free(place);
}

static void embeddings(void)
{
    size_t rows = check_size(600, 5000), cols = 8 * check_size(10, 900),
           vocabulary = 1 + check_below(30);
    int32_t *token = mem_alloc_array(rows, sizeof *token);
    for (size_t i = 0; i < rows; i++) {
        token[i] = (int32_t)check_below(vocabulary);
    }
    int32_t *device = upload(token, rows * sizeof *token);
    struct half table = half_random(vocabulary * cols), y = half_empty(rows * cols);
    struct half dy = half_random(rows * cols);
    struct pair grad = pair_dense(vocabulary, cols);
    check.cpu->embed(token, table.x, mat_of(y.x, rows, cols));
    RUN(embed_bf16(device, table.device, y.device, rows, cols, cuda_state.stream));
    half_check("embed_bf16", &y, 0);
    check.cpu->embed_backward(token, mat_of(dy.x, rows, cols), 0.3f, grad.cpu.data);
    RUN(embed_backward_bf16(device, dy.device, rows, cols, 0.3f, grad.gpu.data, cuda_state.stream));
    pair_check("embed_backward_bf16", grad, FP32);
    half_free(&table);
    half_free(&y);
    half_free(&dy);
    pair_free(&grad);
    check.gpu->release(device);
    free(token);
}

/* In chunks of random widths, against whole rows at once. */
static void losses(void)
{
    size_t rows = check_size(20, 500), cols = 8 * check_size(90, 2500);
    struct pair logits = pair_dense(rows, cols), loss = pair_poisoned(1, rows);
    struct half gradient = half_empty(rows * cols);
    int32_t *target = mem_alloc_array(rows, sizeof *target);
    for (size_t i = 0; i < rows; i++) {
        target[i] = (int32_t)check_below(cols);
    }
    int32_t *device = upload(target, rows * sizeof *target);
    struct pair state[3] = {pair_poisoned(1, rows), pair_poisoned(1, rows), pair_poisoned(1, rows)};
    struct loss_state s = {state[0].gpu.data, state[1].gpu.data, state[2].gpu.data};
    size_t width = 8 * (1 + check_below(cols / 8));
    float *chunk = check.gpu->alloc(rows * width * sizeof *chunk);
    uint16_t *out = check.gpu->alloc(rows * width * sizeof *out);
    uint16_t *all = mem_alloc_array(rows * cols, sizeof *all);
    RUN(loss_begin(s, rows, cuda_state.stream));
    for (int pass = 0; pass < 2; pass++) {
        for (size_t first = 0; first < cols; first += width) {
            size_t n = cols - first < width ? cols - first : width;
            check.gpu->copy(mat_cols(logits.gpu, first, n), mat_of(chunk, rows, n));
            if (pass == 0) {
                RUN(loss_add(s, chunk, rows, n, first, device, cuda_state.stream));
                continue;
            }
            RUN(loss_gradient(s, chunk, rows, n, first, device, 0.4f, out, cuda_state.stream));
            uint16_t *part = download(out, rows * n * sizeof *part);
            for (size_t i = 0; i < rows * n; i++) {
                all[i / n * cols + first + i % n] = part[i];
            }
            free(part);
        }
    }
    RUN(loss_end(s, rows, loss.gpu.data, cuda_state.stream));
    check.gpu->copy_from_host(gradient.device, all, rows * cols * sizeof *all);
    check.cpu->cross_entropy(logits.cpu, target, 0.4f, loss.cpu.data);
    memcpy(gradient.x, logits.cpu.data, rows * cols * sizeof(float));
    pair_check("loss in chunks", loss, FP32);
    half_check("loss_gradient", &gradient, BF16);
    for (size_t i = 0; i < 3; i++) {
        pair_free(&state[i]);
    }
    pair_free(&logits);
    pair_free(&loss);
    half_free(&gradient);
    check.gpu->release(chunk);
    check.gpu->release(out);
    check.gpu->release(device);
    free(all);
    free(target);
}

static void steps(void)
{
    size_t n = 8 * check_size(300, 300000);
    struct pair w = pair_dense(1, n), g = pair_dense(1, n);
    struct half m = half_random(n), v = half_random(n), low = half_empty(n);
    for (size_t i = 0; i < n; i++) { /* second moments are not negative */
        v.x[i] = fabsf(v.x[i]);
    }
    uint16_t *codes = mem_alloc_array(n, sizeof *codes);
    for (size_t i = 0; i < n; i++) {
        codes[i] = bf16_encode(v.x[i]);
    }
    check.gpu->copy_from_host(v.device, codes, n * sizeof *codes);
    struct adamw_step step = adamw_step(0.5f, 1e-2f, 0.9, 0.95, 1e-8f, 0.1f, 0.1f, 0.05f);
    check.cpu->adamw(w.cpu.data, m.x, v.x, g.cpu.data, n, 0.5f, 1e-2f, 0.9, 0.95, 1e-8f, 0.1f, 0.1f,
                     0.05f);
    RUN(adamw_bf16(w.gpu.data, m.device, v.device, g.gpu.data, low.device, n, &step,
                   cuda_state.stream));
    memcpy(low.x, w.cpu.data, n * sizeof(float));
    pair_check("adamw_bf16 weight", w, FP32);
    half_check("adamw_bf16 m", &m, BF16);
    half_check("adamw_bf16 v", &v, BF16);
    half_check("adamw_bf16 low", &low, BF16);
    pair_free(&w);
    pair_free(&g);
    half_free(&m);
    half_free(&v);
    half_free(&low);
    free(codes);
}

/* What op.h's table does not have: how many pairs chose each expert. */
static void counts(void)
{
    struct op_router r = {256, 8, 8, 4, true, 2.5f};
    size_t rows = check_size(20, 4000), pairs = rows * r.top_k;
    struct pair logits = pair_dense(rows, r.experts), scores = pair_poisoned(rows, r.experts);
    struct pair bias = pair_dense(1, r.experts), weight = pair_poisoned(1, pairs);
    int32_t *expert = poisoned(pairs * sizeof *expert),
            *count = poisoned(r.experts * sizeof *count);
    RUN(router_choose(&r, logits.gpu, bias.gpu.data, scores.gpu, expert, weight.gpu.data, count,
                      cuda_state.stream));
    int32_t *chosen = download(expert, pairs * sizeof *chosen);
    int32_t *got = download(count, r.experts * sizeof *got), wanted[256] = {0};
    for (size_t i = 0; i < pairs; i++) {
        wanted[chosen[i]]++;
    }
    check_bytes("router_choose count", got, wanted, sizeof wanted);
    free(chosen);
    free(got);
    check.gpu->release(expert);
    check.gpu->release(count);
    pair_free(&logits);
    pair_free(&scores);
    pair_free(&bias);
    pair_free(&weight);
}

void check_rows(void)
{
    for (int trial = 0; trial < 6; trial++) {
        norms();
        swiglus();
        positions();
        moves();
        embeddings();
        losses();
        steps();
        counts();
    }
}
