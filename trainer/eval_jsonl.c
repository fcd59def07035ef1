/* As lm-evaluation-harness does it (lm_eval/api/model.py, _encode_pair, and models/huggingface.py,
 * _loglikelihood_tokens): white space at the end of the context belongs to the continuation; an
 * empty context is the token that ends documents; a text that is too long loses tokens on the left.
 * Nothing is put between context and continuation. */
#include "trainer/eval_jsonl.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/model_open.h"
#include "trainer/tokenizer_bytes.h"

struct tally {
    uint64_t choices, right, right_norm; /* multiple choice */
    uint64_t clozes, greedy;
    double cloze_log_likelihood;
    uint64_t truncated; /* texts */
};
struct eval {
    struct scorer scorer;
    struct tally tally;
    const char *path;
    uint64_t line;
};

/* ---- scoring */

void scorer_init(struct scorer *s, struct decoder *d, size_t positions, size_t vocab)
{
    *s = (struct scorer){.decoder = d, .positions = positions, .vocab = vocab};
    s->cached = mem_alloc_array(positions, sizeof *s->cached);
    s->logits = mem_alloc_array(DECODE_ROWS * vocab, sizeof *s->logits);
}

void scorer_fini(struct scorer *s)
{
    free(s->cached);
    free(s->logits);
}

static void score_token(struct score *score, const float *logits, size_t vocab, int32_t token)
{
    size_t best = 0;
    double sum = 0;
    for (size_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    for (size_t i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - (double)logits[best]);
    }
    score->log_likelihood += (double)logits[token] - (double)logits[best] - log(sum);
    score->greedy = score->greedy && best == (size_t)token;
}

struct score scorer_score(struct scorer *s, const int32_t *tokens, size_t first, size_t count)
{
    struct score score = {.greedy = true};
    size_t at = 0;
    while (at < first - 1 && at < s->cached_count && s->cached[at] == tokens[at]) {
        at++;
    }
    decoder_truncate(s->decoder, at);
    memcpy(s->cached + at, tokens + at, (count - 1 - at) * sizeof *tokens);
    s->cached_count = count - 1;
    while (at < count - 1) {
        size_t rows = count - 1 - at < DECODE_ROWS ? count - 1 - at : DECODE_ROWS;
        size_t skip = at + 1 >= first ? 0 : first - 1 - at;
        decoder_forward(s->decoder, tokens + at, rows);
        if (skip < rows) {
            decoder_logits(s->decoder, skip, rows - skip, s->logits);
        }
        for (size_t r = skip; r < rows; r++) {
            score_token(&score, s->logits + (r - skip) * s->vocab, s->vocab, tokens[at + r + 1]);
        }
        at += rows;
    }
    return score;
}

/* ---- one question */

