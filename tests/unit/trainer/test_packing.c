#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/unit/random.h"
#include "trainer/packing.h"

static size_t cut_documents(const struct packing *p, const uint64_t *lengths, uint32_t width)
{
    size_t cut = 0;
    for (size_t i = 0; i < p->first[p->bins]; i++) {
        const struct piece *piece = &p->pieces[i];
        cut += lengths[piece->document] <= width && piece->tokens < lengths[piece->document];
    }
    return cut;
}

static void check(const uint64_t *lengths, uint32_t count, uint32_t width)
{
    struct packing p;
    packing_make(&p, lengths, count, width);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += lengths[i];
    }
    assert_int_equal(p.bins, sum / width);
    uint64_t *start = mem_alloc_array((size_t)count + 1, sizeof *start);
    for (uint32_t i = 0; i < count; i++) {
        start[i + 1] = start[i] + lengths[i];
    }
    uint8_t *seen = mem_alloc_array(sum + 1, 1);
    for (size_t b = 0; b < p.bins; b++) {
        uint64_t tokens = 0;
        for (size_t i = p.first[b]; i < p.first[b + 1]; i++) {
            const struct piece *piece = &p.pieces[i];
            assert_true(piece->document < count && piece->tokens >= 1);
            assert_true(piece->offset + piece->tokens <= lengths[piece->document]);
            for (uint64_t t = 0; t < piece->tokens; t++) {
                assert_int_equal(seen[start[piece->document] + piece->offset + t]++, 0);
            }
            tokens += piece->tokens;
        }
        assert_int_equal(tokens, width);
    }
    free(seen);
    free(start);
    packing_fini(&p);
}

/* Whatever the lengths, every bin is full, no token is in two of them, and less than a bin is left
 * out. */
static void test_any(void **state)
{
    (void)state;
    random_start(__func__);
    for (int round = 0; round < 400; round++) {
        uint32_t count = (uint32_t)random_below(200);
        uint32_t width = 1 + (uint32_t)random_below(300);
        uint64_t lengths[200];
        for (uint32_t i = 0; i < count; i++) {
            lengths[i] = random_below(random_below(10) == 0 ? 2000 : 1 + random_below(width + 2));
        }
        check(lengths, count, width);
    }
    check(NULL, 0, 17);
    check((uint64_t[]){0, 0, 5}, 3, 6);
}

/* Documents that fit together exactly stay whole; among many of mixed lengths few are cut, where
 * cutting the stream would cut nearly one a sequence. */
static void test_few_cuts(void **state)
{
    (void)state;
    struct packing p;
    const uint64_t exact[] = {60, 40, 70, 30, 100, 55, 45};
    packing_make(&p, exact, 7, 100);
    assert_int_equal(p.bins, 4);
    assert_int_equal(cut_documents(&p, exact, 100), 0);
    packing_fini(&p);
    enum { N = 16384, WIDTH = 2049 };
    uint64_t *lengths = mem_alloc_array(N, sizeof *lengths);
    random_start(__func__);
    for (int i = 0; i < N; i++) {
        lengths[i] = 1 + random_below(1 + random_below(WIDTH));
    }
    packing_make(&p, lengths, N, WIDTH);
    assert_true(p.bins > 3000);
    assert_true(cut_documents(&p, lengths, WIDTH) < p.bins / 20);
    packing_fini(&p);
    free(lengths);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any),
        cmocka_unit_test(test_few_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
