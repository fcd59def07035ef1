/* Ranks are threads here; one of them has a bit flipped, or none. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "lib/mem.h"
#include "trainer/replicas.h"

enum { RANKS = 8, TENSORS = 12, ELEMENTS_MAX = 300 };

/* ---- groups of threads: only what is called */

struct hall {
    pthread_barrier_t barrier;
    const void *in[RANKS];
};
struct thread_comm {
    struct comm base;
    struct hall *hall;
};

static int gather(struct comm *c, const void *in, void *out, size_t bytes, struct err *err)
{
    struct hall *hall = ((struct thread_comm *)c)->hall;
    (void)err;
    hall->in[c->rank] = in;
    pthread_barrier_wait(&hall->barrier);
    for (uint32_t r = 0; r < c->size; r++) {
        memcpy((char *)out + r * bytes, hall->in[r], bytes);
    }
    pthread_barrier_wait(&hall->barrier);
    return 0;
}

static int sum_u64(struct comm *c, uint64_t *data, size_t count, struct err *err)
{
    uint64_t *all = mem_alloc_array(count * c->size, sizeof *all);
    gather(c, data, all, count * sizeof *data, err);
    memset(data, 0, count * sizeof *data);
    for (size_t i = 0; i < count * c->size; i++) {
        data[i % count] += all[i];
    }
    free(all);
    return 0;
}

static int broadcast(struct comm *c, void *data, size_t bytes, uint32_t root, struct err *err)
{
    char *all = mem_alloc(bytes * c->size);
    gather(c, data, all, bytes, err);
    memcpy(data, all + root * bytes, bytes);
    free(all);
    return 0;
}

static const struct comm_ops thread_ops = {
    .name = "threads", .all_gather = gather, .all_reduce_sum_u64 = sum_u64, .broadcast = broadcast};

static void copy(void *host, const void *p, size_t bytes)
{
    memcpy(host, p, bytes);
}
static const struct op_table op = {.copy_to_host = copy};

/* ---- a mesh of ranks with the same content where it has to be */

struct rank {
    struct mesh mesh;
    struct thread_comm world, batch, data;
    struct ckpt_tensor item[TENSORS];
    float content[TENSORS][ELEMENTS_MAX];
    int rc;
    struct replica_finding finding;
    struct err err;
};
struct fleet {
    struct hall world, batch[RANKS], data[RANKS];
    uint32_t ranks;
    struct rank rank[RANKS];
};

static struct thread_comm member(struct hall *hall, uint32_t rank, uint32_t size)
{
    if (rank == 0) {
        pthread_barrier_init(&hall->barrier, NULL, size);
    }
    return (struct thread_comm){{&thread_ops, rank, size}, hall};
}

static void fill(struct rank *r, unsigned seed)
{
    const struct mesh *m = &r->mesh;
    for (uint32_t i = 0; i < TENSORS; i++) {
        struct ckpt_tensor *t = &r->item[i];
        *t = (struct ckpt_tensor){.holders = (enum ckpt_holders)(i % 4),
                                  .host = i % 3 == 0,
                                  .count = 1 + (seed + i * 37) % ELEMENTS_MAX,
                                  .data = r->content[i]};
        snprintf(t->name, sizeof t->name, "tensor.%u", i);
        uint32_t who = t->holders == CKPT_HELD_BY_BATCH  ? m->pipeline_index
                       : t->holders == CKPT_HELD_BY_DATA ? m->pipeline_index * 10 + m->expert_index
                       : t->holders == CKPT_HELD_ALONE   ? m->rank
                                                         : 0;
        for (size_t k = 0; k < t->count; k++) {
            r->content[i][k] = (float)(who * 1000 + k + i);
        }
    }
}

static struct fleet *assemble(uint32_t pipeline, uint32_t data, uint32_t expert, unsigned seed)
{
    struct fleet *f = mem_alloc(sizeof *f);
    *f = (struct fleet){.ranks = pipeline * data * expert};
    for (uint32_t i = 0; i < f->ranks; i++) {
        struct rank *r = &f->rank[i];
        assert_int_equal(mesh_init(&r->mesh, f->ranks, i, pipeline, expert, NULL), 0);
        const struct mesh *m = &r->mesh;
        r->world = member(&f->world, i, f->ranks);
        r->batch = member(&f->batch[m->pipeline_index], mesh_batch_index(m), mesh_batch_ways(m));
        r->data =
            member(&f->data[m->pipeline_index * expert + m->expert_index], m->data_index, m->data);
        fill(r, seed);
    }
    return f;
}

