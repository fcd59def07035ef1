#include "ctl/wait.h"

#include <inttypes.h>
#include <string.h>

#include "ctl/jobs.h"
#include "ctl/text.h"
#include "lib/clock.h"
#include "proto/format.h"
#include "proto/pick.h"

#define POLL_MS  30000 /* one question to the coordinator is held open this long */
#define GRACE_MS 15000 /* for its answer after that */
#define EARLY_MS 50    /* an answer that comes sooner was not held open: do not spin */

int wait_for_end(struct ctl *ctl, uint64_t id, Ds__Job **job, struct err *err)
{
    struct session *s = &ctl->session;
    int64_t give_up_ms = s->timeout_ms > 0 ? clock_boot_ms() + s->timeout_ms : -1;
    bool answered = false;
    for (;;) {
        int64_t left = give_up_ms < 0 ? POLL_MS : give_up_ms - clock_boot_ms();
        Ds__JobWait request = DS__JOB_WAIT__INIT;
        request.id = id;
        request.has_wait_ms = 1;
        request.wait_ms = left <= 0 ? 0 : left < POLL_MS ? (uint64_t)left : POLL_MS;
        int64_t asked_ms = clock_boot_ms();
        int64_t within_ms = (int64_t)request.wait_ms + GRACE_MS;
        /* The first question fails at once when nobody is there; later ones wait for a restart. */
        TRY(answered
                ? session_call_patiently(s, RPC_JOB_WAIT, &request, job, within_ms, give_up_ms, err)
                : session_call_within(s, RPC_JOB_WAIT, &request, job, within_ms, err));
        answered = true;
        if (job_has_ended((*job)->state)) {
            return 0;
        }
        if (give_up_ms >= 0 && clock_boot_ms() >= give_up_ms) {
            err_set(err, ERR_TIMEOUT,
                    "job %" PRIu64
                    " (%s) has not ended: it is %s (it goes on; dsctl job wait %" PRIu64 ")",
                    id, (*job)->name, (*job)->state, id);
            rpc_free(&(*job)->base);
            *job = NULL;
            return ERR_TIMEOUT;
        }
        rpc_free(&(*job)->base);
        *job = NULL;
        if (clock_boot_ms() - asked_ms < EARLY_MS) {
            clock_sleep_ms(EARLY_MS);
        }
    }
}

static void end_page(const struct output *o, struct buf *out, const json_t *job)
{
    int64_t start_ms = 0, end_ms = 0;
    if (strcmp(pick_text(job, "state"), "COMPLETED") != 0) {
        return; /* the error line says it */
    }
    (void)o;
    buf_printf(out, "completed job %" PRId64 " (", pick_int(job, "id"));
    text_append_clean(out, pick_text(job, "name"));
    buf_append_str(out, ")");
    if (pick_time(job, "started_at", &start_ms) && pick_time(job, "ended_at", &end_ms)) {
        buf_append_str(out, " after ");
        format_duration(out, end_ms - start_ms);
    }
    buf_append_str(out, "\n");
}

int wait_report(struct ctl *ctl, Ds__Job *job, struct err *err)
{
    struct buf out = {0};
    int verdict = job_verdict(job, err);
    int rc = output_one(&ctl->output, &out, output_json(job, "ds/job/v1"), &job_listing, end_page,
                        verdict == 0 ? err : NULL);
    int written = ctl_write(ctl, &out, verdict == 0 && rc == 0 ? err : NULL);
    return verdict != 0 ? verdict : rc != 0 ? rc : written;
}
