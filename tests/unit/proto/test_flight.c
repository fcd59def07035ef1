/* Flight recorders of made-up attempts: what is said of ranks that wait, miss a call, or disagree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "proto/flight.h"
#include "tests/unit/random.h"

enum { RANKS = 4, WORLD = 0, EXPERT = 1 };

static struct flight_file *file[RANKS];

static void make(uint32_t rank)
{
    struct flight_file *f = mem_alloc(sizeof *f);
    memcpy(f->magic, FLIGHT_MAGIC, sizeof f->magic);
    f->version = FLIGHT_VERSION;
    f->entries = FLIGHT_ENTRIES;
    f->rank = rank;
    f->world = RANKS;
    f->next = 1;
    f->group_count = 2;
    f->group[WORLD] = (struct flight_group){"world0", rank, RANKS};
    f->group[EXPERT] = (struct flight_group){"", rank % 2, 2};
    snprintf(f->group[EXPERT].name, sizeof f->group[EXPERT].name, "expert%u", rank / 2);
    file[rank] = f;
}

static int start(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < RANKS; i++) {
        make(i);
    }
    return 0;
}

static int finish(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < RANKS; i++) {
        free(file[i]);
    }
    return 0;
}

static struct flight_entry *call(uint32_t rank, uint16_t group, enum flight_op op, uint64_t number,
                                 uint64_t bytes, bool over)
{
    struct flight_file *f = file[rank];
    uint64_t n = f->next++;
    struct flight_entry *e = &f->entry[n % FLIGHT_ENTRIES];
    *e = (struct flight_entry){.number = n,
                               .call = number,
                               .bytes = bytes,
                               .begin_ns = (int64_t)n * 1000000,
                               .end_ns = over ? (int64_t)n * 1000000 + 500000 : 0,
                               .op = (uint16_t)op,
                               .group = group};
    return e;
}

/* `calls` reductions that all ranks finished. */
static void all_finish(uint64_t calls)
{
    for (uint32_t r = 0; r < RANKS; r++) {
        for (uint64_t i = 1; i <= calls; i++) {
            call(r, WORLD, FLIGHT_ALL_REDUCE_F32, i, 64, true);
        }
    }
}

static void check(const char *expected)
{
    struct buf out = {0};
    bool found = flight_compare((const struct flight_file *const *)file, RANKS, &out);
    assert_string_equal(buf_cstr(&out), expected);
    assert_int_equal(found, expected[0] != 0);
    buf_fini(&out);
}

static void test_agreement(void **state)
{
    (void)state;
    check("");
    all_finish(10000); /* the ring went round twice */
    check("");
    for (uint32_t r = 0; r < RANKS; r++) { /* rows of an all-to-all are each rank's own */
        call(r, EXPERT, FLIGHT_ALL_TO_ALL, 1, r * 100, true);
    }
    check("");
}

static void test_missing_rank(void **state)
{
    (void)state;
    all_finish(5);
    for (uint32_t r = 0; r < RANKS; r++) {
        if (r != 2) {
            call(r, WORLD, FLIGHT_ALL_REDUCE_F32, 6, 64, false);
        }
    }
    check("all_reduce_sum_f32 6 of world0, 64 bytes: never begun by rank 2, where rank 0, 1, 3 "
          "waited\n");
}

/* Rank 3 hangs before an all-to-all with rank 2; the others wait for both in the next reduction. */
static void test_chain(void **state)
{
    (void)state;
    all_finish(2);
    call(2, EXPERT, FLIGHT_ALL_TO_ALL, 1, 300, false);
    for (uint32_t r = 0; r < 2; r++) {
        call(r, EXPERT, FLIGHT_ALL_TO_ALL, 1, 100, true);
        call(r, WORLD, FLIGHT_BARRIER, 3, 0, false);
    }
    check("barrier 3 of world0, 0 bytes: never begun by rank 2, 3, where rank 0, 1 waited\n"
          "all_to_all_v 1 of expert1, 300 bytes: never begun by rank 3, where rank 2 waited\n");
}

static void test_desync(void **state)
{
    (void)state;
    all_finish(3);
    for (uint32_t r = 0; r < RANKS; r++) {
        call(r, WORLD, r == 1 ? FLIGHT_ALL_GATHER : FLIGHT_ALL_REDUCE_F64, 4, 16, false);
        call(r, WORLD, FLIGHT_BARRIER, 5, 0, false);
    }
    check("rank 0 and rank 1 differ: all_reduce_sum_f64 4 of world0, 16 bytes against all_gather 4 "
          "of world0, 16 bytes\n");
}

static void test_last(void **state)
{
    (void)state;
    struct buf out = {0};
    flight_last(file[0], 0, &out);
    assert_int_equal(out.len, 0);
    struct flight_entry *e = call(0, WORLD, FLIGHT_BARRIER, 1, 0, true);
    flight_last(file[0], e->end_ns + 2500000000, &out);
    assert_string_equal(buf_cstr(&out), "after barrier 1 of world0, 0 bytes, 2.5 s ago");
    out.len = 0;
    e = call(0, EXPERT, FLIGHT_ALL_TO_ALL, 7, 4096, false);
    flight_last(file[0], e->begin_ns + 33000000000, &out);
    assert_string_equal(buf_cstr(&out), "in all_to_all_v 7 of expert0, 4096 bytes, for 33.0 s");
    out.len = 0;
    e->end_ns = e->begin_ns + 1;
    e->failed = 1;
    flight_last(file[0], e->end_ns, &out);
    assert_string_equal(buf_cstr(&out),
                        "failed in all_to_all_v 7 of expert0, 4096 bytes, 0.0 s ago");
    buf_fini(&out);
}

/* A file with any bytes wrong is refused, or what is left of it is read: never more. */
static void test_damage(void **state)
{
    (void)state;
    char path[] = "/tmp/ds-flight-XXXXXX";
    int fd = mkstemp(path);
    struct err err = {0};
    close(fd);
    all_finish(5000);
    for (int round = 0; round < 300; round++) {
        struct flight_file copy = *file[0];
        size_t bytes = sizeof copy;
        for (uint64_t n = random_below(200); n > 0; n--) {
            ((uint8_t *)&copy)[random_below(round % 2 == 0 ? 700 : sizeof copy)] =
                (uint8_t)random_next();
        }
        bytes = random_one_in(5) ? random_below(bytes) : bytes;
        assert_int_equal(file_write_durable(path, &copy, bytes, 0600, &err), 0);
        struct flight_file *read;
        struct buf out = {0};
        if (flight_read(&read, path, &err) == 0) {
            const struct flight_file *two[] = {read, file[1]};
            flight_compare(two, 2, &out);
            flight_last(read, 0, &out);
            flight_table(read, 5000, &out);
            free(read);
        } else {
            assert_int_equal(bytes == sizeof copy && memcmp(&copy, file[0], 48) == 0, false);
        }
        buf_fini(&out);
    }
    unlink(path);
}

int main(void)
{
    random_start("test_flight");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_agreement, start, finish),
        cmocka_unit_test_setup_teardown(test_missing_rank, start, finish),
        cmocka_unit_test_setup_teardown(test_chain, start, finish),
        cmocka_unit_test_setup_teardown(test_desync, start, finish),
        cmocka_unit_test_setup_teardown(test_last, start, finish),
        cmocka_unit_test_setup_teardown(test_damage, start, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