static void *check(void *arg)
{
    struct rank *r = arg;
    const struct ckpt_tensors tensors = {r->item, TENSORS};
    const struct replica_groups groups = {&r->world.base, &r->batch.base, &r->data.base};
    r->rc = replicas_check(&tensors, &op, &r->mesh, &groups, &r->finding, &r->err);
    return NULL;
}

static void check_all(struct fleet *f)
{
    pthread_t thread[RANKS];
    for (uint32_t i = 0; i < f->ranks; i++) {
        f->rank[i].rc = 1;
        assert_int_equal(pthread_create(&thread[i], NULL, check, &f->rank[i]), 0);
    }
    for (uint32_t i = 0; i < f->ranks; i++) {
        pthread_join(thread[i], NULL);
    }
}

static const uint32_t meshes[][3] = {/* pipeline, data, expert */
                                     {1, 1, 1}, {1, 2, 1}, {1, 4, 1}, {1, 1, 4},
                                     {1, 2, 2}, {2, 2, 2}, {2, 1, 2}, {1, 4, 2}};

/* How many ranks have to have what this one has. */
static uint32_t holders(const struct rank *r, const struct ckpt_tensor *t)
{
    return t->holders == CKPT_HELD_BY_BATCH   ? r->batch.base.size
           : t->holders == CKPT_HELD_BY_DATA  ? r->data.base.size
           : t->holders == CKPT_HELD_BY_WORLD ? r->world.base.size
                                              : 1;
}

/* One bit anywhere is found and named by every rank, and where three or more hold the tensor, whose
 * it is, too; without it all agree. */
static void test_a_flipped_bit(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 160; round++) {
        const uint32_t *m = meshes[round % 8];
        struct fleet *f = assemble(m[0], m[1], m[2], (unsigned)rand());
        struct rank *r = &f->rank[(uint32_t)rand() % f->ranks];
        uint32_t i = (uint32_t)rand() % TENSORS;
        struct ckpt_tensor *t = &r->item[i];
        check_all(f);
        for (uint32_t k = 0; k < f->ranks; k++) {
            assert_int_equal(f->rank[k].rc, 0);
        }
        uint8_t *bytes = (uint8_t *)r->content[i];
        bytes[(size_t)rand() % (t->count * sizeof(float))] ^= (uint8_t)(1u << rand() % 8);
        check_all(f);
        bool visible = holders(r, t) > 1;
        for (uint32_t k = 0; k < f->ranks; k++) {
            const struct rank *x = &f->rank[k];
            assert_int_equal(x->rc, visible ? ERR_SILENT : 0);
            char name[160];
            snprintf(name, sizeof name, "tensor %s ", t->name);
            assert_true(!visible || strstr(x->err.text, name) != NULL);
            assert_true(!visible || strcmp(x->finding.text, x->err.text) == 0);
            bool known = holders(r, t) > 2;
            assert_int_equal(x->finding.odd_rank, known ? (int64_t)r->mesh.rank : -1);
            char word[32];
            snprintf(word, sizeof word, "on rank %u it differs", r->mesh.rank);
            assert_true(!known || strstr(x->err.text, word) != NULL);
        }
        free(f);
    }
}

static void test_compare(void **state)
{
    (void)state;
    bool odd[4];
    const uint64_t same[] = {1, 2, 3, 1, 2, 3};
    assert_int_equal(replicas_compare(same, 2, 3, odd), 3);
    assert_int_equal(replicas_compare(same, 1, 3, odd), 3);
    const uint64_t two[] = {1, 2, 3, 1, 9, 8};
    assert_int_equal(replicas_compare(two, 2, 3, odd), 1);
    assert_true(!odd[0] && odd[1]);
    const uint64_t first[] = {7, 1, 1, 1};
    assert_int_equal(replicas_compare(first, 4, 1, odd), 0);
    assert_true(odd[0] && !odd[1] && !odd[2] && !odd[3]);
    const uint64_t halves[] = {5, 6, 5, 6};
    assert_int_equal(replicas_compare(halves, 4, 1, odd), 0);
    assert_true(!odd[0] && odd[1] && !odd[2] && odd[3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_a_flipped_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
