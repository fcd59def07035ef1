#include "trainer/feed.h"

#include <assert.h>

#include "trainer/pack_tokenizer.h"

static int open_one(struct dataset *d, uint64_t *windows, const char *prefix,
                    uint32_t sequence_length, uint32_t vocab, struct err *err)
{
    TRY(pack_tokenizer_check(prefix, vocab, err));
    TRY(dataset_open(d, prefix, err));
    *windows = sampler_windows(d->tokens, sequence_length);
    if (*windows == 0) {
        return err_set(err, ERR_DATA,
                       "%s.bin has %llu tokens, one sequence needs %u (more text, or a shorter "
                       "sequence_length)",
                       prefix, (unsigned long long)d->tokens, sequence_length + 1);
    }
    return 0;
}

int feed_open(struct feed *f, const struct train_spec *spec, uint32_t vocab, struct err *err)
{
    *f = (struct feed){.vocab = vocab, .has_valid = spec->data_valid != NULL};
    f->sampler = (struct sampler){.seed = spec->seed, .sequence_length = spec->sequence_length};
    int rc = open_one(&f->train, &f->sampler.windows, spec->data_train, spec->sequence_length,
                      vocab, err);
    if (rc == 0 && f->has_valid) {
        rc = open_one(&f->valid, &f->valid_windows, spec->data_valid, spec->sequence_length, vocab,
                      err);
    }
    if (rc != 0) {
        feed_close(f);
    }
    return rc;
}

void feed_close(struct feed *f)
{
    dataset_close(&f->train);
    dataset_close(&f->valid);
    *f = (struct feed){0};
}

int feed_train(const struct feed *f, uint64_t first, uint32_t count, int32_t *tokens,
               struct err *err)
{
    size_t width = (size_t)f->sampler.sequence_length + 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = sampler_token(&f->sampler, sampler_window(&f->sampler, first + i));
        TRY(dataset_read(&f->train, at, width, f->vocab, tokens + i * width, err));
    }
    return 0;
}

int feed_valid(const struct feed *f, uint64_t first, uint32_t count, uint64_t n, int32_t *tokens,
               struct err *err)
{
    assert(f->has_valid);
    size_t width = (size_t)f->sampler.sequence_length + 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at =
            sampler_token(&f->sampler, sampler_valid_window(f->valid_windows, first + i, n));
        TRY(dataset_read(&f->valid, at, width, f->vocab, tokens + i * width, err));
    }
    return 0;
}
