/* Checkpoints without a model: a few tensors, saved by one or two "ranks" of this process, loaded
 * by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "proto/manifest.h"
#include "trainer/ckpt_load.h"
#include "trainer/ckpt_save.h"
#include "trainer/safetensors.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_ckpt.XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

/* ---- dealing */

/* Every tensor has one owner; equal sizes are shared out evenly; no rank has more than the fair
 * share plus the largest tensor. */
static void test_deal(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 200; round++) {
        size_t sizes[100];
        uint32_t owner[100];
        size_t n = (size_t)(rand() % 100);
        uint32_t ways = (uint32_t)(rand() % 8 + 1);
        size_t total = 0;
        size_t largest = 0;
        for (size_t i = 0; i < n; i++) {
            sizes[i] = (size_t)(rand() % 1000 + 1);
            total += sizes[i];
            largest = sizes[i] > largest ? sizes[i] : largest;
            owner[i] = 99;
        }
        ckpt_deal(sizes, n, ways, owner);
        size_t load[8] = {0};
        for (size_t i = 0; i < n; i++) {
            assert_true(owner[i] < ways);
            load[owner[i]] += sizes[i];
        }
        for (uint32_t w = 0; w < ways; w++) {
            assert_true(load[w] <= total / ways + largest);
        }
    }
    const size_t equal[8] = {5, 5, 5, 5, 5, 5, 5, 5};
    uint32_t owner[8];
    int count[4] = {0};
    ckpt_deal(equal, 8, 4, owner);
    for (int i = 0; i < 8; i++) {
        count[owner[i]]++;
    }
    assert_true(count[0] == 2 && count[1] == 2 && count[2] == 2 && count[3] == 2);
}

/* ---- facts */

static struct ckpt_facts facts_of(uint64_t step)
{
    struct ckpt_facts f = {.step = step,
                           .tokens = step * 100,
                           .position = step * 4,
                           .seed = UINT64_MAX,
                           .corpus_tokens = 12345,
                           .sequence_length = 25,
                           .global_batch = 4,
                           .precision = "fp8",
                           .pipeline = 1,
                           .expert = 2,
                           .data = 3,
                           .schedule = "dualpipev",
                           .parted = true};
    memset(f.model_sha256, 'a', 64);
    memset(f.spec_sha256, 'b', 64);
    return f;
}

/* Not byte by byte: what stands between the members is not defined. */
static void assert_same_facts(const struct ckpt_facts *a, const struct ckpt_facts *b)
{
    char *text_a = ckpt_facts_encode(a);
    char *text_b = ckpt_facts_encode(b);
    assert_string_equal(text_a, text_b);
    free(text_a);
    free(text_b);
}

/* Facts survive the text, which is in the manifest's own form; a missing or absurd one is named. */
static void test_facts(void **state)
{
    (void)state;
    struct ckpt_facts f = facts_of(7);
    f.loss = 2.3141592653589793;
    f.mtp_loss = NAN;
    f.valid_loss = 1e-300;
    f.valid_step = 5;
    f.weights_only = true;
    f.model = (char *)"{\"hidden_size\": 8, \"rms_norm_eps\": 1e-06}";
    f.run = (char *)"{\"name\":\"x\"}";
    f.origin = (char *)"a \"folder\"";
    char *text = ckpt_facts_encode(&f);
    char *canonical = NULL;
    assert_int_equal(manifest_layout(text, &canonical, NULL), 0);
    assert_string_equal(text, canonical);
    struct ckpt_facts g;
    assert_int_equal(ckpt_facts_parse(&g, text, "x", NULL), 0);
    assert_same_facts(&f, &g);
    assert_true(g.loss == f.loss && isnan(g.mtp_loss) && g.valid_loss == f.valid_loss);
    assert_true(g.valid_step == 5 && g.weights_only && g.step == 7);
    assert_string_equal(g.model, "{\"hidden_size\":8,\"rms_norm_eps\":9.9999999999999995e-7}");
    assert_string_equal(g.origin, f.origin);
    ckpt_facts_fini(&g);
    assert_null(g.model);
    static const char *const keys[] = {"\"step\"",   "\"position\"",  "\"seed\"",
                                       "\"expert\"", "\"precision\"", "\"model_sha256\"",
                                       "\"format\""};
    static const char *const malformed[][2] = {{"\"loss\":2", "\"loss\":[],\"a\":2"},
                                               {"\"model\":{", "\"model\":4,\"a\":{"},
                                               {"\"weights_only\":true", "\"weights_only\":1"},
                                               {"\"valid_step\":5", "\"valid_step\":-5"}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char *bad = mem_strdup(text);
        strstr(bad, keys[i])[1] = 'X';
        struct err err = {0};
        assert_int_equal(ckpt_facts_parse(&g, bad, "x", &err), ERR_CORRUPT);
        assert_non_null(strstr(err.text, "layout"));
        free(bad);
    }
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        const char *at = strstr(text, malformed[i][0]);
        assert_non_null(at);
        char *bad = mem_printf("%.*s%s%s", (int)(at - text), text, malformed[i][1],
                               at + strlen(malformed[i][0]));
        struct err err = {0};
        assert_int_equal(ckpt_facts_parse(&g, bad, "x", &err), ERR_CORRUPT);
        assert_non_null(strstr(err.text, "x: layout: "));
        free(bad);
    }
    assert_int_equal(ckpt_facts_parse(&g, "not json", "x", NULL), ERR_CORRUPT);
    assert_int_equal(ckpt_facts_parse(&g, "{\"format\":2}", "x", NULL), ERR_CORRUPT);
    free(text);
    free(canonical);
}

