#include "daemon/config_sched.h"

#include <stdlib.h>
#include <string.h>

#include "lib/hostlist.h"
#include "lib/mem.h"

#define LIST_MAX     10000u
#define PRIORITY_MAX 1000000
#define COUNT_MAX    100000000u
#define YEAR_MS      (366ull * 86400000)
#define NAME_ALLOWED "letters, digits, . _ -, at most 63, first a letter or digit"

static int read_duration(const struct yaml_item *item, void *place, struct err *err)
{
    uint64_t ms;
    struct err why = {0};
    if (item->kind != YAML_ITEM_SCALAR) {
        return yaml_refuse(item, err, "is not a duration (allowed: such as 30s, 5m, 2h, 7d)");
    }
    if (duration_parse(item->text, &ms, &why) != 0) {
        return yaml_refuse(item, err, "%s", why.text);
    }
    if (ms > YEAR_MS) {
        return yaml_refuse(item, err, "%s is out of range (allowed: up to 366d)", item->text);
    }
    *(int64_t *)place = (int64_t)ms;
    return 0;
}

static int read_length(const struct yaml_item *item, void *place, struct err *err)
{
    TRY(read_duration(item, place, err));
    return *(int64_t *)place > 0
               ? 0
               : yaml_refuse(item, err, "%s is out of range (allowed: from 1ms)", item->text);
}

static bool is_name(const char *text)
{
    static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(text);
    return len > 0 && len < 64 && strchr("._-", text[0]) == NULL && strspn(text, rest) == len;
}

/* A queue's weight: 1.5 -> 1500. */
static int read_weight(const struct yaml_item *item, void *place, struct err *err)
{
    double value;
    TRY(yaml_to_double(item, &value, err));
    if (value < 0 || value > 1000) {
        return yaml_refuse(item, err, "is out of range (allowed: 0 to 1000)");
    }
    *(int64_t *)place = (int64_t)(value * 1000 + 0.5);
    return 0;
}

/* ---- entries of lists */

#define AT(owner, member) .offset = offsetof(struct owner, member)

static const struct yaml_field place_fields[] = {
    {.key = "nodes", .type = YAML_TEXT, AT(policy_place, nodes), .required = true},
    {.key = "zone",
     .type = YAML_TEXT,
     AT(policy_place, zone),
     .valid = is_name,
     .allowed = NAME_ALLOWED},
    {.key = "rack",
     .type = YAML_TEXT,
     AT(policy_place, rack),
     .valid = is_name,
     .allowed = NAME_ALLOWED},
    {.key = "leaf",
     .type = YAML_TEXT,
     AT(policy_place, leaf),
     .valid = is_name,
     .allowed = NAME_ALLOWED},
    {.key = NULL}};

#define LIMIT(owner, name)                                                                         \
    {                                                                                              \
        .key = #name, .type = YAML_I64, AT(owner, name), .low = 0, .high = COUNT_MAX               \
    }
static const struct yaml_field queue_fields[] = {
    {.key = "name",
     .type = YAML_TEXT,
     AT(queue_row, name),
     .required = true,
     .valid = is_name,
     .allowed = NAME_ALLOWED},
    {.key = "priority",
     .type = YAML_I64,
     AT(queue_row, priority),
     .low = -PRIORITY_MAX,
     .high = PRIORITY_MAX},
    {.key = "weight", .type = YAML_CUSTOM, AT(queue_row, weight_milli), .read = read_weight},
    LIMIT(queue_row, nodes_max),
    LIMIT(queue_row, jobs_max),
    LIMIT(queue_row, user_nodes_max),
    LIMIT(queue_row, user_jobs_max),
    LIMIT(queue_row, waiting_max),
    {.key = "priority_max",
     .type = YAML_I64,
     AT(queue_row, priority_max),
     .low = -PRIORITY_MAX,
     .high = PRIORITY_MAX},
    {.key = "time_limit", .type = YAML_CUSTOM, AT(queue_row, time_limit_ms), .read = read_length},
    {.key = "preempts", .type = YAML_BOOL, AT(queue_row, preempts)},
    {.key = "preemptible", .type = YAML_BOOL, AT(queue_row, preemptible)},
    {.key = "accepts", .type = YAML_BOOL, AT(queue_row, accepts)},
    {.key = "starts", .type = YAML_BOOL, AT(queue_row, starts)},
    {.key = NULL}};
static const struct yaml_field account_fields[] = {
    {.key = "name",
     .type = YAML_TEXT,
     AT(account_row, name),
     .required = true,
     .valid = is_name,
     .allowed = NAME_ALLOWED},
    {.key = "shares", .type = YAML_I64, AT(account_row, shares), .low = 0, .high = 1000000},
    LIMIT(account_row, nodes_max),
    {.key = "accepts", .type = YAML_BOOL, AT(account_row, accepts)},
    {.key = NULL}};

