#include "daemon/sim/yard.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/sim/heap.h"
#include "lib/mem.h"

struct running {
    size_t job;
    int64_t until_ms; /* by its estimate */
    uint32_t *nodes;  /* owned; job.nodes of them */
};
struct yard {
    uint32_t node_count, gpus;
    struct yard_job *jobs;
    uint32_t *free_gpus;    /* by node */
    uint32_t with_free[65]; /* nodes that have exactly so many free */
    int64_t *ready_ms;      /* when the node has room for the head, by estimates; of one pass */
    bool *reserved;         /* for the head; of one pass */
    size_t *queue;
    size_t queue_count;
    struct running *running;
    size_t running_count;
    struct heap ends;
    int64_t now_ms;
};

/* The nodes that have room now, those first that leave least of it. */
static bool place(const struct yard *y, const struct yard_job *job, bool avoid_reserved,
                  uint32_t *out)
{
    uint32_t found = 0, roomy = 0;
    for (uint32_t g = job->gpus; g <= y->gpus; g++) {
        roomy += y->with_free[g];
    }
    if (roomy < job->nodes) {
        return false;
    }
    for (uint32_t left = 0; left <= y->gpus - job->gpus && found < job->nodes; left++) {
        for (uint32_t n = 0; n < y->node_count && found < job->nodes; n++) {
            if (y->free_gpus[n] == job->gpus + left && !(avoid_reserved && y->reserved[n])) {
                out[found++] = n;
            }
        }
    }
    return found == job->nodes;
}

static void set_free(struct yard *y, uint32_t node, uint32_t gpus)
{
    y->with_free[y->free_gpus[node]]--;
    y->free_gpus[node] = gpus;
    y->with_free[gpus]++;
}

static bool start(struct yard *y, size_t index, bool avoid_reserved)
{
    struct yard_job *job = &y->jobs[index];
    uint32_t *nodes = mem_alloc_array(job->nodes, sizeof *nodes);
    if (job->nodes > y->node_count || !place(y, job, avoid_reserved, nodes)) {
        free(nodes);
        return false;
    }
    for (uint32_t i = 0; i < job->nodes; i++) {
        set_free(y, nodes[i], y->free_gpus[nodes[i]] - job->gpus);
    }
    job->start_ms = y->now_ms;
    y->running[y->running_count++] = (struct running){index, y->now_ms + job->estimate_ms, nodes};
    heap_add(&y->ends, y->now_ms + job->run_ms, NULL, index, 1, NULL);
    return true;
}

static void end(struct yard *y, size_t index)
{
    for (size_t i = 0; i < y->running_count; i++) {
        if (y->running[i].job != index) {
            continue;
        }
        for (uint32_t n = 0; n < y->jobs[index].nodes; n++) {
            uint32_t node = y->running[i].nodes[n];
            set_free(y, node, y->free_gpus[node] + y->jobs[index].gpus);
        }
        free(y->running[i].nodes);
        y->running[i] = y->running[--y->running_count];
        return;
    }
}

static int by_end(const void *a, const void *b)
{
    const struct running *x = a, *z = b;
    if (x->until_ms != z->until_ms) {
        return x->until_ms < z->until_ms ? -1 : 1;
    }
    return x->job < z->job ? -1 : x->job > z->job;
}

static uint32_t count_ready(struct yard *y, const uint32_t *room, uint32_t gpus, int64_t at_ms)
{
    uint32_t ready = 0;
    for (uint32_t n = 0; n < y->node_count; n++) {
        if (room[n] >= gpus && y->ready_ms[n] < 0) {
            y->ready_ms[n] = at_ms;
        }
        ready += y->ready_ms[n] >= 0;
    }
    return ready;
}

/* When the head can start by the estimates, and on which nodes: those that become free last, so
 * that the others stay open. */
