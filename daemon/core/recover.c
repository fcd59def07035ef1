#include "daemon/core/recover.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"

enum {
    SIGNAL_ILL = 4,
    SIGNAL_ABRT = 6,
    SIGNAL_BUS = 7,
    SIGNAL_FPE = 8,
    SIGNAL_KILL = 9,
    SIGNAL_SEGV = 11,
    SIGNAL_TERM = 15,
};
enum { /* contract, section 4 */
       EXIT_TRANSIENT = 75,
       EXIT_PREEMPTED = 80,
       EXIT_SILENT_CORRUPTION = 81,
       EXIT_NUMERIC = 82,
       EXIT_CHECKPOINT_INVALID = 83,
       EXIT_FENCED = 84,
       EXIT_COLLECTIVE = 85,
       EXIT_STORAGE = 86,
       EXIT_NO_REQUEUE = 93,
};

static const char *signal_name(int64_t signal)
{
    static const char *const names[] = {
        [1] = "HUP",
        [2] = "INT",
        [3] = "QUIT",
        [SIGNAL_ILL] = "ILL",
        [SIGNAL_ABRT] = "ABRT",
        [SIGNAL_BUS] = "BUS",
        [SIGNAL_FPE] = "FPE",
        [SIGNAL_KILL] = "KILL",
        [SIGNAL_SEGV] = "SEGV",
        [13] = "PIPE",
        [SIGNAL_TERM] = "TERM",
    };
    size_t count = sizeof names / sizeof names[0];
    return signal > 0 && (size_t)signal < count && names[signal] != NULL ? names[signal] : "?";
}

void exit_text(const struct rank_exit_row *row, char *text, size_t text_bytes)
{
    if (row->signal != 0) {
        snprintf(text, text_bytes, "was killed by signal %" PRId64 " (%s)", row->signal,
                 signal_name(row->signal));
    } else if (row->code < 0) {
        snprintf(text, text_bytes, "ended in an unknown way");
    } else {
        snprintf(text, text_bytes, "exited with status %" PRId64, row->code);
    }
}

/* How much an exit explains: a rank whose collective broke only tells that another one is gone, and
 * one that was killed after the attempt began to fail was killed by us. */
static int weight(const struct attempt *attempt, const struct rank_exit_row *row)
{
    if (row->code == 0 && row->signal == 0) {
        return 0;
    }
    bool unknown = row->code < 0 && row->signal == 0;
    bool ours = attempt->row.failing_ms != ROW_NONE && row->at_ms > attempt->row.failing_ms &&
                (unknown || row->signal == SIGNAL_TERM || row->signal == SIGNAL_KILL);
    if (ours) {
        return 1;
    }
    return row->code == EXIT_COLLECTIVE ? 2 : 3;
}

/* The exit that explains most; among those the first, then the lowest rank. NULL when no rank
 * failed. */
static const struct rank_exit_row *root_cause(const struct attempt *attempt)
{
    const struct rank_exit_row *best = NULL;
    int best_weight = 0;
    for (uint32_t i = 0; i < attempt->world_size; i++) {
        if (!attempt->exits[i].known) {
            continue;
        }
        const struct rank_exit_row *row = &attempt->exits[i].row;
        int w = weight(attempt, row);
        if (w > best_weight || (w > 0 && w == best_weight && row->at_ms < best->at_ms)) {
            best = row;
            best_weight = w;
        }
    }
    return best;
}

static void set(struct verdict *v, enum verdict_action action, const char *cause, const char *class)
{
    v->action = action;
    v->cause = cause;
    v->class = class;
}

static const char *usage_class(int64_t code)
{
    switch (code) {
    case 64:
        return "usage";
    case 65:
    case 66:
        return "data";
    case 78:
        return "config";
    default:
        return "environment"; /* 67-74, 76, 77: a user, host, service, file or permission is not
                                 there */
    }
}

/* Neither the program nor sysexits say what it was. */
static void judge_unexplained(const struct core *core, const struct job *job, struct verdict *v)
{
    const struct attempt_row *attempt = &job->attempt->row;
    int64_t failing_ms = attempt->failing_ms != ROW_NONE ? attempt->failing_ms : core->now_ms;
    bool early = failing_ms - attempt->started_ms < core->config.user_fault_ms;
    if (early && job->row.ckpt_id == 0) {
        set(v, VERDICT_FAIL, "rank_failed", "user_startup");
    } else {
        set(v, VERDICT_RETRY, "rank_failed", "unknown");
    }
}

