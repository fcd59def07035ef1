#include "trainer/run_facts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/manifest.h"
#include "proto/pick.h"
#include "report/lines.h"
#include "trainer/attempt_log.h"

/* ---- small things */

static void set(json_t *facts, const char *key, json_t *value)
{
    json_object_set_new(facts, key, value);
}

static void set_time(json_t *facts, const char *key, int64_t ms)
{
    char text[CLOCK_TEXT_BYTES];
    clock_format_utc(ms, text);
    set(facts, key, json_string(text));
}

/* NULL when it is missing or none. */
static json_t *load(const char *path)
{
    json_t *object = json_load_file(path, 0, NULL);
    if (object != NULL && !json_is_object(object)) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static bool is_locked(const char *run_dir)
{
    char *path = mem_printf("%s/lock", run_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0) {
        close(fd);
    }
    free(path);
    return locked;
}

/* ---- checkpoints */

static char *ckpt_root(const char *run_dir, const json_t *spec)
{
    const char *dir = pick_text(spec, "checkpoint.dir");
    return dir[0] != 0 ? mem_printf("%s/%s", dir, pick_text(spec, "name"))
                       : mem_printf("%s/checkpoints", run_dir);
}

struct found {
    json_t *list;
    json_t *layout; /* of the newest */
    int64_t newest_ms;
};

static void take_ckpt(struct found *f, const char *path)
{
    struct manifest m = {0};
    struct stat st = {0};
    char *file = mem_printf("%s/%s", path, MANIFEST_FILE);
    if (stat(file, &st) == 0 && manifest_read(&m, path, NULL) == 0) {
        int64_t at_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < m.world_size; i++) {
            bytes += m.shards[i].bytes;
        }
        json_t *c = json_pack("{s:I,s:I,s:s,s:I,s:I,s:s*}", "step", (json_int_t)m.step, "epoch",
                              (json_int_t)m.epoch, "state", "COMMITTED", "bytes", (json_int_t)bytes,
                              "shards", (json_int_t)m.world_size, "path", path);
        if (c != NULL) {
            set_time(c, "committed_at", at_ms);
            json_array_append_new(f->list, c);
        }
        if (f->layout == NULL || at_ms >= f->newest_ms) {
            json_decref(f->layout);
            f->layout = json_loads(m.layout, 0, NULL);
            f->newest_ms = at_ms;
        }
    }
    manifest_fini(&m);
    free(file);
}

static void each(const char *folder, void (*found)(struct found *, const char *), struct found *f)
{
    struct dirent **names = NULL;
    int count = scandir(folder, &names, NULL, versionsort);
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.') {
            char *path = mem_printf("%s/%s", folder, names[i]->d_name);
            found(f, path);
            free(path);
        }
        free(names[i]);
    }
    free(names);
}

static void take_epoch(struct found *f, const char *path)
{
    each(path, take_ckpt, f);
}

static void add_checkpoints(json_t *facts, const char *root)
{
    struct found f = {.list = json_array()};
    each(root, take_epoch, &f);
    set(facts, "checkpoints", f.list);
    if (f.layout != NULL) {
        set(facts, "layout", f.layout);
    }
}

/* ---- attempts */

/* Without a log of them, as from before there was one: what the steps tell. */
static json_t *attempts_of(const struct metrics *m)
{
    json_t *attempts = json_array();
    for (size_t i = m->epoch_count; i-- > 0;) {
        json_array_append_new(attempts,
                              json_pack("{s:I}", "epoch", (json_int_t)m->epochs[i].epoch));
    }
    return attempts;
}

static void complete_attempts(json_t *attempts, const struct metrics *m)
{
    for (size_t i = 0; i < json_array_size(attempts); i++) {
        json_t *a = json_array_get(attempts, i);
        const struct metrics_epoch *e = metrics_epoch(m, pick_count(a, "epoch"));
        set(a, "attempt", json_integer((json_int_t)i + 1));
        if (e != NULL) {
            set(a, "first_step", json_integer((json_int_t)e->first_step));
            set(a, "last_step", json_integer((json_int_t)e->last_step));
            set(a, "lost_steps", json_integer((json_int_t)e->lost_steps));
        }
        if (pick(a, "started_at") != NULL && pick(a, "ended_at") == NULL &&
            i + 1 < json_array_size(attempts)) {
            set(a, "cause", json_string("it ended without a word: killed, or the machine was"));
        }
    }
}

