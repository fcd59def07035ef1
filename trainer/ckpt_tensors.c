#include "trainer/ckpt_tensors.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/mem.h"

struct piece {
    size_t size, index;
};

static int bigger_first(const void *a, const void *b)
{
    const struct piece *x = a;
    const struct piece *y = b;
    if (x->size != y->size) {
        return x->size > y->size ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

void ckpt_deal(const size_t *sizes, size_t n, uint32_t ways, uint32_t *owner)
{
    struct piece *order = mem_alloc_array(n, sizeof *order);
    uint64_t *load = mem_alloc_array(ways, sizeof *load);
    for (size_t i = 0; i < n; i++) {
        order[i] = (struct piece){sizes[i], i};
    }
    qsort(order, n, sizeof *order, bigger_first);
    for (size_t i = 0; i < n; i++) {
        uint32_t least = 0;
        for (uint32_t w = 1; w < ways; w++) {
            least = load[w] < load[least] ? w : least;
        }
        load[least] += order[i].size;
        owner[order[i].index] = least;
    }
    free(order);
    free(load);
}

/* owned[i] for the parameters that are experts' or are not. */
static void deal_kind(const struct optim *optim, bool experts, uint32_t ways, uint32_t self,
                      bool *owned)
{
    size_t *sizes = mem_alloc_array(optim->count, sizeof *sizes);
    size_t *index = mem_alloc_array(optim->count, sizeof *index);
    uint32_t *owner = mem_alloc_array(optim->count, sizeof *owner);
    size_t n = 0;
    for (size_t i = 0; i < optim->count; i++) {
        if ((optim->params[i].expert >= 0) == experts) {
            sizes[n] = optim->params[i].count;
            index[n++] = i;
        }
    }
    ckpt_deal(sizes, n, ways, owner);
    for (size_t i = 0; i < n; i++) {
        owned[index[i]] = owner[i] == self;
    }
    free(sizes);
    free(index);
    free(owner);
}

static struct ckpt_tensor *add(struct ckpt_tensors *t, const struct param *p, float *data,
                               bool owned)
{
    struct ckpt_tensor *x = &t->item[t->count++];
    *x = (struct ckpt_tensor){.rows = p->rows,
                              .cols = p->cols,
                              .is_vector = p->is_vector,
                              .owned = owned && !p->copy,
                              .holders = p->expert >= 0 ? CKPT_HELD_BY_DATA : CKPT_HELD_BY_BATCH,
                              .count = p->count,
                              .data = data};
    snprintf(x->name, sizeof x->name, "%s", p->name);
    return x;
}

static void add_moment(struct ckpt_tensors *t, const struct param *p, const struct optim_part *part,
                       enum optim_state state, bool owned, bool parted)
{
    struct ckpt_tensor *x = add(t, p, part->state[state], owned);
    snprintf(x->name, sizeof x->name, CKPT_MOMENT_PREFIX "%s.%s", optim_state_name(state), p->name);
    x->moment = true;
    x->holders = parted ? CKPT_HELD_ALONE : x->holders;
    x->host = state == OPTIM_EMA;
    x->optional = state == OPTIM_EMA;
    x->first = part->first;
    x->count = part->count;
}

static void add_bias(struct ckpt_tensors *t, const struct router *r, bool owned)
{
    struct ckpt_tensor *x = &t->item[t->count++];
    *x = (struct ckpt_tensor){.rows = r->experts,
                              .cols = 1,
                              .is_vector = true,
                              .owned = owned,
                              .host = true,
                              .holders = CKPT_HELD_BY_WORLD,
                              .count = r->experts,
                              .data = r->bias};
    snprintf(x->name, sizeof x->name, "%s", r->name);
}

void ckpt_tensors_init(struct ckpt_tensors *t, const struct optim *optim,
                       const struct router *routers, size_t router_count, const struct mesh *mesh,
                       bool parted)
{
    *t = (struct ckpt_tensors){0};
    size_t most = optim->count + OPTIM_STATES * optim->parts + router_count;
    t->item = mem_alloc_array(most, sizeof *t->item);
    bool *owned = mem_alloc_array(optim->count, sizeof *owned);
    deal_kind(optim, false, mesh_batch_ways(mesh), mesh_batch_index(mesh), owned);
    deal_kind(optim, true, mesh->data, mesh->data_index, owned);
    for (size_t i = 0; i < optim->count; i++) {
        add(t, &optim->params[i], optim->params[i].weight, owned[i]);
    }
    for (size_t i = 0; i < optim->parts; i++) {
        const struct optim_part *part = &optim->part[i];
        for (int s = 0; s < OPTIM_STATES && part->state[s] != NULL; s++) {
            add_moment(t, &optim->params[part->param], part, (enum optim_state)s,
                       parted || owned[part->param], parted);
        }
    }
    free(owned);
    for (size_t i = 0; i < router_count; i++) {
        add_bias(t, &routers[i], mesh->rank == 0); /* every rank has those of all layers */
    }
}

void ckpt_tensors_fini(struct ckpt_tensors *t)
{
    free(t->item);
    *t = (struct ckpt_tensors){0};
}
