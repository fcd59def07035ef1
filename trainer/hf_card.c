#include "trainer/hf_card.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/version.h"

/* ---- Markdown */

/* Text from outside, so that it stays in its cell and is no markup. */
static void put_code(struct buf *out, const char *text)
{
    buf_append_str(out, "`");
    for (const char *p = text; *p != 0; p++) {
        if (*p == '`' || (unsigned char)*p < 0x20) {
            buf_append_str(out, "?");
        } else if (*p == '|') {
            buf_append_str(out, "\\|");
        } else {
            buf_append(out, p, 1);
        }
    }
    buf_append_str(out, "`");
}

/* 1234567 -> 1,234,567 */
static void put_count(struct buf *out, uint64_t n)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, n);
    for (int i = 0; i < len; i++) {
        buf_printf(out, "%s%c", i > 0 && (len - i) % 3 == 0 ? "," : "", digits[i]);
    }
}

static void begin_row(struct buf *out, const char *label)
{
    buf_printf(out, "| %s | ", label);
}

static void end_row(struct buf *out)
{
    buf_append_str(out, " |\n");
}

static void begin_table(struct buf *out, const char *title)
{
    buf_printf(out, "\n## %s\n\n| | |\n|---|---|\n", title);
}

static void put_count_row(struct buf *out, const char *label, uint64_t n)
{
    begin_row(out, label);
    put_count(out, n);
    end_row(out);
}

/* ---- JSON */

static const json_t *get(const json_t *object, const char *a, const char *b)
{
    const json_t *inner = json_object_get(object, a);
    return b != NULL ? json_object_get(inner, b) : inner;
}

static const char *get_text(const json_t *object, const char *a, const char *b)
{
    return json_string_value(get(object, a, b));
}

/* ---- the model */

static void put_front_matter(struct buf *out, const struct hf_card *card)
{
    buf_append_str(out, "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
                        "tags:\n- deepseek_v3\n");
    if (card->config->n_routed_experts > 0) {
        buf_append_str(out, "- mixture-of-experts\n");
    }
    if (card->dtype == EXPORT_FP8) {
        buf_append_str(out, "- fp8\n");
    }
    buf_append_str(out, "---\n");
}

static void put_model(struct buf *out, const struct hf_card *card)
{
    static const char *const weights[] = {
        [EXPORT_FP32] = "FP32",
        [EXPORT_BF16] = "BF16",
        [EXPORT_FP8] = "FP8 (E4M3, an FP32 scale for each 128x128 block), else BF16",
    };
    const struct model_config *c = card->config;
    begin_table(out, "Model");
    begin_row(out, "parameters");
    put_count(out, model_config_params_total(c));
    buf_append_str(out, ", of which ");
    put_count(out, model_config_params_active(c));
    buf_append_str(out, " work on a token");
    end_row(out);
    if (c->num_nextn_predict_layers > 0) {
        begin_row(out, "multi-token prediction");
        buf_printf(out, "%u module%s, ", c->num_nextn_predict_layers,
                   c->num_nextn_predict_layers == 1 ? "" : "s");
        put_count(out, model_config_params_mtp(c));
        buf_append_str(out, " parameters more");
        end_row(out);
    }
    begin_row(out, "layers");
    buf_printf(out, "%u, the first %u dense; hidden size %u; %u heads", c->num_hidden_layers,
               c->first_k_dense_replace, c->hidden_size, c->num_attention_heads);
    end_row(out);
    if (c->n_routed_experts > 0) {
        begin_row(out, "experts");
        buf_printf(out, "%u routed, of which %u work on a token, and %u shared",
                   c->n_routed_experts, c->num_experts_per_tok, c->n_shared_experts);
        end_row(out);
    }
    put_count_row(out, "vocabulary", c->vocab_size);
    put_count_row(out, "positions", c->max_position_embeddings);
    begin_row(out, "weights");
    buf_printf(out, "%s; %u file%s, ", weights[card->dtype], card->plan->file_count,
               card->plan->file_count == 1 ? "" : "s");
    put_count(out, card->plan->data_bytes);
    buf_append_str(out, " bytes");
    end_row(out);
    if (card->tokenizer == HF_TOKENIZER_BYTES) {
        begin_row(out, "tokenizer");
        buf_append_str(out, "bytes: a token is a byte, 256 ends a document");
        end_row(out);
    }
}

/* ---- the training */

/* The corpus, or each of a mixture with its weight. */
static void put_sources(struct buf *out, const json_t *train)
{
    const json_t *corpus = json_object_get(json_object_get(train, "data"), "train");
    if (json_is_string(corpus)) {
        put_code(out, json_string_value(corpus));
        buf_append_str(out, ", ");
    }
    for (size_t i = 0; i < json_array_size(corpus); i++) {
        const json_t *source = json_array_get(corpus, i);
        const char *prefix = json_string_value(json_object_get(source, "prefix"));
        if (prefix != NULL) {
            put_code(out, prefix);
            buf_printf(out, " (weight %g), ", json_number_value(json_object_get(source, "weight")));
        }
    }
}

