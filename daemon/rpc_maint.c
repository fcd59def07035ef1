/* MAINT_*: maintenance windows, and nodes set aside for somebody's jobs. */
#include <string.h>

#include "daemon/many.h"
#include "daemon/rpc.h"

#define NODES_BYTES_MAX  65536u
#define REASON_BYTES_MAX 1000u
#define NAME_BYTES_MAX   63

void rpc_maint_list(struct call *call, const ProtobufCMessage *request)
{
    const Ds__MaintListRequest *r = (const Ds__MaintListRequest *)request;
    struct err err = {0};
    Ds__ReservationList *list = NULL;
    int rc = views_reservation_list(call->dsd->views, r->has_all && r->all, &list, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &list->has_scheduled_at, &list->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

static void on_created(struct call *call, const struct effect *reply)
{
    if (reply->u.reply.code != 0) {
        call_fail(call, reply->u.reply.code, "%s", reply->u.reply.text);
        return;
    }
    Ds__MaintId m = DS__MAINT_ID__INIT;
    m.id = reply->u.reply.id;
    call_reply(call, &m.base);
}

void rpc_maint_create(struct call *call, const ProtobufCMessage *request)
{
    const Ds__MaintCreate *r = (const Ds__MaintCreate *)request;
    if (r->reason[0] == 0 || strlen(r->reason) > REASON_BYTES_MAX) {
        call_fail(call, ERR_INVALID, "it needs a reason of 1 to %u bytes (--reason)",
                  REASON_BYTES_MAX);
        return;
    }
    if (strlen(r->nodes) > NODES_BYTES_MAX || r->start_at < 0 || r->end_at < 0) {
        call_fail(call, ERR_INVALID,
                  "the nodes take over %u bytes, or a time is before 1970 (name them as in "
                  "gpu[001-032])",
                  NODES_BYTES_MAX);
        return;
    }
    struct err err = {0};
    if ((r->user != NULL && rpc_check_name(r->user, NAME_BYTES_MAX, "user", &err) != 0) ||
        (r->account != NULL && rpc_check_name(r->account, NAME_BYTES_MAX, "account", &err) != 0)) {
        call_fail(call, err.code, "%s", err.text);
        return;
    }
    struct input in = {.kind = INPUT_RESERVATION_CREATE};
    in.u.reservation.is_maint = r->user == NULL && r->account == NULL;
    in.u.reservation.nodes = r->nodes;
    in.u.reservation.user = r->user;
    in.u.reservation.account = r->account;
    in.u.reservation.reason = r->reason;
    in.u.reservation.by_user = call->peer->user;
    in.u.reservation.start_ms = r->start_at;
    in.u.reservation.end_ms = r->end_at;
    call_commit(call, &in, on_created);
}

void rpc_maint_cancel(struct call *call, const ProtobufCMessage *request)
{
    const Ds__MaintIds *r = (const Ds__MaintIds *)request;
    struct many *m = many_begin(call, r->n_id, "windows", many_reply_ids);
    for (size_t i = 0; m != NULL && i < r->n_id; i++) {
        m->items[i].id = r->id[i];
        struct input in = {.kind = INPUT_RESERVATION_CANCEL};
        in.u.reservation.id = r->id[i];
        in.u.reservation.by_user = call->peer->user;
        many_input(m, i, &in);
    }
}