static int64_t reserve(struct yard *y, const struct yard_job *head)
{
    uint32_t *room = mem_alloc_array(y->node_count, sizeof *room);
    memcpy(room, y->free_gpus, y->node_count * sizeof *room);
    memset(y->reserved, 0, y->node_count * sizeof *y->reserved);
    for (uint32_t n = 0; n < y->node_count; n++) {
        y->ready_ms[n] = -1;
    }
    qsort(y->running, y->running_count, sizeof *y->running, by_end);
    int64_t shadow_ms = y->now_ms;
    uint32_t ready = count_ready(y, room, head->gpus, shadow_ms);
    for (size_t i = 0; i < y->running_count && ready < head->nodes; i++) {
        const struct running *r = &y->running[i];
        shadow_ms = r->until_ms > y->now_ms ? r->until_ms : y->now_ms;
        for (uint32_t n = 0; n < y->jobs[r->job].nodes; n++) {
            uint32_t node = r->nodes[n];
            room[node] += y->jobs[r->job].gpus;
            if (room[node] >= head->gpus && y->ready_ms[node] < 0) {
                y->ready_ms[node] = shadow_ms;
                ready++;
            }
        }
    }
    uint32_t wanted = head->nodes;
    for (int64_t at_ms = shadow_ms; wanted > 0;) {
        int64_t earlier_ms = -1;
        for (uint32_t n = 0; n < y->node_count && wanted > 0; n++) {
            if (y->ready_ms[n] == at_ms && !y->reserved[n]) {
                y->reserved[n] = true;
                wanted--;
            } else if (y->ready_ms[n] < at_ms && y->ready_ms[n] > earlier_ms) {
                earlier_ms = y->ready_ms[n];
            }
        }
        if (earlier_ms < 0) {
            break;
        }
        at_ms = earlier_ms;
    }
    free(room);
    return shadow_ms;
}

static void pass(struct yard *y, enum yard_policy policy)
{
    size_t at = 0;
    while (at < y->queue_count && start(y, y->queue[at], false)) {
        at++;
    }
    size_t kept = 0;
    if (policy == YARD_EASY && at + 1 < y->queue_count) {
        int64_t shadow_ms = reserve(y, &y->jobs[y->queue[at]]);
        for (size_t i = at; i < y->queue_count; i++) {
            const struct yard_job *job = &y->jobs[y->queue[i]];
            bool ends_before = y->now_ms + job->estimate_ms <= shadow_ms;
            if (i == at ||
                !(start(y, y->queue[i], true) || (ends_before && start(y, y->queue[i], false)))) {
                y->queue[kept++] = y->queue[i];
            }
        }
    } else {
        for (size_t i = at; i < y->queue_count; i++) {
            y->queue[kept++] = y->queue[i];
        }
    }
    y->queue_count = kept;
}

void yard_run(enum yard_policy policy, uint32_t nodes, uint32_t gpus, struct yard_job *jobs,
              size_t count)
{
    struct yard y = {.node_count = nodes, .gpus = gpus, .jobs = jobs};
    y.free_gpus = mem_alloc_array(nodes, sizeof *y.free_gpus);
    y.ready_ms = mem_alloc_array(nodes, sizeof *y.ready_ms);
    y.reserved = mem_alloc_array(nodes, sizeof *y.reserved);
    y.queue = mem_alloc_array(count + 1, sizeof *y.queue);
    y.running = mem_alloc_array(count + 1, sizeof *y.running);
    for (uint32_t n = 0; n < nodes; n++) {
        y.free_gpus[n] = gpus;
    }
    y.with_free[gpus] = nodes;
    for (size_t i = 0; i < count; i++) {
        jobs[i].start_ms = -1;
        if (jobs[i].nodes <= nodes && jobs[i].gpus <= gpus) {
            heap_add(&y.ends, jobs[i].submit_ms, NULL, i, 0, NULL);
        }
    }
    struct heap_event event;
    while (heap_take(&y.ends, &event)) {
        y.now_ms = event.at_ms;
        if (event.b == 1) {
            end(&y, (size_t)event.a);
        } else {
            y.queue[y.queue_count++] = (size_t)event.a;
        }
        if (heap_next_ms(&y.ends) > y.now_ms) {
            pass(&y, policy);
        }
    }
    heap_fini(&y.ends);
    free(y.free_gpus);
    free(y.ready_ms);
    free(y.reserved);
    free(y.queue);
    free(y.running);
}