static void put_data(struct buf *out, const struct hf_card *card, const json_t *train)
{
    const char *valid = get_text(train, "data", "valid");
    begin_row(out, "data");
    put_sources(out, train);
    put_count(out, card->facts->corpus_tokens);
    buf_append_str(out, " tokens");
    if (valid != NULL) {
        buf_append_str(out, "; validation ");
        put_code(out, valid);
    }
    end_row(out);
    begin_row(out, "trained on");
    put_count(out, card->facts->tokens);
    buf_append_str(out, " tokens");
    if (card->facts->corpus_tokens > 0) {
        buf_printf(out, ", %.2f epochs",
                   (double)card->facts->tokens / (double)card->facts->corpus_tokens);
    }
    end_row(out);
}

static void put_number(struct buf *out, const char *before, const json_t *number, const char *after)
{
    if (json_is_number(number)) {
        buf_printf(out, "%s%.6g%s", before, json_number_value(number), after);
    }
}

static void put_schedule(struct buf *out, const json_t *train)
{
    const json_t *o = json_object_get(train, "optimizer");
    if (o == NULL) {
        return;
    }
    begin_row(out, "learning rate");
    put_number(out, "linear over ", json_object_get(o, "warmup_steps"), " steps");
    put_number(out, " to ", json_object_get(o, "lr"), "");
    put_number(out, ", constant for ", json_object_get(o, "constant_steps"), " steps");
    put_number(out, ", cosine to ", json_object_get(o, "lr_min"), "");
    put_number(out, " at step ", json_object_get(train, "steps"), "");
    end_row(out);
    begin_row(out, "optimiser");
    buf_append_str(out, "AdamW");
    put_number(out, ", beta1 ", json_object_get(o, "beta1"), "");
    put_number(out, ", beta2 ", json_object_get(o, "beta2"), "");
    put_number(out, ", eps ", json_object_get(o, "eps"), "");
    put_number(out, ", weight decay ", json_object_get(o, "weight_decay"), "");
    put_number(out, ", gradients clipped to norm ", json_object_get(o, "grad_clip"), "");
    end_row(out);
}

static void put_balance(struct buf *out, const struct hf_card *card, const json_t *train)
{
    if (card->config->n_routed_experts > 0 && train != NULL) {
        begin_row(out, "balancing");
        buf_append_str(out, "without auxiliary loss");
        put_number(out, ": bias update ", json_object_get(train, "bias_update_speed"), "");
        put_number(out, ", sequence-wise loss x ", json_object_get(train, "balance_loss"), "");
        end_row(out);
    }
    if (card->config->num_nextn_predict_layers > 0 && train != NULL) {
        begin_row(out, "MTP loss");
        put_number(out, "x ", json_object_get(train, "mtp_lambda"), "");
        end_row(out);
    }
}

static void put_training(struct buf *out, const struct hf_card *card)
{
    const struct ckpt_facts *f = card->facts;
    const json_t *train = json_object_get(card->run, "train");
    const char *stage = get_text(card->run, "stage", NULL);
    begin_table(out, "Training");
    if (stage != NULL) {
        begin_row(out, "stage");
        put_code(out, stage);
        end_row(out);
    }
    begin_row(out, "started from");
    if (f->origin != NULL) {
        put_code(out, f->origin);
    } else {
        buf_printf(out, "random weights, seed %" PRIu64, f->seed);
    }
    end_row(out);
    if (f->weights_only) {
        return; /* nothing was trained */
    }
    begin_row(out, "steps");
    put_count(out, f->step);
    if (json_is_integer(json_object_get(train, "steps"))) {
        buf_append_str(out, " of ");
        put_count(out, (uint64_t)json_integer_value(json_object_get(train, "steps")));
    }
    end_row(out);
    put_data(out, card, train);
    begin_row(out, "batch");
    buf_printf(out, "%u sequences of %u tokens", f->global_batch, f->sequence_length);
    end_row(out);
    begin_row(out, "precision");
    put_code(out, f->precision);
    end_row(out);
    put_schedule(out, train);
    put_balance(out, card, train);
    begin_row(out, "ranks");
    buf_printf(out, "%" PRIu64 ": pipeline %u x expert %u x data %u",
               (uint64_t)f->pipeline * f->expert * f->data, f->pipeline, f->expert, f->data);
    end_row(out);
}

/* ---- losses */

static void put_loss(struct buf *out, const json_t *metric, const char *key)
{
    const json_t *value = json_object_get(metric, key);
    if (json_is_number(value)) {
        buf_printf(out, " %.4f |", json_number_value(value));
    } else {
        buf_append_str(out, " |");
    }
}

