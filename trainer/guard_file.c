#include "trainer/guard_file.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/utf8.h"
#include "proto/manifest.h"
#include "trainer/ckpt_facts.h"

#define FILE_BYTES_MAX (16u << 20)
#define FORM           (JSON_COMPACT | JSON_SORT_KEYS)

/* ---- the state */

char *guard_state_encode(const struct guard_state *state)
{
    json_t *loss = json_array();
    for (uint32_t i = 0; i < state->count; i++) {
        json_array_append_new(loss, json_real(state->loss[i]));
    }
    json_t *root =
        json_pack("{s:o,s:I,s:I,s:f,s:I}", "loss", loss, "above", (json_int_t)state->above,
                  "applied", (json_int_t)state->applied, "lr_factor", state->lr_factor, "lr_until",
                  (json_int_t)state->lr_until);
    char *text = json_dumps(root, FORM);
    json_decref(root);
    return text;
}

int guard_state_parse(struct guard_state *state, const char *json, const char *name,
                      struct err *err)
{
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    json_t *loss = NULL;
    json_int_t above = 0;
    json_int_t applied = 0;
    json_int_t until = 0;
    *state = (struct guard_state){0};
    bool good =
        json_unpack(root, "{s:o,s:I,s:I,s:F,s:I}", "loss", &loss, "above", &above, "applied",
                    &applied, "lr_factor", &state->lr_factor, "lr_until", &until) == 0 &&
        json_is_array(loss) && json_array_size(loss) <= GUARD_WINDOW_MAX && above >= 0 &&
        above <= UINT32_MAX && applied >= 0 && applied <= UINT32_MAX && until >= 0 &&
        state->lr_factor >= 0 && state->lr_factor <= 1;
    for (size_t i = 0; good && i < json_array_size(loss); i++) {
        good = json_is_number(json_array_get(loss, i));
        state->loss[state->count++] = json_number_value(json_array_get(loss, i));
    }
    state->above = (uint32_t)above;
    state->applied = (uint32_t)applied;
    state->lr_until = (uint64_t)until;
    json_decref(root);
    if (!good) {
        *state = (struct guard_state){0};
        return err_set(err, ERR_CORRUPT, "%s: layout: guard is malformed", name);
    }
    return 0;
}

/* ---- the decisions */

/* JSON has no NaN: text. */
static json_t *number(double x)
{
    return isnan(x)   ? json_string("nan")
           : isinf(x) ? json_string(x > 0 ? "inf" : "-inf")
                      : json_real(x);
}

static bool read_number(const json_t *object, const char *key, double *x)
{
    const json_t *v = json_object_get(object, key);
    const char *text = json_string_value(v);
    *x = text != NULL ? strtod(text, NULL) : json_number_value(v);
    return text != NULL ? !isfinite(*x) : json_is_number(v);
}

static char *encode(const struct guard_decision *d)
{
    json_t *root = json_pack(
        "{s:s,s:s,s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:f,s:I,s:b,s:I,s:s,s:s,s:I}", "action",
        guard_action_name(d->action), "trigger", guard_trigger_name(d->trigger), "epoch",
        (json_int_t)d->epoch, "step", (json_int_t)d->step, "loss", number(d->loss), "mtp_loss",
        number(d->mtp_loss), "grad_norm", number(d->grad_norm), "median", number(d->median),
        "limit", number(d->limit), "back_to", (json_int_t)d->back_to, "skip_batches",
        (json_int_t)d->skip, "lr_factor", d->lr_factor, "lr_steps", (json_int_t)d->lr_steps,
        "replayed", (int)d->replayed, "odd_rank", (json_int_t)d->odd_rank, "layout", d->layout,
        "text", d->text, "time_ms", (json_int_t)clock_wall_ms());
    char *text = json_dumps(root, FORM);
    json_decref(root);
    return text;
}

static bool parse_action(const char *text, enum guard_action *action)
{
    for (int a = GUARD_REPLAY; a <= GUARD_CORRUPT; a++) {
        if (strcmp(text, guard_action_name((enum guard_action)a)) == 0) {
            *action = (enum guard_action)a;
            return true;
        }
    }
    return false;
}

