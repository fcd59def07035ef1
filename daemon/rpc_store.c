/* The rendezvous on the wire. A rank of an epoch that is over learns it here, at the latest. */
#include <string.h>

#include "daemon/rpc.h"
#include "lib/mem.h"

static bool refuse_stale(struct call *call, uint64_t job, uint64_t epoch)
{
    if (core_epoch_is_live(call->dsd->core, job, epoch)) {
        return false;
    }
    call_fail(call, ERR_STALE, "attempt %llu of job %llu is over", (unsigned long long)epoch,
              (unsigned long long)job);
    return true;
}

void rpc_store_set(struct call *call, const ProtobufCMessage *request)
{
    const Ds__StoreSet *r = (const Ds__StoreSet *)request;
    if (refuse_stale(call, r->job, r->epoch)) {
        return;
    }
    struct err err = {0};
    int rc = rendezvous_set(call->dsd->rendezvous, r->job, r->epoch, r->key, r->value.data,
                            r->value.len, &err);
    call_outcome(call, rc, err.text);
}

static void answer(struct call *call, const void *value, size_t len)
{
    Ds__StoreValue m = DS__STORE_VALUE__INIT;
    m.value.data = (uint8_t *)value;
    m.value.len = len;
    call_reply(call, &m.base);
}

/* What a parked STORE_GET waits for. */
struct wanted {
    uint64_t job, epoch, waiter;
    char key[];
};

static void unhook(struct call *call)
{
    const struct wanted *w = call->data;
    if (w != NULL) {
        slotmap_remove(&call->dsd->store_waiters, w->waiter);
        rendezvous_forget(call->dsd->rendezvous, w->job, w->epoch, w->key, w->waiter);
    }
}

static void expired(struct call *call)
{
    const struct wanted *w = call->data;
    call_fail(call, ERR_TIMEOUT, "nobody set '%s' in time", w->key);
}

void rpc_store_answer(void *dsd, uint64_t waiter, int code, const void *value, size_t len)
{
    struct dsd *d = dsd;
    struct call *call = slotmap_find(&d->store_waiters, waiter);
    if (call == NULL) {
        return;
    }
    slotmap_remove(&d->store_waiters, waiter);
    call->unhook = NULL; /* the rendezvous has let go of it */
    if (code == 0) {
        answer(call, value, len);
    } else {
        const struct wanted *w = call->data;
        call_fail(call, code, "attempt %llu of job %llu is over", (unsigned long long)w->epoch,
                  (unsigned long long)w->job);
    }
}

void rpc_store_get(struct call *call, const ProtobufCMessage *request)
{
    const Ds__StoreGet *r = (const Ds__StoreGet *)request;
    struct dsd *d = call->dsd;
    if (refuse_stale(call, r->job, r->epoch)) {
        return;
    }
    size_t len;
    const void *value = rendezvous_get(d->rendezvous, r->job, r->epoch, r->key, &len);
    if (value != NULL) {
        answer(call, value, len);
        return;
    }
    if (!call_park(call, (int64_t)r->wait_ms, expired, unhook)) {
        return;
    }
    struct err err = {0};
    uint64_t waiter = slotmap_add(&d->store_waiters, call);
    int rc = rendezvous_wait(d->rendezvous, r->job, r->epoch, r->key, waiter, &err);
    if (rc != 0) {
        slotmap_remove(&d->store_waiters, waiter);
        call_fail(call, rc, "%s", err.text);
        return;
    }
    struct wanted *w = mem_alloc(sizeof *w + strlen(r->key) + 1);
    w->job = r->job;
    w->epoch = r->epoch;
    w->waiter = waiter;
    strcpy(w->key, r->key);
    call->data = w;
}
