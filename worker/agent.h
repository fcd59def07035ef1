/* What this worker knows of its attempts, and what follows from it. Pure: no I/O, no clock; it may
 * allocate. The shell tells it what happened (agent_order_*, agent_shim, ...) and then carries out
 * what agent_next hands out, until there is nothing more.
 *
 * An attempt is known by (job, epoch) and goes one way:
 *
 *   PERSISTING -> WAITING -> LAUNCHING -> RUNNING -> ENDED -> forgotten
 *
 * WAITING lasts while an older epoch of the same job still has processes here. What the coordinator
 * is told is cumulative, so a report sent twice changes nothing; at most one report an attempt is
 * under way, and what changed meanwhile goes into the next one. An end that no shim has written
 * down is made durable first. A rank's exit is told only after everything that the rank said before
 * it has been acknowledged, and the end only after all exits.
 */
#ifndef WORKER_AGENT_H
#define WORKER_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct agent;

enum agent_stage {
    AGENT_PERSISTING, /* the order is being written */
    AGENT_WAITING,
    AGENT_LAUNCHING, /* its shim is being started, or looked for after a restart of the worker */
    AGENT_RUNNING,   /* the ranks run */
    AGENT_ENDED,     /* no process is left */
};

struct agent_exit {
    bool known;
    int32_t code;   /* exit status; -1: killed by a signal or unknown */
    int32_t signal; /* 0 when it exited */
    int64_t at_ms;
    char *last_words; /* owned, or NULL */
};

struct agent_attempt {
    uint64_t job, epoch;
    uint32_t rank_first, rank_count;
    enum agent_stage stage;
    struct agent_exit *exits;           /* owned, rank_count items */
    char *error;                        /* owned; why it could not be started */
    char *stuck;                        /* owned; processes that KILL does not end */
    int64_t started_at_ms, ended_at_ms; /* 0: not yet */
    bool stop_wanted;
    uint64_t stop_grace_ms;
    char *stop_reason; /* owned */
    void *shell;       /* the shell's own */
    /* the agent's own */
    uint64_t start_token; /* of the start order, until it is answered */
    bool accepted;        /* the order is durable, or needs no durability */
    bool news;            /* exits not yet part of a version */
    bool recorded;        /* the end is durable */
    bool forget_wanted;
    bool removing;
    uint32_t *
        busy; /* owned, rank_count items: open connections and unacknowledged reports of the rank */
    uint64_t version; /* of what there is to tell; 0: nothing yet */
    uint64_t sent, acked;
};

enum agent_act {
    AGENT_PERSIST, /* write the order durably, then agent_persisted */
    AGENT_LAUNCH,  /* start the shim; then agent_launch_failed, or agent_shim with what it says */
    AGENT_STOP, /* tell the shim (now or as soon as it can be reached) and the ranks; stop_* say how
                 */
    AGENT_RECORD, /* write the end durably, as a shim would have; then agent_recorded */
    AGENT_REPORT, /* send what may be told; then agent_acked(version) */
    AGENT_REMOVE, /* delete its folder, then agent_removed */
    AGENT_ANSWER, /* answer order `token` with code (0: success) and text */
};
struct agent_action {
    enum agent_act act;
    struct agent_attempt *attempt; /* NULL for an answer */
    uint64_t version;              /* REPORT */
    uint64_t token;                /* ANSWER */
    int code;
    char text[256];
};

struct agent *agent_create(void);
void agent_destroy(struct agent *agent);
/* The next thing to do, oldest first. False: nothing. */
bool agent_next(struct agent *agent, struct agent_action *action);

struct agent_attempt *agent_find(struct agent *agent, uint64_t job, uint64_t epoch);
bool agent_has_rank(const struct agent_attempt *a, uint32_t rank); /* global number */
size_t agent_count(const struct agent *agent);
struct agent_attempt *agent_at(struct agent *agent, size_t i); /* in the order they came */

/* Orders. Each is answered exactly once, with `token`. A start returns the attempt when it is new,
 * so that the shell can attach what it needs, else NULL. */
struct agent_attempt *agent_order_start(struct agent *agent, uint64_t token, uint64_t job,
                                        uint64_t epoch, uint32_t rank_first, uint32_t rank_count);
void agent_order_stop(struct agent *agent, uint64_t token, uint64_t job, uint64_t epoch,
                      uint64_t grace_ms, const char *reason);
void agent_order_forget(struct agent *agent, uint64_t token, uint64_t job, uint64_t epoch);
/* Stops all attempts, as if ordered. */
void agent_stop_all(struct agent *agent, uint64_t grace_ms, const char *reason);

/* What happened. code: 0 or why the order could not be written. */
void agent_persisted(struct agent *agent, struct agent_attempt *a, int code, const char *text);
void agent_launch_failed(struct agent *agent, struct agent_attempt *a, const char *text,
                         int64_t now_ms);
/* An attempt found on disk after a restart, its processes not yet looked for: LAUNCHING. */
struct agent_attempt *agent_adopt(struct agent *agent, uint64_t job, uint64_t epoch,
                                  uint32_t rank_first, uint32_t rank_count);
/* It was accepted and nothing was started yet: start it. */
void agent_launch_adopted(struct agent *agent, struct agent_attempt *a);
/* The shim's word. exits: of the ranks known so far, by global rank number. */
struct agent_shim_word {
    bool started, ended;
    int64_t started_at_ms, ended_at_ms;
    const char *error, *stuck; /* or NULL */
};
void agent_shim(struct agent *agent, struct agent_attempt *a, const struct agent_shim_word *word);
/* Before agent_shim. True when it is news; ranks that are not the attempt's, and second exits of a
 * rank, are ignored. */
bool agent_shim_exit(struct agent_attempt *a, uint32_t rank, int32_t code, int32_t signal,
                     int64_t at_ms, const char *last_words);
/* The shim is gone without having said that all ended, and so are all processes of the attempt:
 * exits that nobody saw are unknown. */
void agent_shim_lost(struct agent *agent, struct agent_attempt *a, const char *why, int64_t now_ms);
void agent_recorded(struct agent *agent, struct agent_attempt *a);
void agent_removed(struct agent *agent, struct agent_attempt *a);
/* A rank has something under way (+1), or no longer has (-1): a connection, a report not yet
 * acknowledged. */
void agent_rank_busy(struct agent *agent, struct agent_attempt *a, uint32_t rank, int delta);

/* The link. registering: everything there is to tell travels in the registration; the shell builds
 * it with agent_report_of of every attempt. registered: it was accepted. Reports are handed out
 * only between registered and lost. */
void agent_registering(struct agent *agent);
void agent_registered(struct agent *agent);
void agent_link_lost(struct agent *agent);
void agent_acked(struct agent *agent, struct agent_attempt *a, uint64_t version);

/* What may be told now. */
uint32_t agent_phase(
    const struct agent_attempt *a); /* 1 accepted, 2 started, 3 ended; 0: nothing to tell */
bool agent_exit_is_told(const struct agent_attempt *a, uint32_t local_rank);

#endif
