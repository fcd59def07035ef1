#include "daemon/many.h"

#include <stdlib.h>

#include "lib/mem.h"

struct many *many_begin(struct call *call, size_t count, const char *what,
                        void (*finish)(struct many *m))
{
    if (count == 0 || count > MANY_MAX) {
        call_fail(call, ERR_INVALID, "the request names %zu %s (1 to %d at a time)", count, what,
                  MANY_MAX);
        return NULL;
    }
    struct many *m = mem_alloc(sizeof *m);
    m->call = call;
    m->count = m->left = count;
    m->items = mem_alloc_array(count, sizeof m->items[0]);
    m->finish = finish;
    call_busy(call);
    return m;
}

static void one_done(struct many *m)
{
    if (--m->left > 0) {
        return;
    }
    m->finish(m);
    for (size_t i = 0; i < m->count; i++) {
        free(m->items[i].name);
        free(m->items[i].text);
    }
    free(m->items);
    free(m);
}

static void on_effect(struct pending *p, const struct effect *reply)
{
    struct outcome *o = (struct outcome *)((char *)p - offsetof(struct outcome, pending));
    o->code = reply->u.reply.code;
    o->text = mem_strdup(reply->u.reply.text);
    one_done(o->many);
}

void many_input(struct many *m, size_t i, struct input *in)
{
    struct outcome *o = &m->items[i];
    o->many = m;
    o->pending.done = on_effect;
    dsd_input(m->call->dsd, in, &o->pending);
}

void many_refuse(struct many *m, size_t i, int code, const char *text)
{
    m->items[i].code = code;
    m->items[i].text = mem_strdup(text);
    one_done(m);
}

static char *text_of(const struct outcome *o)
{
    static char none[] = "";
    return o->text != NULL ? o->text : none;
}

void many_reply_ids(struct many *m)
{
    Ds__Outcome *items = mem_alloc_array(m->count, sizeof *items);
    Ds__Outcome **list = mem_alloc_array(m->count, sizeof *list);
    for (size_t i = 0; i < m->count; i++) {
        ds__outcome__init(&items[i]);
        items[i].id = m->items[i].id;
        items[i].code = m->items[i].code;
        items[i].text = text_of(&m->items[i]);
        list[i] = &items[i];
    }
    Ds__OutcomeList reply = DS__OUTCOME_LIST__INIT;
    reply.items = list;
    reply.n_items = m->count;
    call_reply(m->call, &reply.base);
    free(list);
    free(items);
}

void many_reply_names(struct many *m)
{
    Ds__NamedOutcome *items = mem_alloc_array(m->count, sizeof *items);
    Ds__NamedOutcome **list = mem_alloc_array(m->count, sizeof *list);
    for (size_t i = 0; i < m->count; i++) {
        ds__named_outcome__init(&items[i]);
        items[i].name = m->items[i].name;
        items[i].code = m->items[i].code;
        items[i].text = text_of(&m->items[i]);
        list[i] = &items[i];
    }
    Ds__NamedOutcomeList reply = DS__NAMED_OUTCOME_LIST__INIT;
    reply.items = list;
    reply.n_items = m->count;
    call_reply(m->call, &reply.base);
    free(list);
    free(items);
}
