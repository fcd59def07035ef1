/* One request about many things: an input for each, the outcomes collected into one answer. */
#ifndef DAEMON_MANY_H
#define DAEMON_MANY_H

#include "daemon/call.h"

#define MANY_MAX 10000

struct many {
    struct call *call; /* borrowed */
    size_t count, left;
    struct outcome *items; /* owned */
    void (*finish)(struct many *m);
};
struct outcome {
    struct pending pending;
    struct many *many;
    uint64_t id;
    char *name; /* owned; or NULL */
    int code;
    char *text; /* owned */
};

/* Fails the call and returns NULL when count is 0 or over MANY_MAX. finish answers the call. */
struct many *many_begin(struct call *call, size_t count, const char *what,
                        void (*finish)(struct many *m));
/* The outcome of item i comes from the core, or is known already. Each item once. */
void many_input(struct many *m, size_t i, struct input *in);
void many_refuse(struct many *m, size_t i, int code, const char *text);

/* finish for items with ids, and for items with names. */
void many_reply_ids(struct many *m);
void many_reply_names(struct many *m);

#endif