static const char *state_of(int64_t status)
{
    switch (status) {
    case 0:
        return "COMPLETED";
    case 80:
        return "SUSPENDED";
    case 81:
    case 82:
        return "HELD";
    default:
        return "FAILED";
    }
}

/* What the guard said when it ended this attempt; NULL: it did not. */
static const char *guards_word(const json_t *guard, const json_t *attempt)
{
    const json_t *d = json_array_get(guard, json_array_size(guard) - 1);
    bool its = d != NULL && pick_int(d, "epoch") == pick_int(attempt, "epoch");
    return its && pick_text(d, "text")[0] != 0 ? pick_text(d, "text") : NULL;
}

static void set_state(json_t *facts, json_t *last, const json_t *guard, bool running)
{
    const char *reason = NULL;
    if (running) {
        set(facts, "state", json_string("RUNNING"));
        return;
    }
    if (pick(last, "started_at") == NULL) {
        return; /* nobody wrote it down */
    }
    if (pick(last, "ended_at") == NULL) {
        reason = "the run ended without a word: it was killed, or the machine was (dstrain run "
                 "--resume auto goes on)";
        set(facts, "state", json_string("FAILED"));
        set(last, "cause", json_string("it ended without a word"));
    } else {
        int64_t status = pick_int(last, "status");
        set(facts, "state", json_string(state_of(status)));
        set(facts, "ended_at", json_incref((json_t *)pick(last, "ended_at")));
        const char *word = status == 81 || status == 82 ? guards_word(guard, last) : NULL;
        reason = word != NULL ? word : status != 0 ? pick_text(last, "cause") : NULL;
    }
    if (reason != NULL) {
        set(facts, "reason", json_pack("{s:s}", "text", reason));
    }
}

static void add_attempts(json_t *facts, json_t *attempts, const json_t *guard,
                         const struct metrics *m, bool running)
{
    size_t count = json_array_size(attempts);
    const json_t *began = pick(json_array_get(attempts, 0), "started_at");
    complete_attempts(attempts, m);
    set(facts, "attempts", attempts);
    set(facts, "restarts", json_integer(count > 0 ? (json_int_t)count - 1 : 0));
    if (began != NULL) {
        set(facts, "started_at", json_incref((json_t *)began));
    }
    set_state(facts, json_array_get(attempts, count > 0 ? count - 1 : 0), guard, running);
}

/* ---- time */

/* What an attempt took; of one that was killed, its steps at least. */
static double length_ms(const json_t *attempt, const struct metrics_epoch *e, bool running)
{
    int64_t from = 0;
    int64_t to = clock_wall_ms();
    double steps = e != NULL ? e->kept_ms + e->lost_ms : 0;
    bool known =
        pick_time(attempt, "started_at", &from) && (pick_time(attempt, "ended_at", &to) || running);
    return known && (double)(to - from) > steps ? (double)(to - from) : steps;
}

static json_t *part(const char *category, double ms, double price)
{
    json_t *t = json_pack("{s:s,s:I}", "category", category, "gpu_ms", (json_int_t)llround(ms));
    if (!isnan(price)) {
        set(t, "cost_micro_usd", json_integer((json_int_t)llround(ms / 3600e3 * price * 1e6)));
    }
    return t;
}

static void add_time(json_t *facts, const struct metrics *m, double price, bool running)
{
    const json_t *attempts = pick(facts, "attempts");
    double productive = 0, lost = 0, all = 0;
    for (size_t i = 0; i < json_array_size(attempts); i++) {
        const json_t *a = json_array_get(attempts, i);
        const struct metrics_epoch *e = metrics_epoch(m, pick_count(a, "epoch"));
        double ranks = (double)pick_count(a, "ranks");
        all += ranks * length_ms(a, e, running && i + 1 == json_array_size(attempts));
        productive += e != NULL ? ranks * e->kept_ms : 0;
        lost += e != NULL ? ranks * e->lost_ms : 0;
    }
    if (!(all > 0)) {
        return;
    }
    double other = all - productive - lost;
    set(facts, "time",
        json_pack("[o,o,o]", part("productive", productive, price),
                  part("lost_progress", lost, price), part("other", other > 0 ? other : 0, price)));
    json_t *usage = part("all", all, price);
    json_object_del(usage, "category");
    set(usage, "productive_gpu_ms", json_integer((json_int_t)llround(productive)));
    set(facts, "usage", usage);
}

