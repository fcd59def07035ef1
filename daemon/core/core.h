/* The coordinator's decisions. Pure: no I/O, no clock, no randomness, no log; it may allocate.
 * Everything it knows is in struct core, which is a cache of the tables: rows the core changed are
 * listed, and the store writes them (store.h). */
#ifndef DAEMON_CORE_CORE_H
#define DAEMON_CORE_CORE_H

#include "daemon/core/effect.h"
#include "daemon/core/input.h"
#include "daemon/core/policy.h"

struct core;

struct core_config {
    char cluster[64];
    char checkpoint_dir[3072]; /* default root of checkpoints, on shared storage */
    int64_t heartbeat_ms;      /* 5000 */
    int64_t lease_ms;          /* 30000: a silent node is no longer trusted after this */
    int64_t recovering_ms;     /* 45000: after a start, how long missing workers are waited for */
    int64_t stop_grace_ms;     /* 10000: TERM to KILL */
    int64_t user_fault_ms;     /* 600000: a failure so early, before a checkpoint, is the user's */
    int64_t backoff_first_ms;  /* 10000, doubled for each fruitless restart up to the next */
    int64_t backoff_max_ms;    /* 600000 */
    struct policy policy;
};
void core_config_default(struct core_config *c);

struct core *core_create(const struct core_config *config);
void core_destroy(struct core *core);

/* The one door. Decides, changes the state, lists changed rows and effects. Never fails: a refusal
 * is a reply. */
void core_step(struct core *core, const struct input *in);

/* Where the checkpoints of a job lie, each attempt's in a folder of its own. root: the job's own
 * checkpoint.dir or NULL. Caller frees. */
char *core_ckpt_folder(const struct core *core, uint64_t job, int64_t submitted_ms,
                       const char *root);

/* When the core wants an INPUT_TICK: absolute ms, or INT64_MAX. */
int64_t core_deadline(const struct core *core);

/* What would happen to a job that is submitted now. */
enum core_plan_action { PLAN_START, PLAN_WAIT, PLAN_PREEMPT, PLAN_REFUSED };
struct core_plan {
    enum core_plan_action action;
    int64_t start_ms;     /* expected; INT64_MAX: cannot be said */
    int code;             /* of a refusal, ERR_* */
    char reason[32];      /* code of the wait */
    char text[1024];      /* the refusal, or the sentence that `job why` would say */
    uint32_t nodes;       /* of the gang, when it starts or a start is planned */
    uint32_t leaves;      /* leaf switches that they hang on */
    uint32_t crossings;   /* neighbours in rank order on different ones */
    uint64_t behind;      /* the job that goes first; 0: none */
    uint64_t victims[16]; /* jobs that would be made to stop, the first of them */
    uint32_t victim_count;
    char node_names[512]; /* a,b,c +17; "" when not known */
};
/* Changes nothing. The submit's key is not looked at. Checks what submitting checks. */
void core_plan_submit(struct core *core, const struct input_submit *submit, int64_t now_ms,
                      struct core_plan *plan);
/* When a waiting job is expected to start, with all that is ahead of it; INT64_MAX: cannot be said.
 * For one that waits for no place (held, not yet eligible) too. */
int64_t core_expected_start_ms(struct core *core, uint64_t job);

/* The same as the last pass has planned it: INT64_MAX also for a job that it had no need to plan.
 * Costs nothing. */
int64_t core_planned_start_ms(const struct core *core, uint64_t job);
/* What a user of an account has used, weighted by queue and faded until the last input. */
double core_used_gpu_ms(const struct core *core, const char *account, const char *user);

/* The canonical spec of a live job, and its model (NULL: none); NULL: it is not live. */
const char *core_job_spec(const struct core *core, uint64_t job, const char **model_json);
/* Why a job waits: code and sentence with counts, into text. False when it does not wait (or is not
 * live). */
bool core_why(const struct core *core, uint64_t job, char *code, size_t code_bytes, char *text,
              size_t text_bytes);
/* Whether (job, epoch) is the live attempt: for the rendezvous. */
bool core_epoch_is_live(const struct core *core, uint64_t job, uint64_t epoch);
/* The worker session that now holds `rank` of an attempt, or of the node where an ended one's logs
 * are; 0 when not connected. */
session_id core_session_of_node(const struct core *core, uint64_t node_id);

/* When this node last gave a sign of life, Unix ms; 0 for an unknown one. */
int64_t core_seen_ms(const struct core *core, uint64_t node_id);

uint64_t core_term(const struct core *core);
/* The time of the last input. */
int64_t core_now_ms(const struct core *core);
/* The last scheduling pass; 0 before the first. */
int64_t core_scheduled_ms(const struct core *core);
uint64_t core_last_event(const struct core *core);

/* A digest over all durable state in canonical order. Reload-equals-live is the equality of two of
 * these. */
uint64_t core_digest(const struct core *core);
/* Walks every invariant; returns NULL or a sentence (static buffer). */
const char *core_check(const struct core *core);

#endif