static void put_losses(struct buf *out, const struct hf_card *card)
{
    const struct ckpt_facts *f = card->facts;
    if (!isfinite(f->loss) && json_array_size(card->metrics) == 0) {
        return;
    }
    buf_append_str(out, "\n## Losses\n\nNats a token");
    if (isfinite(f->loss)) {
        buf_printf(out, "; after step %" PRIu64 " %.4f", f->step, f->loss);
        if (isfinite(f->mtp_loss)) {
            buf_printf(out, ", multi-token prediction %.4f", f->mtp_loss);
        }
    }
    if (f->valid_step > 0 && isfinite(f->valid_loss)) {
        buf_printf(out, "; validation after step %" PRIu64 " %.4f", f->valid_step, f->valid_loss);
    }
    buf_append_str(out, ".\n");
    if (json_array_size(card->metrics) == 0) {
        return;
    }
    buf_append_str(out, "\n| step | tokens | loss | MTP loss | validation |\n|---:|---:|---:|---:|"
                        "---:|\n");
    for (size_t i = 0; i < json_array_size(card->metrics); i++) {
        const json_t *m = json_array_get(card->metrics, i);
        buf_append_str(out, "| ");
        put_count(out, (uint64_t)json_integer_value(json_object_get(m, "step")));
        buf_append_str(out, " | ");
        put_count(out, (uint64_t)json_integer_value(json_object_get(m, "tokens")));
        buf_append_str(out, " |");
        put_loss(out, m, "loss");
        put_loss(out, m, "mtp_loss");
        put_loss(out, m, "valid_loss");
        buf_append_str(out, "\n");
    }
}

/* ---- what it cost */

static void put_text_row(struct buf *out, const char *label, const char *text)
{
    if (text != NULL) {
        begin_row(out, label);
        put_code(out, text);
        end_row(out);
    }
}

static void put_hours(struct buf *out, const json_t *gpu_ms)
{
    buf_printf(out, "%.3f", (double)json_integer_value(gpu_ms) / 3.6e6);
}

static void put_cost(struct buf *out, const struct hf_card *card)
{
    const json_t *usage = json_object_get(card->job, "usage");
    const json_t *gpu_ms = json_object_get(usage, "gpu_ms");
    const json_t *productive = json_object_get(usage, "productive_gpu_ms");
    const json_t *cost = json_object_get(usage, "cost_micro_usd");
    if (card->job == NULL) {
        return;
    }
    begin_table(out, "Job");
    begin_row(out, "job");
    buf_printf(out, "%" JSON_INTEGER_FORMAT " ",
               json_integer_value(json_object_get(card->job, "id")));
    put_code(out,
             get_text(card->job, "name", NULL) != NULL ? get_text(card->job, "name", NULL) : "");
    end_row(out);
    put_text_row(out, "state", get_text(card->job, "state", NULL));
    put_text_row(out, "account", get_text(card->job, "account", NULL));
    put_text_row(out, "started", get_text(card->job, "started_at", NULL));
    put_text_row(out, "ended", get_text(card->job, "ended_at", NULL));
    if (json_is_integer(json_object_get(card->job, "restarts"))) {
        put_count_row(out, "restarts",
                      (uint64_t)json_integer_value(json_object_get(card->job, "restarts")));
    }
    if (json_is_integer(gpu_ms)) {
        begin_row(out, "GPU-hours");
        put_hours(out, gpu_ms);
        if (json_is_integer(productive)) {
            buf_append_str(out, ", of which productive ");
            put_hours(out, productive);
        }
        end_row(out);
    }
    if (json_is_integer(cost)) {
        begin_row(out, "cost");
        buf_printf(out, "$%.6f", (double)json_integer_value(cost) / 1e6);
        end_row(out);
    }
    if (get_text(card->job, "ended_at", NULL) == NULL) {
        buf_append_str(out, "\nThe job had not ended when this was written.\n");
    }
}

/* ---- */

static void put_use(struct buf *out, const struct hf_card *card)
{
    buf_append_str(out, "\n## Use\n\n```python\nfrom transformers import AutoModelForCausalLM"
                        "\n\nmodel = AutoModelForCausalLM.from_pretrained(\"PATH\")\n```\n");
    if (card->config->num_nextn_predict_layers > 0) {
        buf_printf(out,
                   "\n`transformers` names the tensors of `model.layers.%u` and on as unexpected: "
                   "they are the multi-token prediction modules, which it does not use.\n",
                   card->config->num_hidden_layers);
    }
}

void hf_card_write(struct buf *out, const struct hf_card *card)
{
    const char *name = get_text(card->run, "name", NULL);
    put_front_matter(out, card);
    buf_printf(out, "\n# %s\n\nA language model of DeepSeek-V3's shape. ",
               name != NULL ? name : "Model");
    if (card->facts->weights_only) {
        buf_append_str(out, "Written by `dstrain` " DS_VERSION ", which did not train it.\n");
    } else {
        buf_printf(out, "Trained by `dstrain` " DS_VERSION "; this is step %" PRIu64 ".\n",
                   card->facts->step);
    }
    put_model(out, card);
    put_training(out, card);
    put_losses(out, card);
    put_cost(out, card);
    put_use(out, card);
}