static void judge_signal(const struct core *core, const struct job *job, int64_t signal,
                         struct verdict *v)
{
    switch (signal) {
    case SIGNAL_ILL:
    case SIGNAL_ABRT:
    case SIGNAL_BUS:
    case SIGNAL_FPE:
    case SIGNAL_SEGV:
        judge_unexplained(core, job, v);
        return;
    default:
        set(v, VERDICT_RETRY, "rank_killed", "transient");
    }
}

static void judge_code(const struct core *core, const struct job *job, int64_t code,
                       struct verdict *v)
{
    const struct ckpt *newest = ckpt_newest_of_epoch(job, job->attempt->row.epoch);
    switch (code) {
    case -1: /* unknown */
    case EXIT_TRANSIENT:
        set(v, VERDICT_RETRY, "rank_failed", "transient");
        return;
    case EXIT_PREEMPTED:
        /* One that saved nothing is counted: else a program that only ever does this would go on
         * for good. */
        set(v, VERDICT_RETRY, "preempted", "preempted");
        v->counts = newest == NULL;
        return;
    case EXIT_SILENT_CORRUPTION:
        set(v, VERDICT_RETRY, "rank_failed", "silent_corruption");
        return;
    case EXIT_NUMERIC:
        set(v, VERDICT_HOLD, "rank_failed", "numeric");
        return;
    case EXIT_CHECKPOINT_INVALID:
        set(v, VERDICT_RETRY, "checkpoint_invalid", "checkpoint");
        v->resume_is_corrupt = true;
        return;
    case EXIT_FENCED:
        set(v, VERDICT_RETRY, "fenced", "fenced");
        return;
    case EXIT_COLLECTIVE:
        set(v, VERDICT_RETRY, "rank_failed", "collective");
        return;
    case EXIT_STORAGE:
        set(v, VERDICT_HOLD, "rank_failed", "storage");
        return;
    case EXIT_NO_REQUEUE:
        set(v, VERDICT_FAIL, "rank_failed", "no_requeue");
        return;
    default:
        if (code >= 64 && code <= 78) {
            set(v, VERDICT_FAIL, "rank_failed", usage_class(code));
        } else {
            judge_unexplained(core, job, v);
        }
    }
}

/* Appends the last line that a rank wrote: that is where programs say what is wrong. */
static void append_last_words(struct verdict *v, const char *words)
{
    if (words == NULL) {
        return;
    }
    size_t used = strlen(v->text);
    size_t room = sizeof v->text - used - 3;
    size_t len = strlen(words);
    while (len > 0 && (unsigned char)words[len - 1] <= ' ') {
        len--;
    }
    size_t start = len;
    while (start > 0 && words[start - 1] != '\n') {
        start--;
    }
    if (len - start > room) {
        start = len - room;
        while (start < len && ((unsigned char)words[start] & 0xc0) == 0x80) {
            start++; /* not in the middle of a character */
        }
    }
    if (start == len) {
        return;
    }
    v->text[used++] = ':';
    v->text[used++] = ' ';
    for (size_t i = start; i < len; i++) {
        bool is_control = (unsigned char)words[i] < 0x20 || words[i] == 0x7f;
        v->text[used++] = is_control ? ' ' : words[i];
    }
    v->text[used] = 0;
}

static const struct attempt_node *first_with_error(const struct attempt *attempt, enum phase phase)
{
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        if (attempt->nodes[i].row.phase == phase && attempt->nodes[i].row.error != NULL) {
            return &attempt->nodes[i];
        }
    }
    return NULL;
}

/* The root cause is a rank; or it is what made the coordinator stop the attempt, a lost node or one
 * that could not start. */
static void judge(const struct core *core, const struct job *job, struct verdict *v)
{
    const struct attempt *attempt = job->attempt;
    const struct rank_exit_row *root = root_cause(attempt);
    const char *cause = attempt->row.cause != NULL ? attempt->row.cause : "";
    bool node_lost = strcmp(cause, "node_lost") == 0;
    if (node_lost || strcmp(cause, "start_failed") == 0) {
        const struct attempt_node *an =
            first_with_error(attempt, node_lost ? PHASE_LOST : PHASE_ENDED);
        set(v, VERDICT_RETRY, node_lost ? "node_lost" : "start_failed",
            node_lost ? "node_lost" : "start_failed");
        snprintf(
            v->text, sizeof v->text, "node %.80s %s: %.600s", an != NULL ? an->node->row.name : "?",
            node_lost ? "was lost" : "could not start its ranks", an != NULL ? an->row.error : "?");
        return;
    }
    if (root == NULL) {
        const struct attempt_node *an = first_with_error(attempt, PHASE_LOST);
        set(v, VERDICT_RETRY, an != NULL ? "node_lost" : "unknown",
            an != NULL ? "node_lost" : "unknown");
        snprintf(v->text, sizeof v->text, "no rank said why it ended");
        return;
    }
    v->exit_code = root->signal == 0 && root->code >= 0 ? root->code : ROW_NONE;
    v->exit_signal = root->signal != 0 ? root->signal : ROW_NONE;
    if (root->signal != 0) {
        judge_signal(core, job, root->signal, v);
    } else {
        judge_code(core, job, root->code, v);
    }
    char how[64];
    exit_text(root, how, sizeof how);
    uint64_t per_node = attempt->world_size / attempt->node_count;
    const struct attempt_node *an = &attempt->nodes[(uint64_t)root->rank / per_node];
    snprintf(v->text, sizeof v->text, "rank %" PRId64 " on %.80s %s", root->rank,
             an->node->row.name, how);
    append_last_words(v, root->last_words);
}