/* Facts of a run hold its model and the telling part of its job file, whatever the seed; absurdly
 * long paths are left out rather than the layout made too large. */
static void test_facts_of_a_run(void **state)
{
    (void)state;
    static const char yaml[] =
        "name: x\ntrain: {model: m, data: {train: d}, global_batch: 2, steps: "
        "7, seed: 18446744073709551615}\n";
    struct jobspec spec;
    struct model_config model;
    struct mesh mesh;
    struct ckpt_facts f;
    assert_int_equal(jobspec_parse(&spec, yaml, strlen(yaml), "j", "/", NULL, 0, NULL), 0);
    assert_int_equal(model_config_parse(&model, "{}", 2, "m", NULL), 0);
    assert_int_equal(mesh_init(&mesh, 1, 0, 1, 1, NULL), 0);
    ckpt_facts_init(&f, &spec, &model, &mesh, 1, 1000);
    assert_int_equal(f.seed, UINT64_MAX);
    assert_true(isnan(f.loss) && isnan(f.valid_loss) && !f.weights_only && f.origin == NULL);
    assert_non_null(strstr(f.run, "\"name\":\"x\""));
    assert_non_null(strstr(f.run, "\"steps\":7"));
    assert_null(strstr(f.run, "seed"));
    struct model_config again;
    assert_int_equal(model_config_parse(&again, f.model, strlen(f.model), "m", NULL), 0);
    assert_int_equal(again.n_routed_experts, model.n_routed_experts);
    ckpt_facts_fini(&f);
    char **prefix = &spec.train.data.sources[0].prefix;
    free(*prefix);
    *prefix = mem_alloc(50001);
    memset(*prefix, 'd', 50000);
    ckpt_facts_init(&f, &spec, &model, &mesh, 1, 1000);
    assert_null(f.run);
    char *layout = ckpt_facts_encode(&f);
    char *canonical;
    assert_int_equal(manifest_layout(layout, &canonical, NULL), 0);
    free(layout);
    free(canonical);
    ckpt_facts_fini(&f);
    jobspec_fini(&spec);
}

/* ---- saving and loading */

enum { PARAMS = 5 };

struct fixture {
    const struct op_table *op;
    struct param params[PARAMS];
    struct optim optim;
    struct router router;
    float bias[4];
    struct manifest manifest;
};

