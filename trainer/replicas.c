#include "trainer/replicas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/hash.h"
#include "lib/mem.h"
#include "trainer/agree.h"

#define NAMED_MAX 8 /* ranks in the message */

/* The value that most ranks have; of several such the one of the lowest rank. */
static uint64_t common_value(const uint64_t *digest, uint32_t ranks, size_t n, size_t i)
{
    uint64_t best = 0;
    uint32_t best_votes = 0;
    for (uint32_t r = 0; r < ranks; r++) {
        uint32_t votes = 0;
        for (uint32_t s = 0; s < ranks; s++) {
            votes += digest[s * n + i] == digest[r * n + i];
        }
#ifdef MUTANT_replicas_first_is_right
        votes = r == 0;
#endif
        if (votes > best_votes) {
            best = digest[r * n + i];
            best_votes = votes;
        }
    }
    return best;
}

size_t replicas_compare(const uint64_t *digest, uint32_t ranks, size_t n, bool *odd)
{
    for (size_t i = 0; i < n; i++) {
        bool same = true;
        for (uint32_t r = 1; r < ranks; r++) {
            same = same && digest[r * n + i] == digest[i];
        }
        if (!same) {
            uint64_t common = common_value(digest, ranks, n, i);
            for (uint32_t r = 0; r < ranks; r++) {
                odd[r] = digest[r * n + i] != common;
            }
            return i;
        }
    }
    return n;
}

/* Rank in the world of member r of the group. */
static uint32_t world_rank(const struct mesh *m, enum ckpt_holders holders, uint32_t r)
{
    switch (holders) {
    case CKPT_HELD_BY_BATCH:
        return m->pipeline_index * mesh_batch_ways(m) + r;
    case CKPT_HELD_BY_DATA:
        return (m->pipeline_index * m->data + r) * m->expert + m->expert_index;
    default:
        return r;
    }
}

static int differs(const struct ckpt_tensor *t, const struct mesh *mesh, enum ckpt_holders holders,
                   const bool *odd, uint32_t ranks, int64_t *odd_rank, struct err *err)
{
    struct buf list = {0};
    uint32_t named = 0;
    *odd_rank = -1;
    for (uint32_t r = 0; r < ranks; r++) {
        if (odd[r] && named++ < NAMED_MAX) {
            buf_printf(&list, "%s%u", named > 1 ? ", " : "", world_rank(mesh, holders, r));
            *odd_rank = world_rank(mesh, holders, r);
        }
    }
#ifndef MUTANT_replicas_blame
    if (named != 1 || ranks == 2) {
        *odd_rank = -1; /* of two, either may be wrong; of several, who knows */
    }
#endif
    if (named > NAMED_MAX) {
        buf_printf(&list, " and %u more", named - NAMED_MAX);
    }
    int rc =
        err_set(err, ERR_SILENT,
                "tensor %s is not the same on the %u ranks that hold it: on rank %s it differs "
                "from rank %u's%s",
                t->name, ranks, buf_cstr(&list),
                world_rank(mesh, holders, (uint32_t)((bool *)memchr(odd, 0, ranks) - odd)),
                ranks == 2 ? ", either may be wrong" : "");
    buf_fini(&list);
    return rc;
}

static uint64_t digest_of(const struct ckpt_tensor *t, const struct op_table *op, float *scratch)
{
    const float *data = t->data;
    if (!t->host) {
        op->copy_to_host(scratch, t->data, t->count * sizeof *scratch);
        data = scratch;
    }
    return hash_xxh3(data, t->count * sizeof *data, 0);
}

/* Of the tensors that the ranks of one group hold. */
static int check_group(const struct ckpt_tensors *tensors, const struct op_table *op,
                       const struct mesh *mesh, enum ckpt_holders holders, struct comm *group,
                       int64_t *odd_rank, struct err *err)
{
    size_t n = 0;
    size_t largest = 0;
    const struct ckpt_tensor **item = mem_alloc_array(tensors->count, sizeof *item);
    for (size_t i = 0; i < tensors->count; i++) {
        if (tensors->item[i].holders == holders) {
            item[n++] = &tensors->item[i];
            largest = tensors->item[i].count > largest ? tensors->item[i].count : largest;
        }
    }
    float *scratch = mem_alloc_array(largest, sizeof *scratch);
    uint64_t *mine = mem_alloc_array(n, sizeof *mine);
    uint64_t *all = mem_alloc_array(n * group->size, sizeof *all);
    bool *odd = mem_alloc_array(group->size, sizeof *odd);
    for (size_t i = 0; i < n; i++) {
        mine[i] = digest_of(item[i], op, scratch);
#ifdef MUTANT_replicas_some
        mine[i] = i % 2 == 0 ? mine[i] : 0;
#endif
    }
    int rc = group->ops->all_gather(group, mine, all, n * sizeof *mine, err);
    size_t found = rc == 0 ? replicas_compare(all, group->size, n, odd) : n;
    if (found < n) {
        rc = differs(item[found], mesh, holders, odd, group->size, odd_rank, err);
    }
    free(odd);
    free(all);
    free(mine);
    free(scratch);
    free(item);
    return rc;
}

/* What one of the ranks found, on all of them: of the lowest rank that can tell who is wrong, else
 * of the lowest that found something. */
static int share_finding(struct comm *world, struct replica_finding *finding, struct err *err)
{
    struct replica_finding *all = mem_alloc_array(world->size, sizeof *all);
    int rc = world->ops->all_gather(world, finding, all, sizeof *finding, err);
    const struct replica_finding *best = NULL;
    for (uint32_t r = 0; rc == 0 && r < world->size; r++) {
        bool found = all[r].text[0] != 0;
        if (found && (best == NULL || (best->odd_rank < 0 && all[r].odd_rank >= 0))) {
            best = &all[r];
        }
    }
    if (best != NULL) {
        *finding = *best;
    }
    free(all);
    return rc;
}

int replicas_check(const struct ckpt_tensors *tensors, const struct op_table *op,
                   const struct mesh *mesh, const struct replica_groups *groups,
                   struct replica_finding *finding, struct err *err)
{
    const struct {
        enum ckpt_holders holders;
        struct comm *comm;
    } group[] = {{CKPT_HELD_BY_BATCH, groups->batch},
                 {CKPT_HELD_BY_DATA, groups->data},
                 {CKPT_HELD_BY_WORLD, groups->world}};
    *finding = (struct replica_finding){.odd_rank = -1};
    if (groups->world->size == 1) {
        return 0;
    }
    int rc = 0;
    for (size_t i = 0; i < sizeof group / sizeof group[0]; i++) {
        struct err why = {0};
        int64_t odd_rank = -1;
        int one = group[i].comm->size > 1 ? check_group(tensors, op, mesh, group[i].holders,
                                                        group[i].comm, &odd_rank, &why)
                                          : 0;
        if (one != 0 && one != ERR_SILENT) {
            return err_set(err, one, "%s", why.text);
        }
        if (rc == 0 && one != 0) { /* the other groups' members wait for us all the same */
            rc = one;
            finding->odd_rank = odd_rank;
            snprintf(finding->text, sizeof finding->text, "%s", why.text);
        }
    }
    struct err other = {0};
    rc = agree(groups->world, rc, "comparison of the replicas", &other);
    if (rc != ERR_SILENT) {
        return rc == 0 ? 0 : err_set(err, rc, "%s", other.text);
    }
    TRY(share_finding(groups->world, finding, err));
    return err_set(err, ERR_SILENT, "%s", finding->text);
}
