/* The mixture's functions of op.h, and linear layers over groups. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/gpu/check.h"

#define FP32 1e-5

/* The GPU's choice is right when it is the CPU's on the GPU's own scores: those differ in the last
 * bit, which may decide between equals. */
static void router(void)
{
    size_t groups = 1 + check_below(4), each = 1 + check_below(check.large ? 64 : 20);
    struct op_router r = {.experts = groups * each,
                          .groups = groups,
                          .top_groups = 1 + check_below(groups),
                          .normalise = check_below(2) == 0,
                          .scale = 2.5f};
    size_t most = r.top_groups * each < 8 ? r.top_groups * each : 8;
    r.top_k = 1 + check_below(most);
    size_t seq = 1 + check_below(20), sequences = check_size(3, 100), rows = seq * sequences;
    size_t pairs = rows * r.top_k;
    struct pair logits = pair_random(rows, r.experts), scores = pair_poisoned(rows, r.experts);
    struct pair bias = pair_dense(1, r.experts), weight = pair_poisoned(1, pairs);
    int32_t *chosen = mem_alloc_array(pairs, sizeof *chosen),
            *device = poisoned(pairs * sizeof *chosen);
    check.cpu->router(&r, logits.cpu, bias.cpu.data, scores.cpu, chosen, weight.cpu.data);
    check.gpu->router(&r, logits.gpu, bias.gpu.data, scores.gpu, device, weight.gpu.data);
    pair_check("router scores", scores, FP32);
    int32_t *got = download(device, pairs * sizeof *got);
    size_t differ = 0;
    for (size_t i = 0; i < pairs; i++) {
        differ += got[i] != chosen[i];
    }
    /* scores that differ in the last bit may change places; on few rows they do not */
    check_true("router choice", differ * 1000 <= pairs);
    if (differ == 0) {
        pair_check("router weights", weight, FP32);
        struct pair dweight = pair_dense(1, pairs), dlogits = pair_poisoned(rows, r.experts);
        struct pair fraction = pair_poisoned(1, sequences * r.experts);
        struct pair loss = pair_poisoned(1, sequences);
        check.cpu->balance(&r, scores.cpu, seq, fraction.cpu.data, loss.cpu.data);
        check.gpu->balance(&r, scores.gpu, seq, fraction.gpu.data, loss.gpu.data);
        pair_check("balance fraction", fraction, check.large ? 1e-3 : FP32);
        pair_check("balance loss", loss, check.large ? 1e-4 : FP32);
        check.gpu->copy_from_host(fraction.gpu.data, fraction.cpu.data,
                                  fraction.floats * sizeof(float));
        float balance_scale = check_below(2) == 0 ? 0 : 0.3f;
        check.cpu->router_backward(&r, scores.cpu, chosen, dweight.cpu.data, seq, balance_scale,
                                   fraction.cpu.data, dlogits.cpu);
        check.gpu->router_backward(&r, scores.gpu, device, dweight.gpu.data, seq, balance_scale,
                                   fraction.gpu.data, dlogits.gpu);
        pair_check("router backward", dlogits, 1e-4); /* weights' gradients cancel */
        pair_free(&dweight);
        pair_free(&dlogits);
        pair_free(&fraction);
        pair_free(&loss);
    }
    pair_free(&logits);
    pair_free(&scores);
    pair_free(&bias);
    pair_free(&weight);
    free(chosen);
    free(got);
    check.gpu->release(device);
}

static void moves(void)
{
    size_t tokens = check_size(30, 1000), cols = check_size(300, 3000), top_k = 1 + check_below(4);
    size_t pairs = tokens * top_k;
    uint32_t *place = mem_alloc_array(pairs, sizeof *place);
    for (size_t i = 0; i < pairs; i++) { /* a random order */
        size_t j = check_below(i + 1);
        place[i] = place[j];
        place[j] = (uint32_t)i;
    }
    uint32_t *device = upload(place, pairs * sizeof *place);
    struct pair y = pair_random(pairs, cols), out = pair_random(tokens, cols);
    struct pair gathered = pair_poisoned(pairs, cols), weight = pair_dense(1, pairs);
    check.cpu->gather(y.cpu, place, gathered.cpu);
    check.gpu->gather(y.gpu, device, gathered.gpu);
    pair_check("gather", gathered, 0);
    bool weighted = check_below(2) == 0;
    check.cpu->combine(y.cpu, place, weighted ? weight.cpu.data : NULL, top_k, out.cpu);
    check.gpu->combine(y.gpu, device, weighted ? weight.gpu.data : NULL, top_k, out.gpu);
    pair_check("combine", out, FP32);
    struct pair dweight = pair_poisoned(1, pairs);
    bool in_place = check_below(2) == 0;
    struct pair dy = in_place ? y : gathered;
    check.cpu->combine_backward(out.cpu, y.cpu, place, weight.cpu.data, top_k, dy.cpu,
                                dweight.cpu.data);
    check.gpu->combine_backward(out.gpu, y.gpu, device, weight.gpu.data, top_k, dy.gpu,
                                dweight.gpu.data);
    pair_check("combine backward", dy, FP32);
    pair_check("combine backward, weights", dweight, 1e-4); /* sums that cancel */
    struct pair all[] = {y, out, gathered, weight, dweight};
    for (size_t i = 0; i < 5; i++) {
        pair_free(&all[i]);
    }
    free(place);
    check.gpu->release(device);
}

static void linears(void)
{
    size_t offset[5], rows = check_offsets(offset, 4, check.large ? 300 : 20);
    struct op_groups groups = {4, offset};
    size_t n = check_size(60, 500), k = check_size(60, 500);
    struct pair x = pair_random(rows, k), y = pair_poisoned(rows, n), w = pair_dense(4 * n, k);
    struct pair dx = pair_random(rows, k), dw = pair_dense(4 * n, k);
    bool add = check_below(2) == 0;
    check.cpu->linear(groups, x.cpu, w.cpu.data, y.cpu);
    check.gpu->linear(groups, x.gpu, w.gpu.data, y.gpu);
    pair_check("linear", y, FP32);
    check.cpu->linear_dx(groups, y.cpu, w.cpu.data, dx.cpu, add);
    check.gpu->linear_dx(groups, y.gpu, w.gpu.data, dx.gpu, add);
    pair_check("linear dx", dx, FP32);
    check.cpu->linear_dw(groups, y.cpu, x.cpu, 0.2f, dw.cpu.data);
    check.gpu->linear_dw(groups, y.gpu, x.gpu, 0.2f, dw.gpu.data);
    pair_check("linear dw", dw, FP32);
    struct pair all[] = {x, y, w, dx, dw};
    for (size_t i = 0; i < 5; i++) {
        pair_free(&all[i]);
    }
}

void check_mixture(void)
{
    for (int trial = 0; trial < 10; trial++) {
        router();
        moves();
        linears();
    }
}