static void fixture_init(struct fixture *x, double value)
{
    static const struct {
        const char *name;
        uint32_t rows, cols;
        bool is_vector;
        int32_t expert;
    } shapes[PARAMS] = {{"model.embed_tokens.weight", 10, 8, false, -1},
                        {"model.norm.weight", 8, 1, true, -1},
                        {"model.layers.1.mlp.experts.0.up_proj.weight", 4, 8, false, 0},
                        {"model.layers.1.mlp.experts.1.up_proj.weight", 4, 8, false, 1},
                        /* more than a band of the writer */
                        {"lm_head.weight", 1100, 1024, false, -1}};
    *x = (struct fixture){.op = op_cpu(1)};
    for (int p = 0; p < PARAMS; p++) {
        struct param *q = &x->params[p];
        *q = (struct param){.rows = shapes[p].rows,
                            .cols = shapes[p].cols,
                            .is_vector = shapes[p].is_vector,
                            .count = (size_t)shapes[p].rows * shapes[p].cols,
                            .expert = shapes[p].expert};
        snprintf(q->name, sizeof q->name, "%s", shapes[p].name);
        q->weight = x->op->alloc(q->count * sizeof(float));
    }
    optim_init(&x->optim, x->op, x->params, PARAMS, NULL, 0);
    for (int p = 0; p < PARAMS; p++) {
        for (size_t i = 0; i < x->params[p].count; i++) {
            x->params[p].weight[i] = (float)(value * (100 * p + (double)i));
            x->optim.part[p].state[OPTIM_M][i] = x->params[p].weight[i] + 0.25f;
            x->optim.part[p].state[OPTIM_V][i] = x->params[p].weight[i] + 0.5f;
        }
    }
    for (int i = 0; i < 4; i++) {
        x->bias[i] = (float)(value * i);
    }
    x->router = (struct router){.experts = 4, .bias = x->bias};
    snprintf(x->router.name, sizeof x->router.name,
             "model.layers.1.mlp.gate.e_score_correction_bias");
}

static void fixture_fini(struct fixture *x)
{
    optim_fini(&x->optim);
    for (int p = 0; p < PARAMS; p++) {
        x->op->release(x->params[p].weight);
    }
    manifest_fini(&x->manifest);
}

static bool same(const struct fixture *a, const struct fixture *b)
{
    bool equal = memcmp(a->bias, b->bias, sizeof a->bias) == 0;
    for (int p = 0; p < PARAMS; p++) {
        size_t bytes = a->params[p].count * sizeof(float);
        equal =
            equal && memcmp(a->params[p].weight, b->params[p].weight, bytes) == 0 &&
            memcmp(a->optim.part[p].state[OPTIM_M], b->optim.part[p].state[OPTIM_M], bytes) == 0 &&
            memcmp(a->optim.part[p].state[OPTIM_V], b->optim.part[p].state[OPTIM_V], bytes) == 0;
    }
    return equal;
}

static void on_durable(void *ctx, const struct ckpt_shard *shard)
{
    struct fixture *x = ctx;
    struct manifest_shard *slot = &x->manifest.shards[shard->rank];
    slot->rank = shard->rank;
    slot->bytes = shard->bytes;
    snprintf(slot->file, sizeof slot->file, "%s", shard->file);
    snprintf(slot->xxh3, sizeof slot->xxh3, "%s", shard->xxh3);
    snprintf(slot->sha256, sizeof slot->sha256, "%s", shard->sha256);
    free(x->manifest.layout);
    x->manifest.layout = mem_strdup(shard->layout);
}

static void publish(struct fixture *x, const char *folder)
{
    struct buf text = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/" MANIFEST_FILE, folder);
    remove(path);
    manifest_encode(&x->manifest, &text);
    assert_int_equal(manifest_publish(folder, buf_cstr(&text), text.len, NULL), 0);
    buf_fini(&text);
}

/* Saves as `world` data-parallel ranks, one after the other; commits. */
static void save_as(struct fixture *x, uint32_t world, uint64_t step, bool last, char *folder,
                    size_t bytes)
{
    struct ckpt_facts facts = facts_of(step);
    manifest_fini(&x->manifest);
    x->manifest = (struct manifest){.epoch = 1, .step = step, .world_size = world};
    x->manifest.shards = mem_alloc_array(world, sizeof *x->manifest.shards);
    for (uint32_t r = 0; r < world; r++) {
        struct mesh mesh;
        struct ckpt_tensors tensors;
        struct err err = {0};
        int64_t stall;
        assert_int_equal(mesh_init(&mesh, world, r, 1, 1, NULL), 0);
        ckpt_tensors_init(&tensors, &x->optim, &x->router, 1, &mesh, false);
        struct ckpt_saver *s = ckpt_saver_create(&tensors, x->op, dir, r, world, 1, on_durable, x);
        assert_int_equal(ckpt_save(s, &facts, last, &stall, &err), 0);
        assert_int_equal(ckpt_saver_wait(s, &err), 0);
        assert_false(ckpt_saver_failed(s));
        ckpt_saver_destroy(s);
        ckpt_tensors_fini(&tensors);
    }
    snprintf(folder, bytes, "%s/step-%010llu", dir, (unsigned long long)step);
    publish(x, folder);
}

