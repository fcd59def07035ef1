/* maint create, list, cancel */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/cells.h"
#include "ctl/cmd.h"
#include "ctl/outcome.h"
#include "ctl/when.h"
#include "lib/clock.h"
#include "lib/hostlist.h"
#include "lib/mem.h"

static const struct column maint_columns[] = {
    {"ID", "id", COLUMN_RIGHT, NULL, NULL},
    {"KIND", "kind", 0, NULL, NULL},
    {"STATE", "state", COLUMN_STATE, NULL, NULL},
    {"NODES", "nodes", COLUMN_LONG, cell_nodes, NULL},
    {"START", "start_at", 0, cell_time, NULL},
    {"END", "end_at", 0, cell_time, NULL},
    {"USER", "user", COLUMN_SPARE, NULL, NULL},
    {"ACCOUNT", "account", COLUMN_SPARE, NULL, NULL},
    {"BY", "by", COLUMN_WIDE, NULL, NULL},
    {"CREATED", "created_at", COLUMN_WIDE, cell_time, NULL},
    {"ENDED", "ended_at", COLUMN_WIDE, cell_time, NULL},
    {"REASON", "reason", 0, NULL, NULL},
};
static const struct listing maint_listing = LISTING("maint", "id", maint_columns);

int cmd_maint_list(struct ctl *ctl, struct buf *out, struct err *err)
{
    Ds__MaintListRequest request = DS__MAINT_LIST_REQUEST__INIT;
    Ds__ReservationList *reply = NULL;
    request.has_all = 1;
    request.all = args_has(&ctl->args, "all");
    TRY(session_call(&ctl->session, RPC_MAINT_LIST, &request, &reply, err));
    return output_list(&ctl->output, out, output_json(reply, "ds/maint-list/v1"), &maint_listing,
                       err);
}

/* ---- create */

static int missing(const char *option, const char *example, struct err *err)
{
    return err_set(err, ERR_USAGE, "maint create: --%s is missing (add --%s %s)", option, option,
                   example);
}

static int read_window(const struct args *a, Ds__MaintCreate *request, struct err *err)
{
    int64_t length_ms = 0;
    const char *start = args_get(a, "start");
    request->nodes = (char *)(uintptr_t)args_get(a, "nodes");
    request->reason = (char *)(uintptr_t)args_get(a, "reason");
    request->user = (char *)(uintptr_t)args_get(a, "user");
    request->account = (char *)(uintptr_t)args_get(a, "account");
    if (request->nodes == NULL) {
        return missing("nodes", "'gpu[001-032]'", err);
    }
    if (start == NULL) {
        return missing("start", "'2026-12-01 08:00'", err);
    }
    if (!args_has(a, "duration")) {
        return missing("duration", "2h", err);
    }
    if (request->reason == NULL || request->reason[strspn(request->reason, " \t")] == 0) {
        return missing("reason", "'what is done there'", err);
    }
    TRY(args_duration(a, "duration", &length_ms, err));
    if (when_parse(start, clock_wall_ms(), &request->start_at, err) != 0) {
        return err_wrap(err, "--start");
    }
    if (length_ms > INT64_MAX - request->start_at) {
        return err_set(err, ERR_USAGE, "--duration %s: too long", args_get(a, "duration"));
    }
    request->end_at = request->start_at + length_ms;
    struct hostlist names = {0};
    int rc = hostlist_expand(&names, request->nodes, err);
    hostlist_fini(&names);
    return rc;
}

int cmd_maint_create(struct ctl *ctl, struct err *err)
{
    Ds__MaintCreate request = DS__MAINT_CREATE__INIT;
    Ds__MaintId *reply = NULL;
    struct buf line = {0};
    TRY(read_window(&ctl->args, &request, err));
    TRY(session_call(&ctl->session, RPC_MAINT_CREATE, &request, &reply, err));
    uint64_t id = reply->id;
    json_t *object = output_json(reply, "ds/maint-create/v1");
    if (ctl->output.format == OUTPUT_NAME) {
        buf_printf(&line, "maint/%" PRIu64 "\n", id);
    } else if (ctl->output.format == OUTPUT_CSV) {
        buf_printf(&line, "%s%" PRIu64 "\n", ctl->output.no_header ? "" : "id\n", id);
    } else if (!output_object(&ctl->output, &line, object)) {
        bool is_maint = request.user == NULL && request.account == NULL;
        buf_printf(&line, "planned %s %" PRIu64 "\n", is_maint ? "maintenance" : "reservation", id);
    }
    json_decref(object);
    return ctl_write(ctl, &line, err);
}

/* ---- cancel */

int cmd_maint_cancel(struct ctl *ctl, struct err *err)
{
    static const struct deed deed = {"maint", "id", "cancelled", "cancel"};
    Ds__MaintIds request = DS__MAINT_IDS__INIT;
    Ds__OutcomeList *reply = NULL;
    int rc = 0;
    request.id = mem_alloc_array(ctl->args.word_count, sizeof *request.id);
    for (size_t i = 0; i < ctl->args.word_count; i++) {
        TRY_GOTO(args_id(ctl->args.words[i], "maint", &request.id[request.n_id++], err), done);
    }
    TRY_GOTO(session_call(&ctl->session, RPC_MAINT_CANCEL, &request, &reply, err), done);
    rc = outcome_report(ctl, &deed, output_json(reply, "ds/outcome-list/v1"), err);
done:
    free(request.id);
    return rc;
}