static bool parse(struct guard_decision *d, const char *line, size_t len)
{
    json_t *root = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    const char *action = "";
    const char *layout = "";
    const char *text = "";
    int replayed = 0;
    json_int_t epoch = 0, step = 0, back_to = 0, skip = 0, lr_steps = 0, odd_rank = -1;
    *d = (struct guard_decision){0};
    bool good =
        json_unpack(root, "{s:s,s:I,s:I,s:I,s:I,s:F,s:I,s:s,s?s,s?b,s?I}", "action", &action,
                    "epoch", &epoch, "step", &step, "back_to", &back_to, "skip_batches", &skip,
                    "lr_factor", &d->lr_factor, "lr_steps", &lr_steps, "layout", &layout, "text",
                    &text, "replayed", &replayed, "odd_rank", &odd_rank) == 0 &&
        parse_action(action, &d->action) && strlen(layout) < sizeof d->layout && epoch >= 0 &&
        step >= 0 && back_to >= 0 && skip >= 0 && skip <= 1000000000 && lr_steps >= 0 &&
        d->lr_factor >= 0 && d->lr_factor <= 1 && read_number(root, "loss", &d->loss) &&
        read_number(root, "mtp_loss", &d->mtp_loss) &&
        read_number(root, "grad_norm", &d->grad_norm);
    if (good) {
        d->epoch = (uint64_t)epoch;
        d->step = (uint64_t)step;
        d->back_to = (uint64_t)back_to;
        d->skip = (uint64_t)skip;
        d->lr_steps = (uint64_t)lr_steps;
        d->replayed = replayed != 0;
        d->odd_rank = odd_rank;
        snprintf(d->layout, sizeof d->layout, "%s", layout);
        snprintf(d->text, sizeof d->text, "%s", text);
        utf8_clean(d->text, strlen(d->text)); /* it may be cut */
    }
    json_decref(root);
    return good;
}

static int read_file(const char *root, char **path, struct buf *text, struct err *err)
{
    struct err why = {0};
    *path = mem_printf("%s/guard.jsonl", root);
    int rc = file_read(*path, FILE_BYTES_MAX, text, &why);
    return rc == ERR_NOT_FOUND ? 0 : rc == 0 ? 0 : err_set(err, rc, "%s", why.text);
}

int guard_history_read(struct guard_history *history, const char *root, struct err *err)
{
    struct buf text = {0};
    char *path = NULL;
    *history = (struct guard_history){0};
    int rc = read_file(root, &path, &text, err);
    const char *at = text.len > 0 ? (const char *)text.data : NULL;
    const char *end = at + text.len;
    for (const char *nl; rc == 0 && at < end && (nl = memchr(at, '\n', (size_t)(end - at))) != NULL;
         at = nl + 1) {
        history->item = mem_resize(history->item, (history->count + 1) * sizeof *history->item);
        if (!parse(&history->item[history->count], at, (size_t)(nl - at))) {
            rc = err_set(err, ERR_CORRUPT,
                         "%s:%zu: this is no decision of the guard (repair the line, or move the "
                         "file away: the run then forgets what it went back from)",
                         path, history->count + 1);
        } else {
            history->count++;
        }
    }
    buf_fini(&text);
    free(path);
    if (rc != 0) {
        guard_history_fini(history);
    }
    return rc;
}

int guard_history_add(const char *root, const struct guard_decision *decision, struct err *err)
{
    struct buf text = {0};
    char *path = NULL;
    int rc = file_mkdirs(root, 0777, err);
    rc = rc == 0 ? read_file(root, &path, &text, err) : rc;
    if (rc == 0) {
        while (text.len > 0 && text.data[text.len - 1] != '\n') {
            text.len--;
        }
        char *line = encode(decision);
        buf_append_str(&text, line);
        buf_append_str(&text, "\n");
        free(line);
        rc = file_write_durable(path, text.data, text.len, 0666, err);
    }
    buf_fini(&text);
    free(path);
    return rc;
}

void guard_history_fini(struct guard_history *history)
{
    free(history->item);
    *history = (struct guard_history){0};
}

/* ---- the checkpoints on disk */

