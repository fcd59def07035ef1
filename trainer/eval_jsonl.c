/* As lm-evaluation-harness does it (lm_eval/api/model.py, _encode_pair, and models/huggingface.py,
 * _loglikelihood_tokens): white space at the end of the context belongs to the continuation, whose
 * tokens are those of both together but for as many as the context has alone; an empty context is
 * the token that begins a text; a text that is too long loses tokens on the left. Nothing is put
 * between context and continuation, nor around them. */
#include "trainer/eval_jsonl.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "trainer/model_open.h"
#include "trainer/model_text.h"

struct tally {
    uint64_t choices, right, right_norm, right_bytes; /* multiple choice */
    uint64_t clozes, greedy;
    double cloze_log_likelihood;
    uint64_t truncated; /* texts */
};
struct eval {
    struct scorer scorer;
    struct model_text text;
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

/* Bytes of the white space, as Python's str.rstrip() knows it, that a text ends with; 0: none. */
static size_t last_space(const char *text, size_t len)
{
    static const char *const wide[] = {"\xc2\x85", "\u00a0", "\u1680", "\u2000", "\u2001",
                                       "\u2002",   "\u2003", "\u2004", "\u2005", "\u2006",
                                       "\u2007",   "\u2008", "\u2009", "\u200a", "\u2028",
                                       "\u2029",   "\u202f", "\u205f", "\u3000"};
    char c = len > 0 ? text[len - 1] : 'x';
    if (c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f)) {
        return 1;
    }
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        size_t n = strlen(wide[i]);
        if (len >= n && memcmp(text + len - n, wide[i], n) == 0) {
            return n;
        }
    }
    return 0;
}

static size_t without_spaces(const char *text)
{
    size_t len = strlen(text), n;
    while ((n = last_space(text, len)) > 0) {
        len -= n;
    }
    return len;
}

/* Tokens of both, and how many of them are the context's. */
static int encode_pair(const struct eval *e, const char *context, const char *continuation,
                       struct token_ids *all, size_t *first, struct err *err)
{
    struct buf whole = {0};
    struct token_ids alone = {0};
    size_t stripped = without_spaces(context);
    if (stripped == 0 && e->text.begin < 0) {
        return refuse(e, err, "an empty context, and no token is known that begins a text");
    }
    if (stripped == 0) {
        token_ids_add(all, (uint32_t)e->text.begin);
    }
    buf_append_str(&whole, context);
    buf_append_str(&whole, continuation);
    int rc = model_text_encode(&e->text, context, stripped, false, &alone, err);
    rc = rc == 0 ? model_text_encode(&e->text, whole.data, whole.len, false, all, err) : rc;
    *first = stripped == 0 ? 1 : alone.count;
    token_ids_fini(&alone);
    buf_fini(&whole);
    return rc;
}

static int score_ids(struct eval *e, const struct token_ids *all, size_t first, struct score *score,
                     struct err *err)
{
    size_t most = e->scorer.positions + 1, cut = all->count > most ? all->count - most : 0;
    if (first >= all->count) {
        return refuse(e, err, "a choice or target has no tokens of its own after its context");
    }
    if (cut >= first) {
        return refuse(e, err,
                      "a choice or target is longer than the model's max_position_embeddings");
    }
    e->tally.truncated += cut > 0;
    *score =
        scorer_score(&e->scorer, (const int32_t *)all->ids + cut, first - cut, all->count - cut);
    return isfinite(score->log_likelihood)
               ? 0
               : err_set(err, ERR_NUMERIC, "%s:%" PRIu64 ": the log-likelihood is not finite: %g",
                         e->path, e->line, score->log_likelihood);
}

static int score_pair(struct eval *e, const char *context, const char *continuation,
                      struct score *score, struct err *err)
{
    struct token_ids all = {0};
    size_t first = 0;
    if (continuation[0] == 0) {
        return refuse(e, err, "an empty choice or target has no likelihood");
    }
    int rc = encode_pair(e, context, continuation, &all, &first, err);
    rc = rc == 0 ? score_ids(e, &all, first, score, err) : rc;
    token_ids_fini(&all);
    return rc;
}

static size_t characters(const char *text)
{
    size_t n = 0;
    for (; *text != 0; text++) {
        n += (*text & 0xC0) != 0x80;
    }
    return n;
}

/* The index of the largest; the first of equal ones. */
struct best {
    double most;
    size_t index;
};
static void improve(struct best *b, double value, size_t index)
{
    if (value > b->most) {
        *b = (struct best){value, index};
    }
}

static int multiple_choice(struct eval *e, const char *context, const json_t *choices,
                           const json_t *answer, struct err *err)
{
    size_t count = json_array_size(choices);
    struct best best = {-INFINITY, 0}, norm = best, bytes = best;
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
        improve(&best, score.log_likelihood, i);
        improve(&norm, score.log_likelihood / (double)characters(text), i);
        improve(&bytes, score.log_likelihood / (double)strlen(text), i);
    }
    size_t right = (size_t)json_integer_value(answer);
    e->tally.choices++;
    e->tally.right += best.index == right;
    e->tally.right_norm += norm.index == right;
    e->tally.right_bytes += bytes.index == right;
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
        json_object_set_new(root, "acc_bytes", json_real((double)t->right_bytes / n));
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
    TRY_GOTO(model_text_open(&e.text, &m, o->ckpt, o->tokenizer, err), out);
    TRY_GOTO(model_text_check(&e.text, o->ckpt, err), out);
    m.ema = o->ema;
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
    model_text_close(&e.text);
    decoder_destroy(d);
    model_open_fini(&m);
    return rc;
}
