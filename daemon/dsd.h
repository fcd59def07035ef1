/* The running coordinator: everything the shell holds around the core. One thread; struct dsd is in
 * every callback's reach. */
#ifndef DAEMON_DSD_H
#define DAEMON_DSD_H

#include "daemon/config.h"
#include "daemon/conn.h"
#include "daemon/core/pump.h"
#include "daemon/listener.h"
#include "daemon/rendezvous.h"
#include "daemon/slotmap.h"
#include "daemon/store.h"
#include "daemon/views.h"

/* Buckets for calls that wait for a job. */
#define JOB_WAIT_BUCKETS 256

LIST_HEAD(call_list, call);

/* Somebody who waits for the core's answer to one input. */
struct pending {
    void (*done)(struct pending *p, const struct effect *reply);
};

struct dsd {
    const struct config *config; /* borrowed */
    uv_loop_t loop;
    uv_prepare_t prepare; /* both end a turn: before sleeping, and after the sockets were read */
    uv_check_t check;
    uv_idle_t warm;           /* after a start: sums up what was used */
    uv_thread_t check_thread; /* reads the whole database, where that takes long */
    uv_async_t checked;
    int check_code;
    struct err check_err;
    uv_timer_t core_timer;  /* core_deadline */
    uv_timer_t house_timer; /* once a second: connection deadlines, the WAL, the watchdog */
    uv_signal_t sigterm, sigint;

    struct store *store;
    struct core *core;
    struct pump *pump;
    struct views *views;
    struct rendezvous *rendezvous;

    struct conn_hub hub;
    struct listener local, tcp;
    struct slotmap pending;                       /* reply_token -> struct pending */
    struct slotmap sessions;                      /* session_id -> struct session */
    struct slotmap store_waiters;                 /* of the rendezvous -> struct call */
    struct call_list job_waits[JOB_WAIT_BUCKETS]; /* by job id */
    struct call_list event_waits;

    uint64_t term;
    uint64_t last_event;   /* newest event released */
    uint64_t logged_event; /* newest event in the log */
    int64_t started_ms;
    int64_t clock_base_ms; /* dsd_now_ms minus clock_boot_ms */
    bool clock_warned;
    bool stepped; /* the core got an input in this turn */
    size_t works; /* on other threads (work.h) */
    bool open, stopping;
};

/* Opens the store, loads the core, listens: in this order. On failure dsd_fini is still due. */
int dsd_init(struct dsd *d, const struct config *config, struct err *err);
/* Serves until SIGTERM, SIGINT or dsd_stop. */
void dsd_run(struct dsd *d);
void dsd_stop(struct dsd *d);
/* False when work on another thread goes on and still uses the memory: then leave with _exit. */
bool dsd_fini(struct dsd *d);

/* Unix time that never goes backwards and does not jump while the process lives. */
int64_t dsd_now_ms(const struct dsd *d);
/* Stamps the input and hands it to the pump. p: who waits for the reply; NULL: nobody. */
void dsd_input(struct dsd *d, struct input *in, struct pending *p);

/* The world side of the pump (effect_run.c). */
extern const struct effect_sink dsd_effects;

#endif
