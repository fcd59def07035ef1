#include "trainer/corpus.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "trainer/fim.h"
#include "trainer/pack_tokenizer.h"
#include "trainer/rng.h"

static uint32_t group_documents(const struct corpus *c, uint32_t group)
{
    uint64_t left = c->data.documents - (uint64_t)group * CORPUS_GROUP;
    return left < CORPUS_GROUP ? (uint32_t)left : CORPUS_GROUP;
}

/* Document of the corpus that is the i-th of a group. */
static uint64_t document_of(const struct corpus *c, uint32_t group, uint32_t i)
{
    return sampler_permute(rng_u64(c->sampler.seed, rng_stream("documents"), 0), c->data.documents,
                           (uint64_t)group * CORPUS_GROUP + i);
}

/* Tokens of a document as it is told. */
static uint64_t told_tokens(const struct corpus *c, uint64_t document)
{
    uint64_t first;
    uint64_t tokens = dataset_document(&c->data, document, &first);
    struct fim_cut cut = fim_cut(&c->fim, c->sampler.seed, document, tokens);
    return tokens + (cut.told ? FIM_TOKENS : 0);
}

static void count_sequences(struct corpus *c)
{
    uint32_t width = c->sampler.sequence_length + 1;
    c->groups = (uint32_t)((c->data.documents + CORPUS_GROUP - 1) / CORPUS_GROUP);
    c->group = c->groups;
    c->before = mem_alloc_array((size_t)c->groups + 1, sizeof *c->before);
    for (uint32_t g = 0; g < c->groups; g++) {
        uint64_t tokens = 0;
        for (uint32_t i = 0; i < group_documents(c, g); i++) {
            tokens += told_tokens(c, document_of(c, g, i));
        }
        c->before[g + 1] = c->before[g] + tokens / width;
    }
    c->sampler.windows = c->before[c->groups];
}

int corpus_check_windows(const struct dataset *d, uint64_t windows, const char *prefix,
                         uint32_t sequence_length, struct err *err)
{
    if (windows == 0) {
        return err_set(err, ERR_DATA,
                       "%s.bin has %" PRIu64 " tokens, one sequence needs %u (more text, or a "
                       "shorter sequence_length)",
                       prefix, d->tokens, sequence_length + 1);
    }
    return 0;
}

int corpus_open(struct corpus *c, const char *prefix, const struct data_spec *spec, uint64_t seed,
                uint32_t sequence_length, uint32_t vocab, struct err *err)
{
    *c = (struct corpus){.kind = spec->packing, .fim = spec->fim, .vocab = vocab};
    c->sampler = (struct sampler){.seed = seed, .sequence_length = sequence_length};
    int rc;
    TRY_GOTO(pack_tokenizer_check(prefix, vocab, err), out);
    TRY_GOTO(dataset_open(&c->data, prefix, err), out);
    if (c->kind == PACKING_DOCUMENTS) {
        count_sequences(c);
    } else {
        c->sampler.windows = sampler_windows(c->data.tokens, sequence_length);
    }
    rc = corpus_check_windows(&c->data, c->sampler.windows, prefix, sequence_length, err);
out:
    if (rc != 0) {
        corpus_close(c);
    }
    return rc;
}

void corpus_close(struct corpus *c)
{
    dataset_close(&c->data);
    packing_fini(&c->packing);
    free(c->before);
    *c = (struct corpus){0};
}

static void pack_group(struct corpus *c, uint32_t group)
{
    if (c->group == group) {
        return;
    }
    uint32_t count = group_documents(c, group);
    uint64_t *lengths = mem_alloc_array(count, sizeof *lengths);
    for (uint32_t i = 0; i < count; i++) {
        lengths[i] = told_tokens(c, document_of(c, group, i));
    }
    packing_fini(&c->packing);
    packing_make(&c->packing, lengths, count, c->sampler.sequence_length + 1);
    assert(c->packing.bins == c->before[group + 1] - c->before[group]);
    c->group = group;
    free(lengths);
}

static int read_piece(const struct corpus *c, const struct piece *piece, int32_t *tokens,
                      struct err *err)
{
    uint64_t document = document_of(c, c->group, piece->document);
    uint64_t first;
    uint64_t length = dataset_document(&c->data, document, &first);
    struct fim_cut cut = fim_cut(&c->fim, c->sampler.seed, document, length);
    for (uint32_t done = 0; done < piece->tokens;) {
        struct fim_stretch s = fim_stretch(&c->fim, &cut, length, piece->offset + done);
        uint32_t left = piece->tokens - done;
        uint32_t count = s.count < left ? (uint32_t)s.count : left;
        if (s.token >= 0) {
            tokens[done] = s.token;
        } else {
            TRY(dataset_read(&c->data, first + s.first, count, c->vocab, tokens + done, err));
        }
        done += count;
    }
    return 0;
}

static int read_packed(struct corpus *c, uint64_t n, int32_t *tokens, struct err *err)
{
    uint64_t epoch = n / c->sampler.windows;
    uint64_t in_epoch = n % c->sampler.windows;
    uint32_t low = 0, high = c->groups; /* before[low] <= in_epoch < before[high] */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        *(c->before[middle] <= in_epoch ? &low : &high) = middle;
    }
    pack_group(c, low);
    uint64_t key = rng_u64(rng_u64(c->sampler.seed, rng_stream("sequences"), epoch), 0, low);
    uint64_t bin = sampler_permute(key, c->packing.bins, in_epoch - c->before[low]);
    for (size_t i = c->packing.first[bin]; i < c->packing.first[bin + 1]; i++) {
        TRY(read_piece(c, &c->packing.pieces[i], tokens, err));
        tokens += c->packing.pieces[i].tokens;
    }
    return 0;
}

int corpus_read(struct corpus *c, uint64_t n, int32_t *tokens, struct err *err)
{
    if (c->kind == PACKING_DOCUMENTS) {
        return read_packed(c, n, tokens, err);
    }
    uint64_t at = sampler_token(&c->sampler, sampler_window(&c->sampler, n));
    return dataset_read(&c->data, at, (size_t)c->sampler.sequence_length + 1, c->vocab, tokens,
                        err);
}
