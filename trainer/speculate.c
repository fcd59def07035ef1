/* Tokens are chosen from the main model's logits alone, which are the same bits in a pass of two
 * rows as in two passes (decode.h), by a function of logits and index (choose.h). So the text is
 * that of plain decoding whatever is guessed, sampled or greedy. */
#include "trainer/speculate.h"

void speculate_draft(struct speculation *s, const int32_t *next, size_t count)
{
    decoder_draft(s->decoder, next, count, s->logits);
    s->draft = (int32_t)choose_likeliest(s->logits, s->vocab);
}

size_t speculate_step(struct speculation *s, int32_t last, uint64_t index, int32_t out[2])
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