static int check_list(const struct yaml_item *item, const char *example, struct err *err)
{
    if (item->kind != YAML_ITEM_LIST || item->count > LIST_MAX) {
        return yaml_refuse(item, err, "a list is expected (allowed: such as [%s])", example);
    }
    return 0;
}

static int read_places(const struct yaml_item *item, void *place, struct err *err)
{
    struct sched_config *c = place;
    TRY(check_list(item, "{nodes: gpu[001-032], leaf: leaf-1}", err));
    c->places = mem_alloc_array(item->count, sizeof *c->places);
    for (size_t i = 0; i < item->count; i++) {
        c->policy.place_count++;
        TRY(yaml_read(item->items[i], place_fields, &c->places[i], err));
        struct hostlist names = {0};
        struct err why = {0};
        int rc = hostlist_expand(&names, c->places[i].nodes, &why);
        hostlist_fini(&names);
        if (rc != 0) {
            return yaml_refuse(yaml_get(item->items[i], "nodes"), err, "%s", why.text);
        }
    }
    return 0;
}

static int refuse_double(const struct yaml_item *item, const char *name, struct err *err)
{
    return yaml_refuse(yaml_get(item, "name"), err, "%s is there twice", name);
}

static int read_queues(const struct yaml_item *item, void *place, struct err *err)
{
    struct sched_config *c = place;
    TRY(check_list(item, "{name: default, priority: 0}", err));
    c->queues = mem_alloc_array(item->count, sizeof *c->queues);
    for (size_t i = 0; i < item->count; i++) {
        c->queues[i] = policy_queue_default();
        c->policy.queue_count++;
        TRY(yaml_read(item->items[i], queue_fields, &c->queues[i], err));
        for (size_t j = 0; j < i; j++) {
            if (strcmp(c->queues[j].name, c->queues[i].name) == 0) {
                return refuse_double(item->items[i], c->queues[i].name, err);
            }
        }
    }
    return 0;
}

static int read_accounts(const struct yaml_item *item, void *place, struct err *err)
{
    struct sched_config *c = place;
    TRY(check_list(item, "{name: research, shares: 2}", err));
    c->accounts = mem_alloc_array(item->count, sizeof *c->accounts);
    for (size_t i = 0; i < item->count; i++) {
        c->accounts[i] = policy_account_default();
        c->policy.account_count++;
        TRY(yaml_read(item->items[i], account_fields, &c->accounts[i], err));
        for (size_t j = 0; j < i; j++) {
            if (strcmp(c->accounts[j].name, c->accounts[i].name) == 0) {
                return refuse_double(item->items[i], c->accounts[i].name, err);
            }
        }
    }
    return 0;
}

static int compare_classes(const void *a, const void *b)
{
    const struct policy_class *x = a, *y = b;
    return x->priority < y->priority ? -1 : x->priority > y->priority;
}

/* classes: {low: -1000000, normal: 0, high: 1000} */
static int read_classes(const struct yaml_item *item, void *place, struct err *err)
{
    struct sched_config *c = place;
    if (item->kind != YAML_ITEM_MAP || item->count == 0) {
        return yaml_refuse(item, err,
                           "names and their least priorities are expected (allowed: such as "
                           "{normal: 0, high: 1000})");
    }
    c->classes = mem_alloc_array(item->count, sizeof *c->classes);
    c->policy.class_count = 0;
    for (size_t i = 0; i < item->count; i++) {
        const struct yaml_item *entry = item->items[i];
        int64_t priority;
        TRY(yaml_to_i64(entry, -PRIORITY_MAX, PRIORITY_MAX, &priority, err));
        if (!is_name(entry->key)) {
            return yaml_refuse(entry, err, "is not a name (allowed: " NAME_ALLOWED ")");
        }
        c->classes[c->policy.class_count++] =
            (struct policy_class){mem_strdup(entry->key), priority};
    }
    qsort(c->classes, c->policy.class_count, sizeof *c->classes, compare_classes);
    return 0;
}

/* ---- the section */

#undef AT
#define AT(member) .offset = offsetof(struct sched_config, policy.member)
#define WEIGHT(name)                                                                               \
    {                                                                                              \
        .key = #name, .type = YAML_I64, AT(priority.name), .low = 0, .high = PRIORITY_MAX          \
    }

static const struct yaml_field weight_fields[] = {WEIGHT(age),      WEIGHT(fair_share),
                                                  WEIGHT(slowdown), WEIGHT(size),
                                                  WEIGHT(restart),  {.key = NULL}};
