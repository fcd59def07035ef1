#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "tests/unit/random.h"
#include "trainer/corpus.h"
#include "trainer/fim.h"

/* A corpus whose tokens tell where they come from: token t of document d is 1000 * d + t, and the
 * last of a document is END + d. */
enum { DOCUMENTS = 300, TOKENS_MAX = 900, END = 1000 * DOCUMENTS, FIM = END + DOCUMENTS };
enum { VOCAB = FIM + 3, LENGTH = 63 };
static char dir[64];
static uint32_t lengths[DOCUMENTS];

static int setup(void **state)
{
    (void)state;
    random_start(__func__);
    snprintf(dir, sizeof dir, "/tmp/test_corpus.XXXXXX");
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    struct buf bin = {0}, idx = {0}, pointers = {0}, documents = {0};
    buf_append(&idx, DATA_MAGIC, DATA_MAGIC_BYTES);
    const uint64_t version = 1, sequences = DOCUMENTS, starts = DOCUMENTS + 1;
    buf_append(&idx, &version, 8);
    buf_append(&idx, (const uint8_t[]){DATA_INT32}, 1);
    buf_append(&idx, &sequences, 8);
    buf_append(&idx, &starts, 8);
    for (uint64_t d = 0; d < DOCUMENTS; d++) {
        lengths[d] = (uint32_t)(random_one_in(20) ? random_below(TOKENS_MAX) : random_below(90));
        buf_append(&idx, &lengths[d], 4);
        uint64_t at = bin.len;
        buf_append(&pointers, &at, 8);
        buf_append(&documents, &d, 8);
        for (uint32_t t = 0; t < lengths[d]; t++) {
            int32_t token = t + 1 < lengths[d] ? (int32_t)(1000 * d + t) : (int32_t)(END + d);
            buf_append(&bin, &token, 4);
        }
    }
    buf_append(&documents, &sequences, 8);
    buf_append(&idx, pointers.data, pointers.len);
    buf_append(&idx, documents.data, documents.len);
    char path[128];
    snprintf(path, sizeof path, "%s/text.bin", dir);
    int rc = file_write_durable(path, bin.data, bin.len, 0600, NULL);
    snprintf(path, sizeof path, "%s/text.idx", dir);
    rc |= file_write_durable(path, idx.data, idx.len, 0600, NULL);
    buf_fini(&bin);
    buf_fini(&idx);
    buf_fini(&pointers);
    buf_fini(&documents);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

static void open_corpus(struct corpus *c, double fim_rate, uint64_t seed)
{
    char prefix[128];
    struct err err = {0};
    snprintf(prefix, sizeof prefix, "%s/text", dir);
    const struct data_spec spec = {.packing = PACKING_DOCUMENTS,
                                   .fim = {fim_rate, FIM, FIM + 1, FIM + 2}};
    if (corpus_open(c, prefix, &spec, seed, LENGTH, VOCAB, &err) != 0) {
        fail_msg("%s", err.text);
    }
}

/* An epoch shows every token of the corpus at most once and leaves out less than one sequence of
 * them; pieces of a document stay in order; the next epoch shows the same in another order. */
static void test_epoch(void **state)
{
    (void)state;
    struct corpus c;
    open_corpus(&c, 0, 11);
    uint8_t *seen = mem_alloc(VOCAB);
    uint64_t shown = 0;
    int32_t s[LENGTH + 1], other[LENGTH + 1];
    int same = 0;
    for (uint64_t n = 0; n < c.sampler.windows; n++) {
        assert_int_equal(corpus_read(&c, n, s, NULL), 0);
        assert_int_equal(corpus_read(&c, n + c.sampler.windows, other, NULL), 0);
        same += memcmp(s, other, sizeof s) == 0;
        for (int i = 0; i <= LENGTH; i++, shown++) {
            assert_int_equal(seen[s[i]]++, 0);
            if (i > 0 && s[i] < END && s[i] % 1000 != 0 && s[i - 1] < END &&
                s[i] / 1000 == s[i - 1] / 1000) {
                assert_int_equal(s[i], s[i - 1] + 1);
            }
        }
    }
    assert_true(c.data.tokens - shown <= LENGTH);
    assert_true(same < 5);
    free(seen);
    corpus_close(&c);
}

/* Any rank can begin anywhere: the n-th sequence is the same whatever was read before it. */
static void test_random_access(void **state)
{
    (void)state;
    struct corpus a, b;
    open_corpus(&a, 0.5, 3);
    open_corpus(&b, 0.5, 3);
    for (int i = 0; i < 300; i++) {
        uint64_t n = random_below(5 * a.sampler.windows), else_ = random_below(1000000);
        int32_t x[LENGTH + 1], y[LENGTH + 1];
        assert_int_equal(corpus_read(&a, n, x, NULL), 0);
        assert_int_equal(corpus_read(&b, else_, y, NULL), 0);
        assert_int_equal(corpus_read(&b, n, y, NULL), 0);
        assert_memory_equal(x, y, sizeof x);
    }
    corpus_close(&a);
    corpus_close(&b);
}

/* A told document is begin, prefix, hole, suffix, end, middle, last token, wherever it is entered;
 * put back in order it is the document. About the asked share of documents is told. */
static void test_fim(void **state)
{
    (void)state;
    const struct fim_spec fim = {0.3, FIM, FIM + 1, FIM + 2};
    int told = 0;
    for (uint64_t d = 0; d < 20000; d++) {
        uint64_t tokens = random_below(40);
        struct fim_cut cut = fim_cut(&fim, 9, d, tokens);
        told += cut.told;
        if (!cut.told) {
            struct fim_stretch s = fim_stretch(&fim, &cut, tokens + 1, tokens);
            assert_true(s.first == tokens && s.count == 1 && s.token == -1);
            continue;
        }
        assert_true(tokens >= 2 && cut.a <= cut.b && cut.b <= cut.body);
        int64_t out[64], flat[64];
        uint64_t n = 0, at = 0;
        for (uint64_t o = 0; o < tokens + FIM_TOKENS; o++) {
            struct fim_stretch s = fim_stretch(&fim, &cut, tokens, o);
            assert_true(s.count >= 1);
            out[n++] = s.token >= 0 ? -s.token : (int64_t)s.first;
        }
        while (at < n) {
            struct fim_stretch s = fim_stretch(&fim, &cut, tokens, at);
            for (uint64_t k = 0; k < s.count; k++, at++) {
                flat[at] = s.token >= 0 ? -s.token : (int64_t)(s.first + k);
            }
        }
        assert_int_equal(at, n);
        assert_memory_equal(flat, out, n * sizeof *out);
        uint64_t hole = 1 + cut.a, end = hole + 1 + cut.body - cut.b;
        assert_true(out[0] == -FIM && out[hole] == -(FIM + 1) && out[end] == -(FIM + 2));
        uint64_t put = 0;
        int64_t back[64];
        for (uint64_t i = 1; i < hole; i++) {
            back[put++] = out[i];
        }
        for (uint64_t i = end + 1; i < n - 1; i++) {
            back[put++] = out[i];
        }
        for (uint64_t i = hole + 1; i < end; i++) {
            back[put++] = out[i];
        }
        back[put++] = out[n - 1];
        assert_int_equal(put, tokens);
        for (uint64_t i = 0; i < tokens; i++) {
            assert_int_equal(back[i], (int64_t)i);
        }
    }
    assert_in_range(told, 5200, 6100); /* of those with two tokens, 19 in 20 */
}

/* With fill in the middle at rate 1 every document of two tokens or more carries its marks once. */
static void test_fim_epoch(void **state)
{
    (void)state;
    struct corpus c;
    open_corpus(&c, 1, 4);
    uint64_t marks = 0, expected = 0, all = 0;
    for (int d = 0; d < DOCUMENTS; d++) {
        expected += lengths[d] >= 2;
        all += lengths[d];
    }
    int32_t s[LENGTH + 1];
    for (uint64_t n = 0; n < c.sampler.windows; n++) {
        assert_int_equal(corpus_read(&c, n, s, NULL), 0);
        for (int i = 0; i <= LENGTH; i++) {
            marks += s[i] >= FIM;
        }
    }
    assert_int_equal(c.sampler.windows, (all + 3 * expected) / (LENGTH + 1));
    assert_true(marks <= 3 * expected && marks + LENGTH + 1 > 3 * expected);
    corpus_close(&c);
}

/* A corpus with less than one sequence is refused with the numbers. */
static void test_short(void **state)
{
    (void)state;
    struct corpus c;
    struct err err = {0};
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%s/text", dir);
    const struct data_spec spec = {.packing = PACKING_DOCUMENTS};
    assert_int_equal(corpus_open(&c, prefix, &spec, 1, 10000000, VOCAB, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "one sequence needs 10000001"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epoch), cmocka_unit_test(test_random_access),
        cmocka_unit_test(test_fim),   cmocka_unit_test(test_fim_epoch),
        cmocka_unit_test(test_short),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
