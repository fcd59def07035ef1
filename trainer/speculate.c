/* Tokens are chosen from the main model's logits alone, which are the same bits in a pass of two
 * rows as in two passes (decode.h), by a function of logits and index (choose.h). So the text is
 * that of plain decoding whatever is guessed, sampled or greedy. */
#include "trainer/speculate.h"

#include <stdbool.h>
#include <time.h>

#define PLAIN_FIRST 6    /* passes without a guess, to know what they take */
#define TRIES       32   /* guesses between two looks at whether they pay */
#define PAUSE_MIN   64   /* tokens without guesses when they do not */
#define PAUSE_MAX   1024 /* it doubles each time up to this */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void keep_fastest(double *best, double took)
{
    *best = *best == 0 || took < *best ? took : *best;
}

void speculate_draft(struct speculation *s, const int32_t *next, size_t count)
{
    decoder_draft(s->decoder, next, count, s->logits);
    s->draft = (int32_t)choose_likeliest(s->logits, s->vocab);
}

static void look_whether_it_pays(struct speculation *s)
{
    double tokens = 1 + (double)s->right / (double)s->tried;
    bool pays = s->guessed < tokens * s->plain;
    s->pause = pays || s->pause == 0 ? PAUSE_MIN : 2 * s->pause;
    s->pause = s->pause < PAUSE_MAX ? s->pause : PAUSE_MAX;
    s->rest = pays ? 0 : s->pause;
    s->tried = s->right = 0;
}

/* Without a guess; the module is kept up to date for the next. */
static size_t plain_step(struct speculation *s, int32_t last, uint64_t index, int32_t out[2])
{
    double start = seconds();
    decoder_forward(s->decoder, &last, 1);
    decoder_logits(s->decoder, 0, 1, s->logits);
    out[0] = choose_token(s->chooser, s->logits, s->vocab, index);
    keep_fastest(&s->plain, seconds() - start);
    s->rest -= s->rest > 0;
    s->unguessed += s->steps > PLAIN_FIRST;
    if (s->rest > 0) {
        decoder_skip_draft(s->decoder, out, 1);
    } else {
        speculate_draft(s, out, 1);
    }
    return 1;
}

static size_t guessed_step(struct speculation *s, int32_t last, uint64_t index, int32_t out[2])
{
    const int32_t tokens[2] = {last, s->draft};
    size_t count = 1;
    decoder_forward(s->decoder, tokens, 2);
    decoder_logits(s->decoder, 0, 2, s->logits);
    out[0] = choose_token(s->chooser, s->logits, s->vocab, index);
    s->drafts++;
    if (out[0] == s->draft) {
        s->accepted++;
        out[1] = choose_token(s->chooser, s->logits + s->vocab, s->vocab, index + 1);
        count = 2;
    } else {
        decoder_truncate(s->decoder, decoder_length(s->decoder) - 1);
    }
    speculate_draft(s, out, count);
    return count;
}

size_t speculate_step(struct speculation *s, int32_t last, uint64_t index, int32_t out[2])
{
    if (s->steps++ < PLAIN_FIRST || s->rest > 0) {
        return plain_step(s, last, index, out);
    }
    double start = seconds();
    size_t count = guessed_step(s, last, index, out);
    keep_fastest(&s->guessed, seconds() - start);
    s->tried++;
    s->right += count == 2;
    if (s->tried == TRIES) {
        look_whether_it_pays(s);
    }
    return count;
}
