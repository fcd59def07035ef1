/* Reads: the tables as the messages that people see. Each struct views is a read-only connection
 * with its own statements; it sees everything that was acknowledged. Not thread-safe: work on
 * another thread opens its own. Results are heap messages for rpc_free. */
#ifndef DAEMON_VIEWS_H
#define DAEMON_VIEWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/ds.pb-c.h"

struct views;

/* What the tables do not hold, because it dies with the process. */
struct views_live {
    void *world; /* borrowed */
    /* Whether the node's worker is connected; raises *seen_ms when it was heard since. */
    bool (*node)(void *world, uint64_t node_id, int64_t *seen_ms);
    /* Why a job waits (core_why). */
    bool (*why)(void *world, uint64_t job, char *code, size_t code_bytes, char *text,
                size_t text_bytes);
    /* When a waiting job is expected to start, as far as the last pass said; INT64_MAX. */
    int64_t (*planned)(void *world, uint64_t job);
    /* What a user of an account has used, faded until now. */
    double (*used_gpu_ms)(void *world, const char *account, const char *user);
};

/* live: copied; NULL: nothing is known. The database must exist. */
int views_open(struct views **views, const char *state_dir, const struct views_live *live,
               struct err *err);
void views_close(struct views *views); /* NULL is fine */
/* Reads up to so many rows of what a list would first have to read after a start. *more: there may
 * be more. */
int views_warm(struct views *v, size_t limit, bool *more, struct err *err);

/* now_ms: up to when running meters count. */
int views_job_list(struct views *v, const Ds__JobListRequest *request, int64_t now_ms,
                   Ds__JobList **out, struct err *err);
/* whole: with attempts, checkpoints, events and the spec. ERR_NOT_FOUND. */
int views_job(struct views *v, uint64_t id, bool whole, int64_t now_ms, Ds__Job **out,
              struct err *err);
/* Whether a job is COMPLETED, FAILED or CANCELLED. ERR_NOT_FOUND. */
int views_job_ended(struct views *v, uint64_t id, bool *ended, struct err *err);
/* What makes the folder of its checkpoints (core_ckpt_folder). *root: its own, or NULL; the caller
 * frees it. ERR_NOT_FOUND. */
int views_job_ckpt_root(struct views *v, uint64_t id, int64_t *submitted_ms, char **root,
                        struct err *err);
int views_job_reason(struct views *v, uint64_t id, Ds__Reason **out, struct err *err);
int views_metrics(struct views *v, const Ds__MetricRead *request, Ds__MetricList **out,
                  struct err *err);

/* Where the logs of a rank are. */
struct views_log_place {
    uint64_t epoch; /* in: 0 for the newest; out: the one found */
    uint64_t node_id;
    char node[256];
};
int views_log_place(struct views *v, uint64_t job, uint32_t rank, struct views_log_place *place,
                    struct err *err);

int views_node_list(struct views *v, const Ds__NodeListRequest *request, Ds__NodeList **out,
                    struct err *err);
int views_node(struct views *v, const char *name, Ds__Node **out, struct err *err);

int views_ckpt_list(struct views *v, const Ds__CkptListRequest *request, Ds__CkptList **out,
                    struct err *err);
/* whole: with its shards. */
int views_ckpt(struct views *v, uint64_t id, bool whole, Ds__Ckpt **out, struct err *err);
/* Whether its manifest is in place. */
int views_ckpt_published(struct views *v, uint64_t id, bool *published, struct err *err);

int views_cost(struct views *v, const Ds__CostReportRequest *request, int64_t now_ms,
               Ds__Cost **out, struct err *err);

int views_events(struct views *v, const Ds__EventListRequest *request, Ds__EventList **out,
                 struct err *err);
int views_queue_list(struct views *v, Ds__QueueList **out, struct err *err);
int views_queue(struct views *v, const char *name, Ds__Queue **out, struct err *err);
int views_account_list(struct views *v, Ds__AccountList **out, struct err *err);
int views_account(struct views *v, const char *name, Ds__Account **out, struct err *err);
/* all: expired ones, too. */
int views_quota_list(struct views *v, bool all, int64_t now_ms, Ds__QuotaList **out,
                     struct err *err);
/* all: those that are over, too. */
int views_reservation_list(struct views *v, bool all, Ds__ReservationList **out, struct err *err);
/* Without what only the process knows: cluster, version, term and times are the caller's to fill
 * in. */
int views_cluster(struct views *v, Ds__ClusterStatus **out, struct err *err);

#endif
