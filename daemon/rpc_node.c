#include "daemon/many.h"
#include "daemon/rpc.h"
#include "lib/mem.h"

#define NODE_NAME_MAX 255

bool rpc_node_live(void *dsd, uint64_t node_id, int64_t *seen_ms)
{
    const struct dsd *d = dsd;
    int64_t at_ms = core_seen_ms(d->core, node_id);
    if (at_ms > *seen_ms) {
        *seen_ms = at_ms;
    }
    return core_session_of_node(d->core, node_id) != 0;
}

void rpc_node_list(struct call *call, const ProtobufCMessage *request)
{
    struct err err = {0};
    Ds__NodeList *list = NULL;
    int rc = views_node_list(call->dsd->views, (const Ds__NodeListRequest *)request, &list, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &list->has_scheduled_at, &list->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)list, &err);
}

void rpc_node_show(struct call *call, const ProtobufCMessage *request)
{
    struct err err = {0};
    Ds__Node *node = NULL;
    int rc = views_node(call->dsd->views, ((const Ds__NodeName *)request)->name, &node, &err);
    if (rc == 0) {
        rpc_scheduled(call->dsd, &node->has_scheduled_at, &node->scheduled_at);
    }
    call_answer(call, rc, (ProtobufCMessage *)node, &err);
}

static void change_all(struct call *call, char **names, size_t count, enum input_kind kind,
                       const char *reason)
{
    struct many *m = many_begin(call, count, "nodes", many_reply_names);
    for (size_t i = 0; m != NULL && i < count; i++) {
        struct err err = {0};
        m->items[i].name = mem_strdup(names[i]);
        if (rpc_check_name(names[i], NODE_NAME_MAX, "node", &err) != 0) {
            many_refuse(m, i, err.code, err.text);
            continue;
        }
        struct input in = {.kind = kind};
        in.u.node.name = names[i];
        in.u.node.user = call->peer->user;
        in.u.node.reason = reason;
        many_input(m, i, &in);
    }
}

void rpc_node_drain(struct call *call, const ProtobufCMessage *request)
{
    const Ds__NodeDrain *r = (const Ds__NodeDrain *)request;
    if (r->reason[0] == 0) {
        call_fail(call, ERR_INVALID, "a drain needs a reason (--reason)");
        return;
    }
    change_all(call, r->name, r->n_name, INPUT_NODE_DRAIN, r->reason);
}

void rpc_node_resume(struct call *call, const ProtobufCMessage *request)
{
    const Ds__NodeNames *r = (const Ds__NodeNames *)request;
    change_all(call, r->name, r->n_name, INPUT_NODE_RESUME, NULL);
}