static void save(struct fixture *x, uint32_t world, uint64_t step, char *folder, size_t bytes)
{
    save_as(x, world, step, false, folder, bytes);
}

static int load_content(struct fixture *y, const char *folder, enum ckpt_content content,
                        struct ckpt_facts *facts, struct err *err)
{
    struct mesh mesh;
    struct ckpt_tensors tensors;
    struct comm *self = comm_self_create();
    assert_int_equal(mesh_init(&mesh, 1, 0, 1, 1, NULL), 0);
    ckpt_tensors_init(&tensors, &y->optim, &y->router, 1, &mesh, false);
    int rc = ckpt_load(folder, content, &tensors, y->op, self, facts, err);
    ckpt_tensors_fini(&tensors);
    comm_destroy(self);
    return rc;
}

static int load(struct fixture *y, const char *folder, struct ckpt_facts *facts, struct err *err)
{
    return load_content(y, folder, CKPT_ALL, facts, err);
}

/* What one, two or three ranks saved one rank loads, bit for bit, with the digests that reading the
 * files again gives. */
static void test_round_trip(void **state)
{
    (void)state;
    for (uint32_t world = 1; world <= 3; world++) {
        struct fixture x;
        struct fixture y;
        char folder[128];
        struct ckpt_facts facts;
        struct err err = {0};
        fixture_init(&x, 1.5);
        fixture_init(&y, 0);
        save(&x, world, 10 + world, folder, sizeof folder);
        assert_int_equal(manifest_verify(&x.manifest, folder, 1, &err), 0);
        assert_false(same(&x, &y));
        if (load(&y, folder, &facts, &err) != 0) {
            fail_msg("%s", err.text);
        }
        assert_true(same(&x, &y));
        const struct ckpt_facts expected = facts_of(10 + world);
        assert_same_facts(&facts, &expected);
        ckpt_facts_fini(&facts);
        fixture_fini(&x);
        fixture_fini(&y);
    }
}

/* Of a whole checkpoint the weights alone can be had: the moments stay as they were, the balancing
 * bias comes along. */
static void test_weights(void **state)
{
    (void)state;
    struct fixture x;
    struct fixture y;
    char folder[128];
    struct ckpt_facts facts;
    fixture_init(&x, 3.5);
    fixture_init(&y, 0);
    save(&x, 2, 30, folder, sizeof folder);
    assert_int_equal(load_content(&y, folder, CKPT_WEIGHTS, &facts, NULL), 0);
    assert_int_equal(facts.step, 30);
    for (int p = 0; p < PARAMS; p++) {
        assert_memory_equal(y.params[p].weight, x.params[p].weight,
                            x.params[p].count * sizeof(float));
        for (size_t i = 0; i < y.params[p].count; i++) {
            assert_true(y.optim.part[p].state[OPTIM_M][i] == 0.25f &&
                        y.optim.part[p].state[OPTIM_V][i] == 0.5f);
        }
    }
    assert_memory_equal(y.bias, x.bias, sizeof x.bias);
    ckpt_facts_fini(&facts);
    fixture_fini(&x);
    fixture_fini(&y);
}

/* What is written is what the tensors were when ckpt_save returned: those of the optimiser may
 * change after ckpt_saver_copied, the router's biases at once. */