/* ---- the whole */

static void add_spec(json_t *facts, json_t *spec)
{
    json_t *model = load(pick_text(spec, "train.model"));
    set(facts, "name", json_string(pick_text(spec, "name")));
    set(facts, "stage", json_string(pick_text(spec, "stage")));
    if (model != NULL) {
        set(facts, "model", model);
    }
    set(facts, "spec", spec);
}

static int read_lines(const char *run_dir, const char *root, json_t **attempts, json_t **guard,
                      struct metrics *metrics, struct err *err)
{
    char *metrics_path = mem_printf("%s/metrics.jsonl", run_dir);
    char *guard_path = mem_printf("%s/guard.jsonl", root);
    int rc = metrics_read(metrics, metrics_path, err);
    rc = rc != 0 ? rc : lines_read_json(guard_path, guard, err);
    rc = rc != 0 ? rc : attempt_log_read(run_dir, attempts, err);
    metrics_finish(metrics);
    free(metrics_path);
    free(guard_path);
    return rc;
}

int run_facts_read(const char *run_dir, double price, bool over, json_t **facts,
                   struct metrics *metrics, struct err *err)
{
    json_t *attempts = NULL;
    json_t *guard = NULL;
    char *spec_path = mem_printf("%s/spec.json", run_dir);
    json_t *spec = load(spec_path);
    char *root = ckpt_root(run_dir, spec);
    *facts = NULL;
    *metrics = (struct metrics){0};
    int rc = read_lines(run_dir, root, &attempts, &guard, metrics, err);
    if (rc == 0 && spec == NULL && metrics->count == 0) {
        rc = err_set(err, ERR_NOT_FOUND,
                     "%s has neither spec.json nor steps in metrics.jsonl: it is not the --out "
                     "folder of a run",
                     run_dir);
    }
    if (rc == 0) {
        bool running = !over && is_locked(run_dir);
        *facts = json_pack("{s:s,s:s}", "schema", "ds/report/v1", "origin", "folder");
        set_time(*facts, "made_at", clock_wall_ms());
        if (spec != NULL) {
            add_spec(*facts, json_incref(spec));
        }
        bool logged = json_array_size(attempts) > 0;
        add_attempts(*facts, logged ? json_incref(attempts) : attempts_of(metrics), guard, metrics,
                     running);
        add_checkpoints(*facts, root);
        set(*facts, "guard", json_incref(guard));
        add_time(*facts, metrics, price, running);
    } else {
        metrics_fini(metrics);
    }
    json_decref(attempts);
    json_decref(guard);
    json_decref(spec);
    free(spec_path);
    free(root);
    return rc;
}

int run_facts_add(json_t *facts, struct metrics *metrics, const char *path, struct err *err)
{
    static const char *const own[] = {"schema", "made_at", "layout", "guard", "metrics", "curves"};
    json_error_t why;
    json_t *given = json_load_file(path, 0, &why);
    if (!json_is_object(given)) {
        json_decref(given);
        return err_set(err, ERR_INVALID, "%s: %s (expected what dsctl job show ID -o json printed)",
                       path, given == NULL ? why.text : "it is no JSON object");
    }
    if (metrics->count == 0) {
        json_t *list = json_object_get(given, "metrics");
        for (size_t i = 0; i < json_array_size(list); i++) {
            metrics_take(metrics, json_array_get(list, i));
        }
        metrics_finish(metrics);
    }
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (json_object_get(facts, own[i]) != NULL) {
            json_object_del(given, own[i]);
        }
    }
    if (pick(given, "usage") != NULL) {
        /* The ledger's time, not the launcher's. */
        json_object_del(facts, "time");
        set(facts, "origin", json_string("coordinator"));
    }
    const char *key;
    json_t *value;
    json_object_foreach(given, key, value)
    {
        if (!json_is_null(value)) {
            json_object_set(facts, key, value);
        }
    }
    json_decref(given);
    return 0;
}
