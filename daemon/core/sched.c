#include "daemon/core/sched.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/node.h"
#include "daemon/core/topology.h"
#include "lib/mem.h"

void plan_fini(struct plan *plan)
{
    free(plan->nodes);
    *plan = (struct plan){0};
}

bool sched_node_has_room(const struct node *node, int64_t gpus_per_node)
{
    return gpus_per_node > 0 ? node_free_gpus(node) >= gpus_per_node
                             : node->hosted < NODE_HOSTED_MAX;
}

struct candidate {
    struct node *node;
    bool is_former;
    uint32_t load; /* less is better */
};

static int compare(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->is_former != y->is_former) {
        return x->is_former ? -1 : 1;
    }
    if (x->load != y->load) {
        return x->load < y->load ? -1 : 1;
    }
    return strcmp(x->node->row.name, y->node->row.name);
}

static int compare_names(const void *a, const void *b)
{
    struct node *const *x = a, *const *y = b;
    return strcmp((*x)->row.name, (*y)->row.name);
}

static bool is_former(const struct job *job, const struct node *node)
{
    for (uint32_t i = 0; job->attempt != NULL && i < job->attempt->node_count; i++) {
        if (job->attempt->nodes[i].node == node) {
            return true;
        }
    }
    return false;
}

bool sched_place(const struct core *core, struct job *job, struct plan *plan)
{
    uint32_t wanted = (uint32_t)job->row.nodes_requested;
    struct candidate *candidates = mem_alloc_array(core->node_count, sizeof *candidates);
    size_t count = 0;
    for (size_t i = 0; i < core->node_count; i++) {
        struct node *node = core->nodes[i];
        if (!node_is_usable(node) || !sched_node_has_room(node, job->row.gpus_per_node)) {
            continue;
        }
        /* Best fit keeps whole nodes free for large gangs; ranks without an accelerator are spread.
         */
        candidates[count++] = (struct candidate){
            .node = node,
            .is_former = is_former(job, node),
            .load = job->row.gpus_per_node > 0 ? node_free_gpus(node) : node->hosted,
        };
    }
    if (count >= wanted) {
        qsort(candidates, count, sizeof *candidates, compare);
        void *nodes = plan->nodes;
        mem_grow(&nodes, &plan->node_capacity, wanted, sizeof *plan->nodes);
        plan->nodes = nodes;
        for (uint32_t i = 0; i < wanted; i++) {
            plan->nodes[i] = candidates[i].node;
        }
        /* By name, so that the same nodes give every rank the same place again. */
        qsort(plan->nodes, wanted, sizeof *plan->nodes, compare_names);
        plan->node_count = wanted;
        plan->job = job;
    }
    free(candidates);
    return count >= wanted;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool sched_can_ever_fit(const struct core *core, uint32_t nodes, int64_t gpus_per_node,
                        enum placement placement, uint32_t *large_enough)
{
    const char **places = mem_alloc_array(core->node_count, sizeof *places);
    uint32_t count = 0, run = 0, longest = 0;
    for (size_t i = 0; i < core->node_count; i++) {
        if (node_capacity(core->nodes[i]) >= gpus_per_node) {
            places[count++] = topology_place(core->nodes[i], placement);
        }
    }
    qsort(places, count, sizeof *places, compare_texts);
    for (uint32_t i = 0; i < count; i++) {
        run = i > 0 && strcmp(places[i - 1], places[i]) == 0 ? run + 1 : 1;
        longest = run > longest ? run : longest;
    }
    free(places);
    *large_enough = longest;
    return core->node_count == 0 || longest >= nodes;
}

void sched_job_came(struct core *core, struct job *job)
{
    (void)job;
    core->sched_due = true;
}

void sched_job_left(struct core *core, struct job *job)
{
    (void)job;
    core->sched_due = true;
}

bool sched_next(const struct core *core, struct plan *plan)
{
    struct job *first = NULL;
    for (size_t i = 0; i < core->queue_count; i++) {
        struct job *job = core->queue[i];
        bool before = first == NULL || job->row.priority > first->row.priority ||
                      (job->row.priority == first->row.priority && job->row.id < first->row.id);
        first = before ? job : first;
    }
    return first != NULL && sched_place(core, first, plan);
}