static void test_snapshot(void **state)
{
    (void)state;
    struct fixture x;
    struct fixture y;
    struct fixture z;
    struct mesh mesh;
    struct ckpt_tensors tensors;
    struct ckpt_facts facts = facts_of(50);
    struct err err = {0};
    int64_t stall;
    fixture_init(&x, 2.5);
    fixture_init(&y, 0);
    fixture_init(&z, 2.5);
    x.manifest = (struct manifest){.step = 50, .world_size = 1};
    x.manifest.shards = mem_alloc_array(1, sizeof *x.manifest.shards);
    assert_int_equal(mesh_init(&mesh, 1, 0, 1, 1, NULL), 0);
    ckpt_tensors_init(&tensors, &x.optim, &x.router, 1, &mesh, false);
    struct ckpt_saver *s = ckpt_saver_create(&tensors, x.op, dir, 0, 1, 1, on_durable, &x);
    assert_int_equal(ckpt_save(s, &facts, false, &stall, &err), 0);
    x.bias[0] = 99;
    assert_true(ckpt_saver_copied(s) >= 0);
    for (int p = 0; p < PARAMS; p++) {
        memset(x.params[p].weight, 0x7f, x.params[p].count * sizeof(float));
    }
    ckpt_saver_destroy(s); /* waits */
    ckpt_tensors_fini(&tensors);
    char folder[128];
    snprintf(folder, sizeof folder, "%s/step-%010u", dir, 50u);
    publish(&x, folder);
    assert_int_equal(load(&y, folder, &facts, &err), 0);
    assert_true(same(&y, &z));
    ckpt_facts_fini(&facts);
    fixture_fini(&x);
    fixture_fini(&y);
    fixture_fini(&z);
}

/* A last save has no copy to write from, and is the same file. */
static void test_last(void **state)
{
    (void)state;
    for (uint32_t world = 1; world <= 2; world++) {
        struct fixture x;
        char folder[128];
        char digests[2][sizeof x.manifest.shards->sha256];
        fixture_init(&x, 1.5);
        save_as(&x, world, 60 + world, false, folder, sizeof folder);
        for (uint32_t r = 0; r < world; r++) {
            strcpy(digests[r], x.manifest.shards[r].sha256);
        }
        save_as(&x, world, 60 + world, true, folder, sizeof folder);
        for (uint32_t r = 0; r < world; r++) {
            assert_string_equal(x.manifest.shards[r].sha256, digests[r]);
        }
        fixture_fini(&x);
    }
}

/* Puts a forged shard in place of shard `rank`, with digests that fit: only the content lies. */
static void forge(struct fixture *x, const char *folder, uint32_t rank,
                  const struct safetensors_item *items, size_t count, const char *from,
                  const char *to)
{
    struct buf file = {0};
    size_t elements = 0;
    safetensors_write_header(&file, items, count, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        elements += (size_t)items[i].rows * (items[i].is_vector ? 1 : items[i].cols);
    }
    if (from != NULL) {
        char *at = memmem(file.data + 8, file.len - 8, from, strlen(from));
        assert_non_null(at);
        memcpy(at, to, strlen(to));
    }
    memset(buf_reserve(&file, elements * 4), 0, elements * 4);
    file.len += elements * 4;
    char path[256];
    struct manifest_shard *shard = &x->manifest.shards[rank];
    snprintf(path, sizeof path, "%s/%s", folder, shard->file);
    assert_int_equal(file_write_durable(path, file.data, file.len, 0600, NULL), 0);
    assert_int_equal(manifest_digest_file(path, &shard->bytes, shard->xxh3, shard->sha256, NULL),
                     0);
    publish(x, folder);
    buf_fini(&file);
}

static void check_refused(struct fixture *y, const char *folder, const char *word)
{
    struct ckpt_facts facts;
    struct err err = {0};
    assert_int_equal(load(y, folder, &facts, &err), ERR_CORRUPT);
    assert_int_equal(err.code, ERR_CORRUPT);
    if (strstr(err.text, word) == NULL) {
        fail_msg("'%s' does not say '%s'", err.text, word);
    }
    ckpt_facts_fini(&facts);
}

/* A shard with the right digests and the wrong content is refused with the tensor's name: twice
 * there, missing, of another shape or type, lying offsets, unknown. */
