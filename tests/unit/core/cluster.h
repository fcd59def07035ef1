/* Hand-made clusters: a world with nodes, jobs that are started and ended as a whole, limits. Times
 * in minutes from the world's begin. */
#ifndef TESTS_UNIT_CORE_CLUSTER_H
#define TESTS_UNIT_CORE_CLUSTER_H

#include "tests/unit/core/world.h"

#include "daemon/core/sched.h"
#include "daemon/core/share.h"

#define MINUTE 60000
#define HOUR   (60 * MINUTE)

static struct world w;

static UNUSED void begin(const struct core_config *config)
{
    memset(&w, 0, sizeof w);
    w.core = core_create(config);
    w.now_ms = T0;
    core_load_counters(
        w.core, &(struct core_counters){.term = 1, .now_ms = T0, .next_job = 1, .next_ckpt = 1});
    core_load_done(w.core);
    core_step(w.core, &(struct input){.kind = INPUT_TICK, .now_ms = T0});
    core_committed(w.core);
}

static UNUSED int setup(void **state)
{
    (void)state;
    world_init(&w);
    return 0;
}

static UNUSED int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

/* n1, n2 ... with so many accelerators each; sessions 1, 2 ... */
static UNUSED void nodes(int count, size_t gpus)
{
    for (int i = 1; i <= count; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%02d", i);
        world_register(&w, (session_id)i, name, gpus);
    }
}

/* Time goes by, and everybody says that he lives. */
static UNUSED void pass_time(int64_t ms)
{
    int64_t end_ms = w.now_ms + ms;
    while (w.now_ms < end_ms) {
        int64_t next_ms = w.now_ms + 20000 < end_ms ? w.now_ms + 20000 : end_ms;
        world_run_to(&w, next_ms);
        for (size_t i = 0; i < w.core->node_count; i++) {
            if (w.core->nodes[i]->session != 0) {
                world_heartbeat(&w, w.core->nodes[i]->session);
            }
        }
    }
}

static UNUSED uint64_t submit_as(const char *user, uint32_t count, uint32_t gpus, int64_t limit_ms,
                                 int64_t priority)
{
    struct jobspec spec = world_spec(count, gpus);
    spec.time_limit_ms = (uint64_t)limit_ms;
    spec.priority = priority;
    spec.min_runtime_ms = UINT64_MAX;
    struct input in = {.kind = INPUT_JOB_SUBMIT, .token = ++w.token};
    in.u.submit = (struct input_submit){
        .spec = &spec, .spec_json = "{}", .workdir = "/tmp", .user = user, .request_hash = "h"};
    world_step(&w, &in);
    struct effect *reply = world_effect(&w, EFFECT_REPLY, 0);
    return reply->u.reply.code == 0 ? reply->u.reply.id : 0;
}

static UNUSED double share_used_of(const char *user)
{
    return share_used(w.core, share_find_member(w.core, "a", user));
}

static UNUSED uint64_t submit(uint32_t count, uint32_t gpus, int64_t limit_ms)
{
    return submit_as("u", count, gpus, limit_ms, 0);
}

static UNUSED bool runs(uint64_t id)
{
    struct job *job = world_job(&w, id);
    return job != NULL && (job->row.state == JOB_STARTING || job->row.state == JOB_RUNNING);
}

/* All ranks report that they run. */
static UNUSED void start_all(uint64_t id)
{
    struct attempt *attempt = world_job(&w, id)->attempt;
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        world_start(&w, attempt->nodes[i].node->session, id, attempt->row.epoch);
    }
}

/* All ranks exit with this code. */
static UNUSED void end_all(uint64_t id, int32_t code)
{
    struct attempt *attempt = world_job(&w, id)->attempt;
    uint64_t epoch = attempt->row.epoch;
    uint32_t count = attempt->node_count;
    for (uint32_t i = 0; i < count; i++) {
        struct attempt_node *an = &world_job(&w, id)->attempt->nodes[i];
        session_id session = an->node->session;
        struct input_exit exits[64];
        for (uint32_t r = 0; r < an->rank_count; r++) {
            exits[r] = world_exit(&w, an->rank_first + r, code);
        }
        world_report(&w, session, id, epoch, 3, exits, an->rank_count);
    }
}

static UNUSED const char *why(uint64_t id, const char **sentence)
{
    static char code[32], text[1024];
    assert_true(core_why(w.core, id, code, sizeof code, text, sizeof text));
    *sentence = text;
    return code;
}

static UNUSED void assert_why(uint64_t id, const char *code, const char *part)
{
    const char *text;
    const char *got = why(id, &text);
    if (strcmp(got, code) != 0 || strstr(text, part) == NULL) {
        fail_msg("%s: %s", got, text);
    }
}

static UNUSED uint64_t maintain(const char *names, int64_t start_ms, int64_t length_ms)
{
    struct input in = {.kind = INPUT_RESERVATION_CREATE, .token = ++w.token};
    in.u.reservation = (struct input_reservation){.is_maint = true,
                                                  .nodes = names,
                                                  .reason = "new fans",
                                                  .by_user = "op",
                                                  .start_ms = start_ms,
                                                  .end_ms = start_ms + length_ms};
    world_step(&w, &in);
    struct effect *reply = world_effect(&w, EFFECT_REPLY, 0);
    return reply->u.reply.code == 0 ? reply->u.reply.id : 0;
}

static UNUSED void set_queue(const char *name, uint32_t fields, struct input_queue_set set)
{
    struct input in = {.kind = INPUT_QUEUE_SET, .token = ++w.token};
    in.u.queue = set;
    in.u.queue.name = name;
    in.u.queue.user = "op";
    in.u.queue.fields = fields;
    world_step(&w, &in);
    assert_int_equal(world_code(&w), 0);
}

#endif
