#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tests/unit/trainer/model_fixture.h"
#include "trainer/hf_index.h"
#include "trainer/hf_plan.h"
#include "trainer/safetensors.h"

/* The planned header is one that a reader accepts, and says of each item what the plan says. */
static void check_file(const struct hf_plan *p, uint32_t number)
{
    const struct hf_file *file = &p->file[number];
    struct safetensors s = {.fd = -1};
    struct err err = {0};
    uint64_t data_bytes = file->bytes - file->header.len;
    if (safetensors_check_header(&s, (const char *)file->header.data + 8, file->header.len - 8,
                                 data_bytes, file->name, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_string_equal(s.metadata, "{\"format\":\"pt\"}");
    size_t items = 0;
    for (size_t i = 0; i < p->count; i++) {
        const struct hf_item *item = &p->item[i];
        if (item->file != number) {
            continue;
        }
        items++;
        const struct safetensors_tensor *t = safetensors_find(&s, item->name);
        assert_non_null(t);
        assert_int_equal(t->begin + file->header.len, item->offset);
        assert_int_equal(item->offset % hf_item_bytes(item->type), 0);
        assert_int_equal(t->end - t->begin,
                         (uint64_t)item->rows * item->cols * hf_item_bytes(item->type));
        assert_int_equal(t->dimensions, item->from->is_vector ? 1 : 2);
    }
    assert_int_equal(items, s.count);
    safetensors_close(&s);
}

static const struct hf_item *find(const struct hf_plan *p, const char *name)
{
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->item[i].name, name) == 0) {
            return &p->item[i];
        }
    }
    return NULL;
}

/* What may be FP8, what is always FP32, and that a scale is in the file of what it scales. */
static void check_types(const struct hf_plan *p, enum export_dtype dtype)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct hf_item *item = &p->item[i];
        char scale[TENSOR_NAME_BYTES + 32];
        snprintf(scale, sizeof scale, "%s_scale_inv", item->name);
        const struct hf_item *s = find(p, scale);
        assert_int_equal(s != NULL, item->type == HF_ITEM_FP8);
        if (s != NULL) {
            assert_int_equal(s->file, item->file);
            assert_int_equal(s->rows, (item->rows + 127) / 128);
            assert_int_equal(s->cols, (item->cols + 127) / 128);
        }
        if (item->type != HF_ITEM_SCALE) {
            bool f32 = dtype == EXPORT_FP32 || item->from->kind == TENSOR_BIAS;
            bool fp8 = dtype == EXPORT_FP8 && item->from->kind == TENSOR_RECIPE;
            assert_int_equal(item->type, f32 ? HF_ITEM_F32 : fp8 ? HF_ITEM_FP8 : HF_ITEM_BF16);
        }
    }
}

static void check_sizes(const struct hf_plan *p, uint64_t shard_bytes)
{
    uint64_t sum = 0;
    for (uint32_t f = 0; f < p->file_count; f++) {
        size_t items = 0;
        for (size_t i = 0; i < p->count; i++) {
            items += p->item[i].file == f && p->item[i].type != HF_ITEM_SCALE;
        }
        uint64_t data = p->file[f].bytes - p->file[f].header.len;
        assert_true(items == 1 || data <= shard_bytes);
        sum += data;
    }
    assert_int_equal(sum, p->data_bytes);
}

/* Whatever the model, the dtype and the size of files: every tensor is planned exactly once, with
 * its copies in the MTP layers; files are whole, aligned and no larger than asked unless one tensor
 * is; the index agrees. */
static void test_random(void **state)
{
    (void)state;
    random_start("hf plan");
    for (int round = 0; round < 100; round++) {
        struct model_config config = fixture_config();
        if (random_one_in(3)) { /* several blocks to a matrix */
            config.hidden_size *= 24;
            config.intermediate_size *= 20;
        }
        enum export_dtype dtype = (enum export_dtype)random_below(3);
        uint64_t shard_bytes = random_one_in(4) ? 1 : 1 + random_below(30000);
        struct tensor_list list;
        struct hf_plan plan;
        tensor_list_init(&list, &config);
        hf_plan_init(&plan, &list, &config, dtype, shard_bytes);
        size_t scales = 0;
        for (size_t i = 0; i < plan.count; i++) {
            scales += plan.item[i].type == HF_ITEM_SCALE;
        }
        assert_int_equal(plan.count - scales,
                         list.count + 2 * (size_t)config.num_nextn_predict_layers);
        for (size_t i = 0; i < list.count; i++) {
            const struct hf_item *first = plan.first[i];
            assert_string_equal(first->name, list.item[i].name);
        }
        for (uint32_t f = 0; f < plan.file_count; f++) {
            check_file(&plan, f);
        }
        check_types(&plan, dtype);
        check_sizes(&plan, shard_bytes);
        for (uint32_t k = 0; k < config.num_nextn_predict_layers; k++) {
            char name[64];
            snprintf(name, sizeof name, "model.layers.%u.shared_head.head.weight",
                     config.num_hidden_layers + k);
            const char *head =
                config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
            assert_string_equal(find(&plan, name)->from->name, head);
        }
        struct buf text = {0};
        struct hf_index index;
        hf_plan_index(&plan, &text);
        assert_int_equal(hf_index_parse(&index, buf_cstr(&text), text.len, "index", NULL), 0);
        assert_int_equal(index.count, plan.count);
        assert_int_equal(index.file_count, plan.file_count);
        for (size_t i = 0; i < index.count; i++) {
            const struct hf_item *item = find(&plan, index.entry[i].tensor);
            assert_string_equal(plan.file[item->file].name, index.entry[i].file);
        }
        hf_index_fini(&index);
        buf_fini(&text);
        hf_plan_fini(&plan);
        tensor_list_fini(&list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
