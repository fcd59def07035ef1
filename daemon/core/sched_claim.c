#include "daemon/core/sched_claim.h"

#include <string.h>

#include "lib/mem.h"

int64_t sched_claim_until_ms(const struct core *core, const struct job *job)
{
    const struct attempt *attempt = job->attempt;
    const char *code = job->row.reason_code != NULL ? job->row.reason_code : "";
    bool restarts = strcmp(code, "restart") == 0 || strcmp(code, "backoff") == 0;
    if (job->row.state != JOB_PENDING || !restarts || attempt == NULL ||
        attempt->row.ended_ms == ROW_NONE) {
        return 0;
    }
    int64_t until_ms = attempt->row.ended_ms + core->config.policy.restart_hold_ms;
    bool in_time = job->row.not_before_ms < until_ms;
    return in_time && until_ms > core->now_ms ? until_ms : 0;
}

void sched_claim_add(struct core *core, struct job *job)
{
    if (sched_claim_until_ms(core, job) == 0) {
        return;
    }
    void *claims = core->claims;
    mem_grow(&claims, &core->claims_capacity, core->claim_count + 1, sizeof *core->claims);
    core->claims = claims;
    core->claims[core->claim_count++] = job->row.id;
}

void sched_claim_prune(struct core *core)
{
    size_t kept = 0;
    for (size_t i = 0; i < core->claim_count; i++) {
        const struct job *job = core_job(core, core->claims[i]);
        if (job != NULL && sched_claim_until_ms(core, job) != 0) {
            core->claims[kept++] = core->claims[i];
        }
    }
    core->claim_count = kept;
}