static void test_forged(void **state)
{
    (void)state;
    struct fixture x;
    struct fixture y;
    char folder[128];
    const struct safetensors_item norm = {"model.norm.weight", 8, 1, 1, NULL};
    const struct safetensors_item unknown = {"model.other.weight", 8, 1, 1, NULL};
    fixture_init(&x, 1);
    fixture_init(&y, 0);
    save(&x, 2, 70, folder, sizeof folder);
    /* both shards now have it, or one lacks it */
    struct safetensors s;
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, x.manifest.shards[0].file);
    assert_int_equal(safetensors_open(&s, path, NULL), 0);
    uint32_t other = safetensors_find(&s, "model.norm.weight") != NULL ? 1 : 0;
    safetensors_close(&s);
    forge(&x, folder, other, &norm, 1, NULL, NULL);
    check_refused(&y, folder, "model.norm.weight is in two shards");
    forge(&x, folder, 1 - other, &unknown, 1, NULL, NULL);
    check_refused(&y, folder, "is in none of the 2 shards");
    struct fixture small;
    fixture_init(&small, 1);
    small.optim.count = small.optim.parts =
        0; /* a model of nothing but the router: the forged shard has all it needs */
    const struct safetensors_item bias = {small.router.name, 4, 1, 1, NULL};
    const struct safetensors_item bias_flat = {small.router.name, 4, 1, 0, NULL};
    const struct safetensors_item bias_long = {small.router.name, 5, 1, 1, NULL};
    save(&small, 1, 72, folder, sizeof folder);
    forge(&small, folder, 0, &bias, 1, NULL, NULL);
    struct ckpt_facts facts;
    assert_int_equal(load(&small, folder, &facts, NULL), 0);
    ckpt_facts_fini(&facts);
    forge(&small, folder, 0, &bias_flat, 1, NULL, NULL);
    check_refused(&small, folder, "has shape [4, 1], the model needs [4]");
    forge(&small, folder, 0, &bias_long, 1, NULL, NULL);
    check_refused(&small, folder, "has shape [5]");
    forge(&small, folder, 0, &bias, 1, "\"F32\"", "\"I32\"");
    check_refused(&small, folder, "dtype I32, expected F32");
    forge(&small, folder, 0, &bias, 1, "[0,16]", "[4,16]");
    check_refused(&small, folder, "its offsets give it 12");
    const struct safetensors_item extra[] = {bias, unknown};
    forge(&small, folder, 0, extra, 2, NULL, NULL);
    check_refused(&small, folder, "holds 2 tensors, this model has 1");
    small.optim.count = small.optim.parts = PARAMS;
    fixture_fini(&small);
    fixture_fini(&x);
    fixture_fini(&y);
}

/* A save that cannot be written fails with a text that says where, and leaves no half file; the
 * failure stays. */
static void test_save_fails(void **state)
{
    (void)state;
    struct fixture x;
    struct mesh mesh;
    struct ckpt_tensors tensors;
    struct ckpt_facts facts = facts_of(90);
    struct err err = {0};
    int64_t stall;
    char path[128];
    snprintf(path, sizeof path, "%s/step-%010u", dir, 90u);
    assert_int_equal(file_write_durable(path, "in the way", 10, 0600, NULL), 0);
    fixture_init(&x, 1);
    assert_int_equal(mesh_init(&mesh, 1, 0, 1, 1, NULL), 0);
    ckpt_tensors_init(&tensors, &x.optim, &x.router, 1, &mesh, false);
    struct ckpt_saver *s = ckpt_saver_create(&tensors, x.op, dir, 0, 1, 1, on_durable, &x);
    assert_int_equal(ckpt_save(s, &facts, false, &stall, &err), 0); /* the thread finds out */
    assert_int_equal(ckpt_saver_wait(s, &err), ERR_IO);
    assert_true(ckpt_saver_failed(s));
    assert_non_null(strstr(err.text, "step-0000000090"));
    assert_non_null(strstr(err.text, "untouched"));
    facts.step = 91;
    assert_int_equal(ckpt_save(s, &facts, false, &stall, &err), ERR_IO);
    ckpt_saver_destroy(s);
    ckpt_tensors_fini(&tensors);
    fixture_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deal),           cmocka_unit_test(test_facts),
        cmocka_unit_test(test_facts_of_a_run), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_last),           cmocka_unit_test(test_forged),
        cmocka_unit_test(test_save_fails),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