/* The guard has said what is to become of it, whatever the exits look like. Its ladder ends by
 * itself, so its restarts cost no budget; but corruption does: it may come back for ever. */
static bool judge_guard(const struct job *job, struct verdict *v)
{
    static const struct {
        const char *guard, *cause, *class;
        enum verdict_action action;
        bool counts;
    } rules[] = {
        {"replay", "guard_replay", "guard", VERDICT_RETRY, false},
        {"rollback", "guard_rollback", "guard", VERDICT_RETRY, false},
        {"lower", "guard_lower", "guard", VERDICT_RETRY, false},
        {"hold", "guard_hold", "numeric", VERDICT_HOLD, false},
        {"corrupt", "guard_corrupt", "silent_corruption", VERDICT_RETRY, true},
    };
    const struct attempt_row *row = &job->attempt->row;
    for (size_t i = 0; row->guard != NULL && i < sizeof rules / sizeof rules[0]; i++) {
        if (strcmp(rules[i].guard, row->guard) == 0) {
            const struct rank_exit_row *root = root_cause(job->attempt);
            set(v, rules[i].action, rules[i].cause, rules[i].class);
            v->counts = rules[i].counts;
            v->exit_code =
                root != NULL && root->signal == 0 && root->code >= 0 ? root->code : ROW_NONE;
            v->exit_signal = root != NULL && root->signal != 0 ? root->signal : ROW_NONE;
            bool rung = rules[i].action == VERDICT_RETRY && !rules[i].counts;
            bool hold = rules[i].action == VERDICT_HOLD;
            snprintf(v->text, sizeof v->text, "the guard's decision is %s%s%.800s", row->guard,
                     rung ? "" : ": ", rung ? "" : row->guard_text);
            size_t used = strlen(v->text);
            if (hold) {
                snprintf(v->text + used, sizeof v->text - used,
                         "; dsctl job show %" PRIu64 " tells what was tried", job->row.id);
            }
            return true;
        }
    }
    return false;
}

static void apply_budget(const struct core *core, const struct job *job, struct verdict *v)
{
    if (v->action != VERDICT_RETRY || !v->counts) {
        return;
    }
#ifdef MUTANT_restart_unbounded
    return;
#endif
    if (job->row.fruitless >= job->row.restart_max) {
        char text[sizeof v->text];
        memcpy(text, v->text, sizeof text);
        if (job->row.restart_max == 0) {
            snprintf(v->text, sizeof v->text, "not started again (restart.max is 0): %.900s", text);
        } else {
            snprintf(v->text, sizeof v->text,
                     "no newer checkpoint in %" PRId64 " restarts (restart.max); at last %.900s",
                     job->row.fruitless, text);
        }
        v->action = VERDICT_FAIL;
        v->class = "no_progress";
        return;
    }
    if (job->row.fruitless == 0) {
        return;
    }
    int64_t delay_ms = core->config.backoff_first_ms;
    for (int64_t i = 1; i < job->row.fruitless && delay_ms < core->config.backoff_max_ms; i++) {
        delay_ms *= 2;
    }
    v->delay_ms = delay_ms < core->config.backoff_max_ms ? delay_ms : core->config.backoff_max_ms;
}

void recover_decide(const struct core *core, const struct job *job, struct verdict *verdict)
{
    *verdict = (struct verdict){
        .counts = true, .class = "", .exit_code = ROW_NONE, .exit_signal = ROW_NONE};
    if (attempt_succeeded(job->attempt)) {
        set(verdict, VERDICT_COMPLETE, "completed", "");
        verdict->exit_code = 0;
        return;
    }
    if (!judge_guard(job, verdict)) {
        judge(core, job, verdict);
    }
    apply_budget(core, job, verdict);
}
