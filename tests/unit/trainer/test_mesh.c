#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "trainer/mesh.h"

/* Rank to coordinates is a bijection, expert innermost, and the batch index counts a stage's ranks.
 */
static void test_coordinates(void **state)
{
    (void)state;
    for (uint32_t p = 1; p <= 3; p++) {
        for (uint32_t e = 1; e <= 4; e++) {
            for (uint32_t d = 1; d <= 3; d++) {
                uint32_t world = p * e * d;
                for (uint32_t r = 0; r < world; r++) {
                    struct mesh m;
                    assert_int_equal(mesh_init(&m, world, r, p, e, NULL), 0);
                    assert_int_equal(m.data, d);
                    assert_int_equal((m.pipeline_index * d + m.data_index) * e + m.expert_index, r);
                    assert_true(m.expert_index < e && m.data_index < d && m.pipeline_index < p);
                    assert_int_equal(mesh_batch_index(&m), r - m.pipeline_index * d * e);
                    assert_int_equal(mesh_batch_ways(&m), d * e);
                }
            }
        }
    }
}

/* Expert ranges cover 0..n without gap or overlap, and are equal when n divides. */
static void test_expert_range(void **state)
{
    (void)state;
    for (uint32_t e = 1; e <= 8; e++) {
        struct mesh m;
        assert_int_equal(mesh_init(&m, e, 0, 1, e, NULL), 0);
        for (uint32_t n = 0; n <= 33; n++) {
            uint32_t next = 0;
            for (uint32_t i = 0; i < e; i++) {
                uint32_t first;
                uint32_t count;
                mesh_expert_range(&m, n, i, &first, &count);
                assert_int_equal(first, next);
                next += count;
                if (n % e == 0) {
                    assert_int_equal(count, n / e);
                }
            }
            assert_int_equal(next, n);
        }
    }
}

/* What cannot be laid out is refused with numbers in the text. */
static void test_refused(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    assert_int_equal(mesh_init(&m, 3, 0, 1, 2, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "3 ranks"));
    assert_non_null(strstr(err.text, "multiple of 2"));
    assert_int_equal(mesh_init(&m, 0, 0, 1, 1, &err), ERR_CONFIG);
    assert_int_equal(mesh_init(&m, 4, 4, 1, 1, &err), ERR_CONFIG);
    assert_int_equal(mesh_init(&m, 4, 0, 0, 1, &err), ERR_CONFIG);
    assert_int_equal(mesh_init(&m, 4, 0, 65536, 65536, &err), ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coordinates),
        cmocka_unit_test(test_expert_range),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