static const struct yaml_field backfill_fields[] = {
    {.key = "reservations", .type = YAML_U32, AT(backfill.reservations), .low = 1, .high = 1000},
    {.key = "depth", .type = YAML_U32, AT(backfill.depth), .low = 1, .high = 10000000},
    {.key = "horizon", .type = YAML_CUSTOM, AT(backfill.horizon_ms), .read = read_length},
    {.key = "overtaken", .type = YAML_CUSTOM, AT(backfill.overtaken_ms), .read = read_duration},
    {.key = "overtaken_lengths",
     .type = YAML_I64,
     AT(backfill.overtaken_lengths),
     .low = 0,
     .high = 1000},
    {.key = "shortest_first", .type = YAML_BOOL, AT(backfill.shortest_first)},
    {.key = NULL}};
static const struct yaml_field preemption_fields[] = {
    {.key = "enabled", .type = YAML_BOOL, AT(preemption.enabled)},
    {.key = "priority_gap",
     .type = YAML_I64,
     AT(preemption.priority_gap),
     .low = 1,
     .high = 2 * PRIORITY_MAX},
    {.key = "min_runtime",
     .type = YAML_CUSTOM,
     AT(preemption.min_runtime_ms),
     .read = read_duration},
    {.key = "save_first", .type = YAML_CUSTOM, AT(preemption.save_first_ms), .read = read_length},
    {.key = "save_max", .type = YAML_CUSTOM, AT(preemption.save_max_ms), .read = read_length},
    {.key = "per_job", .type = YAML_U32, AT(preemption.per_job), .low = 0, .high = 1000000},
    {.key = NULL}};
const struct yaml_field sched_config_fields[] = {
    {.key = "weights", .type = YAML_MAP, .fields = weight_fields},
    {.key = "age_full", .type = YAML_CUSTOM, AT(priority.age_full_ms), .read = read_length},
    {.key = "half_life", .type = YAML_CUSTOM, AT(priority.half_life_ms), .read = read_length},
    {.key = "backfill", .type = YAML_MAP, .fields = backfill_fields},
    {.key = "restart_hold", .type = YAML_CUSTOM, AT(restart_hold_ms), .read = read_duration},
    {.key = "assumed_runtime", .type = YAML_CUSTOM, AT(assumed_runtime_ms), .read = read_length},
    {.key = "preemption", .type = YAML_MAP, .fields = preemption_fields},
    {.key = "spares", .type = YAML_U32, AT(spares), .low = 0, .high = 100000},
    {.key = "classes", .type = YAML_CUSTOM, .read = read_classes},
    {.key = "places", .type = YAML_CUSTOM, .read = read_places},
    {.key = "queues", .type = YAML_CUSTOM, .read = read_queues},
    {.key = "accounts", .type = YAML_CUSTOM, .read = read_accounts},
    {.key = "accounts_closed", .type = YAML_BOOL, AT(accounts_closed)},
    {.key = NULL}};

void sched_config_default(struct sched_config *c)
{
    *c = (struct sched_config){0};
    policy_default(&c->policy);
}

int sched_config_finish(struct sched_config *c, const char *name, struct err *err)
{
    struct policy *p = &c->policy;
    p->classes = c->classes != NULL ? c->classes : p->classes;
    p->places = c->places;
    p->queues = c->queues;
    p->accounts = c->accounts;
    if (p->preemption.save_max_ms < p->preemption.save_first_ms) {
        return err_set(err, ERR_CONFIG, "%s: scheduler.preemption.save_max is less than save_first",
                       name);
    }
    return 0;
}

void sched_config_fini(struct sched_config *c)
{
    for (size_t i = 0; c->classes != NULL && i < c->policy.class_count; i++) {
        free((char *)(uintptr_t)c->classes[i].name);
    }
    for (size_t i = 0; c->places != NULL && i < c->policy.place_count; i++) {
        free((char *)(uintptr_t)c->places[i].nodes);
        free((char *)(uintptr_t)c->places[i].zone);
        free((char *)(uintptr_t)c->places[i].rack);
        free((char *)(uintptr_t)c->places[i].leaf);
    }
    for (size_t i = 0; c->queues != NULL && i < c->policy.queue_count; i++) {
        free(c->queues[i].name);
    }
    for (size_t i = 0; c->accounts != NULL && i < c->policy.account_count; i++) {
        free(c->accounts[i].name);
    }
    free(c->classes);
    free(c->places);
    free(c->queues);
    free(c->accounts);
    *c = (struct sched_config){0};
}
