#include "trainer/feed.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "trainer/pack_tokenizer.h"
#include "trainer/rng.h"
#include "trainer/sampler.h"

static int check_fim(const struct fim_spec *fim, uint32_t vocab, struct err *err)
{
    uint32_t most = fim->begin > fim->hole ? fim->begin : fim->hole;
    most = fim->end > most ? fim->end : most;
    if (fim->rate > 0 && most >= vocab) {
        return err_set(err, ERR_CONFIG,
                       "data.fim: token %u is outside the model's vocabulary 0..%u (a larger "
                       "vocab_size, or other tokens)",
                       most, vocab - 1);
    }
    return 0;
}

static int open_sources(struct feed *f, const struct train_spec *spec, struct err *err)
{
    const struct data_spec *data = &spec->data;
    double weights[DATA_SOURCES_MAX];
    f->sources = mem_alloc_array(data->source_count, sizeof *f->sources);
    for (uint32_t i = 0; i < data->source_count; i++) {
        uint64_t seed = i == 0 ? spec->seed : rng_u64(spec->seed, rng_stream("source"), i);
        TRY(corpus_open(&f->sources[i], data->sources[i].prefix, data, seed, f->sequence_length,
                        f->vocab, err));
        f->source_count++;
        f->train_tokens += f->sources[i].data.tokens;
        weights[i] = data->sources[i].weight;
    }
    mixture_init(&f->mixture, spec->seed, weights, f->source_count);
    for (uint32_t i = 0; i < data->skip_count; i++) {
        cursor_skip(&f->cursor, data->skips[i].first, data->skips[i].count);
    }
    return 0;
}

static int open_valid(struct feed *f, const char *prefix, struct err *err)
{
    f->has_valid = true;
    TRY(pack_tokenizer_check(prefix, f->vocab, err));
    TRY(dataset_open(&f->valid, prefix, err));
    f->valid_windows = sampler_windows(f->valid.tokens, f->sequence_length);
    return corpus_check_windows(&f->valid, f->valid_windows, prefix, f->sequence_length, err);
}

int feed_open(struct feed *f, const struct train_spec *spec, uint32_t vocab, struct err *err)
{
    *f = (struct feed){.sequence_length = spec->sequence_length, .vocab = vocab};
    int rc = check_fim(&spec->data.fim, vocab, err);
    rc = rc != 0 ? rc : open_sources(f, spec, err);
    if (rc == 0 && spec->data.valid != NULL) {
        rc = open_valid(f, spec->data.valid, err);
    }
    if (rc != 0) {
        feed_close(f);
    }
    return rc;
}

void feed_close(struct feed *f)
{
    for (uint32_t i = 0; i < f->source_count; i++) {
        corpus_close(&f->sources[i]);
    }
    free(f->sources);
    cursor_fini(&f->cursor);
    dataset_close(&f->valid);
    *f = (struct feed){0};
}

int feed_train(struct feed *f, uint64_t first, uint32_t count, int32_t *tokens, struct err *err)
{
    size_t width = (size_t)f->sequence_length + 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t n;
        uint32_t source = mixture_at(&f->mixture, cursor_nth(&f->cursor, first + i), &n);
        TRY(corpus_read(&f->sources[source], n, tokens + i * width, err));
    }
    return 0;
}

void feed_shown(const struct feed *f, uint64_t *counts)
{
    const struct cursor *c = &f->cursor;
    uint64_t from[DATA_SOURCES_MAX];
    uint64_t to[DATA_SOURCES_MAX];
    mixture_before(&f->mixture, c->position, counts);
    for (size_t i = 0; i < c->skip_count && c->skips[i].first < c->position; i++) {
        uint64_t end = c->skips[i].first + c->skips[i].count;
        mixture_before(&f->mixture, c->skips[i].first, from);
        mixture_before(&f->mixture, end < c->position ? end : c->position, to);
        for (uint32_t s = 0; s < f->source_count; s++) {
            counts[s] -= to[s] - from[s];
        }
    }
}

int feed_valid(const struct feed *f, uint64_t first, uint32_t count, uint64_t n, int32_t *tokens,
               struct err *err)
{
    assert(f->has_valid);
    size_t width = (size_t)f->sequence_length + 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t window = sampler_valid_window(f->valid_windows, first + i, n);
        TRY(dataset_read(&f->valid, window * f->sequence_length, width, f->vocab,
                         tokens + i * width, err));
    }
    return 0;
}