struct place {
    char *path;
    uint64_t step;
    uint32_t applied;
};
struct places {
    struct place *item;
    size_t count;
};

/* Of a committed checkpoint. */
static int read_place(struct place *p, const char *path, struct err *err)
{
    struct manifest m = {0};
    struct ckpt_facts facts = {0};
    int rc = manifest_read(&m, path, err);
    rc = rc == 0 ? ckpt_facts_parse(&facts, m.layout, path, err) : rc;
    if (rc == 0) {
        *p = (struct place){mem_strdup(path), facts.step, facts.guard.applied};
    }
    ckpt_facts_fini(&facts);
    manifest_fini(&m);
    return rc;
}

static void each_folder(const char *folder, void (*found)(void *, const char *), void *ctx)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *path = mem_printf("%s/%s", folder, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            found(ctx, path);
        }
        free(path);
        free(names[i]);
    }
    free(names);
}

static void found_checkpoint(void *ctx, const char *path)
{
    struct places *all = ctx;
    struct place p = {0};
    char *manifest = mem_printf("%s/MANIFEST.json", path);
    FILE *there = fopen(manifest, "re");
    free(manifest);
    if (there == NULL) {
        return;
    }
    fclose(there);
    struct err why = {0};
    if (read_place(&p, path, &why) != 0) {
        log_warn("skipping a checkpoint: %s", why.text);
        return;
    }
    all->item = mem_resize(all->item, (all->count + 1) * sizeof *all->item);
    all->item[all->count++] = p;
}

static void found_attempt(void *ctx, const char *path)
{
    each_folder(path, found_checkpoint, ctx);
}

/* Further along comes later; attempts that repeated each other in the order of their folders. */
static bool is_later(const struct place *a, const struct place *b)
{
    return a->applied != b->applied ? a->applied > b->applied : a->step >= b->step;
}

/* Those that no decision gave up, first come first. */
static struct places find(const char *root, const struct guard_history *history)
{
    struct places all = {0};
    each_folder(root, found_attempt, &all);
    size_t kept = 0;
    for (size_t i = 0; i < all.count; i++) {
        if (guard_gave_up(history, all.item[i].applied, all.item[i].step)) {
            free(all.item[i].path);
        } else {
            all.item[kept++] = all.item[i];
        }
    }
    all.count = kept;
    for (size_t i = 1; i < all.count; i++) {
        for (size_t k = i; k > 0 && !is_later(&all.item[k], &all.item[k - 1]); k--) {
            struct place swap = all.item[k];
            all.item[k] = all.item[k - 1];
            all.item[k - 1] = swap;
        }
    }
    return all;
}

static void places_fini(struct places *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->item[i].path);
    }
    free(p->item);
}

uint64_t guard_back_to(const char *root, const struct guard_history *history, uint64_t wanted)
{
    struct places all = find(root, history);
    uint64_t step = all.count > 0 ? UINT64_MAX : 0;
    for (size_t i = 0; i < all.count; i++) {
        uint64_t here = all.item[i].step;
        bool better = step > wanted ? here < step : here <= wanted && here > step;
        step = better ? here : step;
    }
    places_fini(&all);
    return step;
}

static bool is_whole(const char *path)
{
    struct manifest m = {0};
    struct err why = {0};
    int rc = manifest_read(&m, path, &why);
    rc = rc == 0 ? manifest_verify(&m, path, 0, &why) : rc;
    manifest_fini(&m);
    if (rc != 0) {
        log_warn("skipping a checkpoint: %s", why.text);
    }
    return rc == 0;
}

int guard_choose(const char *root, const struct guard_history *history, const char *resume,
                 char **chosen, struct err *err)
{
    struct place p = {0};
    *chosen = NULL;
    TRY(read_place(&p, resume, err));
    free(p.path);
    if (!guard_gave_up(history, p.applied, p.step)) {
        *chosen = mem_strdup(resume);
        return 0;
    }
    struct places all = find(root, history);
    for (size_t i = all.count; i-- > 0 && *chosen == NULL;) {
        *chosen = is_whole(all.item[i].path) ? mem_strdup(all.item[i].path) : NULL;
    }
    places_fini(&all);
    return 0;
}
