#include "daemon/core/policy.h"

#define MINUTE_MS 60000ll
#define DAY_MS    86400000ll

void policy_default(struct policy *policy)
{
    static const struct policy_class classes[] = {
        {"low", -1000000}, {"normal", 0}, {"high", 1000}, {"urgent", 100000}};
    *policy = (struct policy){
        .priority = {.age = 10,
                     .age_full_ms = 7 * DAY_MS,
                     .fair_share = 10,
                     .half_life_ms = 7 * DAY_MS,
                     .slowdown = 10,
                     .size = 5,
                     .restart = 1000},
        .backfill = {.reservations = 1,
                     .depth = 100000,
                     .horizon_ms = 30 * DAY_MS,
                     .overtaken_ms = DAY_MS,
                     .overtaken_lengths = 0,
                     .shortest_first = false},
        .restart_hold_ms = 2 * MINUTE_MS,
        .assumed_runtime_ms = DAY_MS,
        .preemption = {.enabled = true,
                       .priority_gap = 1,
                       .min_runtime_ms = 15 * MINUTE_MS,
                       .save_first_ms = 5 * MINUTE_MS,
                       .save_max_ms = 30 * MINUTE_MS,
                       .per_job = 3},
        .classes = classes,
        .class_count = sizeof classes / sizeof classes[0],
    };
}

struct queue_row policy_queue_default(void)
{
    return (struct queue_row){
        .weight_milli = 1000,
        .nodes_max = ROW_NONE,
        .jobs_max = ROW_NONE,
        .user_nodes_max = ROW_NONE,
        .user_jobs_max = ROW_NONE,
        .waiting_max = ROW_NONE,
        .priority_max = ROW_NONE,
        .time_limit_ms = ROW_NONE,
        .preempts = true,
        .preemptible = true,
        .accepts = true,
        .starts = true,
    };
}

struct account_row policy_account_default(void)
{
    return (struct account_row){.shares = 1, .nodes_max = ROW_NONE, .accepts = true};
}

const struct policy_class *policy_class_of(const struct policy *policy, int64_t priority)
{
    const struct policy_class *found = NULL;
    for (size_t i = 0; i < policy->class_count && policy->classes[i].priority <= priority; i++) {
        found = &policy->classes[i];
    }
    return found;
}