static int refuse(const struct eval *e, struct err *err, const char *what)
{
    return err_set(err, ERR_DATA, "%s:%" PRIu64 ": %s", e->path, e->line, what);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

static int score_pair(struct eval *e, const char *context, const char *continuation,
                      struct score *score, struct err *err)
{
    size_t before = strlen(context), after = strlen(continuation), count = 0;
    if (after == 0) {
        return refuse(e, err, "an empty choice or target has no likelihood");
    }
    int32_t *all = mem_alloc_array(before + after + 1, sizeof *all);
    size_t stripped = before;
    while (stripped > 0 && is_space(context[stripped - 1])) {
        stripped--;
    }
    if (stripped == 0) {
        all[count++] = TOKENIZER_BYTES_EOD;
    }
    size_t first = count + stripped;
    for (size_t i = 0; i < before; i++) {
        all[count++] = (uint8_t)context[i];
    }
    for (size_t i = 0; i < after; i++) {
        all[count++] = (uint8_t)continuation[i];
    }
    size_t most = e->scorer.positions + 1, cut = count > most ? count - most : 0;
    int rc = 0;
    if (cut >= first) {
        rc =
            refuse(e, err, "a choice or target is longer than the model's max_position_embeddings");
    } else {
        e->tally.truncated += cut > 0;
        *score = scorer_score(&e->scorer, all + cut, first - cut, count - cut);
        if (!isfinite(score->log_likelihood)) {
            rc = err_set(err, ERR_NUMERIC, "%s:%" PRIu64 ": the log-likelihood is not finite: %g",
                         e->path, e->line, score->log_likelihood);
        }
    }
    free(all);
    return rc;
}

static int multiple_choice(struct eval *e, const char *context, const json_t *choices,
                           const json_t *answer, struct err *err)
{
    size_t count = json_array_size(choices), best = 0, best_norm = 0;
    double most = -INFINITY, most_norm = -INFINITY;
    if (count == 0 || !json_is_integer(answer) || json_integer_value(answer) < 0 ||
        (uint64_t)json_integer_value(answer) >= count) {
        return refuse(e, err, "answer must be the index of one of the choices, from 0");
    }
    for (size_t i = 0; i < count; i++) {
        struct score score;
        const char *text = json_string_value(json_array_get(choices, i));
        if (text == NULL) {
            return refuse(e, err, "choices must be texts");
        }
        TRY(score_pair(e, context, text, &score, err));
        double norm = score.log_likelihood / (double)strlen(text);
        if (score.log_likelihood > most) {
            most = score.log_likelihood;
            best = i;
        }
        if (norm > most_norm) {
            most_norm = norm;
            best_norm = i;
        }
    }
    size_t right = (size_t)json_integer_value(answer);
    e->tally.choices++;
    e->tally.right += best == right;
    e->tally.right_norm += best_norm == right;
    return 0;
}

static int question(struct eval *e, const json_t *root, struct err *err)
{
    const char *context = json_string_value(json_object_get(root, "context"));
    const char *target = json_string_value(json_object_get(root, "target"));
    const json_t *choices = json_object_get(root, "choices");
    if (context == NULL || (target == NULL) == (choices == NULL)) {
        return refuse(e, err,
                      "expected {\"context\",\"choices\",\"answer\"} or {\"context\",\"target\"}");
    }
    if (choices != NULL) {
        return multiple_choice(e, context, choices, json_object_get(root, "answer"), err);
    }
    struct score score;
    TRY(score_pair(e, context, target, &score, err));
    e->tally.clozes++;
    e->tally.greedy += score.greedy;
    e->tally.cloze_log_likelihood += score.log_likelihood;
    return 0;
}

/* ---- the file */

static int read_questions(struct eval *e, struct err *err)
{
    FILE *f = fopen(e->path, "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t len;
    int rc = 0;
    if (f == NULL) {
        return err_set_errno(err, "cannot open %s", e->path);
    }
    while (rc == 0 && (errno = 0, len = getline(&line, &size, f)) >= 0) {
        json_error_t why;
        e->line++;
        if (strspn(line, " \t\r\n") == (size_t)len) {
            continue;
        }
        json_t *root = json_loadb(line, (size_t)len, JSON_REJECT_DUPLICATES, &why);
        rc = root == NULL ? refuse(e, err, why.text) : question(e, root, err);
        json_decref(root);
    }
    if (rc == 0 && ferror(f)) {
        rc = err_set_errno(err, "cannot read %s", e->path);
    }
    if (rc == 0 && e->tally.choices + e->tally.clozes == 0) {
        rc = err_set(err, ERR_DATA, "%s: there is no question in it", e->path);
    }
    free(line);
    fclose(f);
    return rc;
}

static void print(const struct tally *t, bool as_json)
{
    json_t *root = json_object();
    if (t->choices > 0) {
        double n = (double)t->choices;
        json_object_set_new(root, "choice_items", json_integer((json_int_t)t->choices));
        json_object_set_new(root, "acc", json_real((double)t->right / n));
        json_object_set_new(root, "acc_norm", json_real((double)t->right_norm / n));
    }
    if (t->clozes > 0) {
        double n = (double)t->clozes, nats = -t->cloze_log_likelihood / n;
        json_object_set_new(root, "cloze_items", json_integer((json_int_t)t->clozes));
        json_object_set_new(root, "cloze_acc", json_real((double)t->greedy / n));
        json_object_set_new(root, "cloze_perplexity", json_real(exp(fmin(nats, 700))));
    }
    json_object_set_new(root, "truncated", json_integer((json_int_t)t->truncated));
    if (as_json) {
        json_dumpf(root, stdout, JSON_COMPACT);
    } else {
        const char *key, *space = "";
        json_t *value;
        json_object_foreach(root, key, value)
        {
            printf("%s%s=", space, key);
            json_is_integer(value) ? printf("%" JSON_INTEGER_FORMAT, json_integer_value(value))
                                   : printf("%.6f", json_real_value(value));
            space = " ";
        }
    }
    putchar('\n');
    json_decref(root);
}

int eval_jsonl(const struct eval_options *o, struct err *err)
{
    struct open_model m = {0};
    struct decoder *d = NULL;
    struct eval e = {.path = o->data};
    const struct op_table *op = op_cpu(model_open_threads());
    int rc;
    TRY_GOTO(model_open_facts(&m, o->ckpt, o->model, err), out);
    TRY_GOTO(model_open_check_bytes(&m, o->ckpt, err), out);
    TRY_GOTO(model_open_weights(&m, o->ckpt, op, PRECISION_FP32,
                                1 + m.config.num_nextn_predict_layers, err),
             out);
    d = decoder_create(m.model, &m.config, op, m.config.max_position_embeddings);
    scorer_init(&e.scorer, d, m.config.max_position_embeddings, m.config.vocab_size);
    rc = read_questions(&e, err);
    if (rc == 0) {
        print(&e.tally, o->json);
    }
out:
    scorer_fini(&e.scorer);
    decoder_destroy(d);
    model_open_fini(&m);
    return rc;
}
