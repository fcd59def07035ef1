/* cluster status */
#include <inttypes.h>
#include <stdio.h>

#include "ctl/cmd.h"
#include "ctl/page.h"
#include "ctl/text.h"
#include "proto/format.h"
#include "proto/pick.h"

/* "2 UP, 1 DRAINED". */
static void append_counts(const struct output *o, struct buf *out, const char *label,
                          const json_t *counts)
{
    page_label(out, label);
    const char *separator = "";
    for (size_t i = 0; i < json_array_size(counts); i++) {
        const json_t *item = json_array_get(counts, i);
        const char *state = pick_text(item, "state");
        if (pick_int(item, "count") != 0) {
            buf_printf(out, "%s%" PRId64 " ", separator, pick_int(item, "count"));
            terminal_paint(&o->terminal, out, terminal_state_colour(state), state);
            separator = ", ";
        }
    }
    buf_append_str(out, separator[0] != 0 ? "\n" : "none\n");
}

static void status_page(const struct output *o, struct buf *out, const json_t *status)
{
    int64_t now_ms = 0, started_ms = 0, scheduled_ms = 0;
    uint64_t gpus = pick_count(status, "gpus");
    uint64_t used = pick_count(status, "gpus_allocated");
    page_title(o, out, "cluster", pick_text(status, "cluster"), "", "");
    page_label(out, "coordinator");
    buf_append_str(out, "version ");
    text_append_clean(out, pick_text(status, "version"));
    buf_printf(out, ", term %" PRIu64, pick_count(status, "term"));
    if (pick_time(status, "now_at", &now_ms) && pick_time(status, "started_at", &started_ms)) {
        buf_append_str(out, ", up ");
        format_duration(out, now_ms - started_ms);
    }
    buf_append_str(out, "\n");
    append_counts(o, out, "nodes", json_object_get(status, "nodes"));
    page_label(out, "GPUs");
    buf_printf(out, "%" PRIu64 " of %" PRIu64 " allocated", used, gpus);
    if (gpus > 0) {
        buf_append_str(out, " (");
        format_percent(out, used, gpus);
        buf_append_str(out, ")");
    }
    buf_append_str(out, "\n");
    append_counts(o, out, "jobs", json_object_get(status, "jobs"));
    page_label(out, "database");
    format_bytes(out, pick_count(status, "database_bytes"));
    buf_printf(out, ", newest event %" PRIu64 "\n", pick_count(status, "last_event"));
    if (pick_time(status, "scheduled_at", &scheduled_ms)) {
        page_label(out, "scheduler");
        buf_append_str(out, "last pass ");
        format_duration(out, now_ms - scheduled_ms);
        buf_append_str(out, " ago\n");
    }
}

int cmd_cluster_status(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__Empty request = DS__EMPTY__INIT;
    Ds__ClusterStatus *reply = NULL;
    TRY(session_call(&ctl->session, RPC_CLUSTER_STATUS, &request, &reply, err));
    return output_one(&ctl->output, out, output_json(reply, "ds/cluster-status/v1"), NULL,
                      status_page, err);
}
