#include "ctl/nodes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/cells.h"
#include "ctl/page.h"
#include "lib/hostlist.h"
#include "lib/mem.h"
#include "proto/format.h"
#include "proto/pick.h"

/* ---- the row */

static const json_t *gpus_of(const json_t *node)
{
    return json_object_get(node, "gpus");
}

static json_t *gpu_count(const json_t *node)
{
    return json_integer((json_int_t)json_array_size(gpus_of(node)));
}

static json_t *gpus_used(const json_t *node)
{
    json_int_t used = 0;
    for (size_t i = 0; i < json_array_size(gpus_of(node)); i++) {
        used += pick(json_array_get(gpus_of(node), i), "job") != NULL;
    }
    return json_integer(used);
}

/* Used of all: 3/4. */
static void gpus_cell(struct buf *out, const json_t *node, const json_t *count)
{
    json_t *used = gpus_used(node);
    buf_printf(out, "%" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT, json_integer_value(used),
               json_integer_value(count));
    json_decref(used);
}

static bool is_ill(const json_t *gpu)
{
    const char *health = pick_text(gpu, "health");
    return health[0] != 0 && strcmp(health, "ok") != 0 && strncmp(health, "ok: ", 4) != 0;
}

/* "ok", or what the first ill accelerator has and how many are. */
static json_t *health_of(const json_t *node)
{
    const json_t *gpus = gpus_of(node);
    const json_t *first = NULL;
    size_t ill = 0;
    for (size_t i = 0; i < json_array_size(gpus); i++) {
        const json_t *gpu = json_array_get(gpus, i);
        if (is_ill(gpu)) {
            first = first == NULL ? gpu : first;
            ill++;
        }
    }
    if (json_array_size(gpus) == 0) {
        return json_null();
    }
    return ill == 0 ? json_string("ok")
                    : json_sprintf("%zu ill: %s", ill, pick_text(first, "health"));
}

/* "12,13", each once, as the accelerators come. */
static json_t *jobs_of(const json_t *node)
{
    struct buf text = {0};
    const json_t *gpus = gpus_of(node);
    for (size_t i = 0; i < json_array_size(gpus); i++) {
        int64_t job = pick_int(json_array_get(gpus, i), "job");
        bool seen = job == 0;
        for (size_t j = 0; j < i && !seen; j++) {
            seen = pick_int(json_array_get(gpus, j), "job") == job;
        }
        if (!seen) {
            buf_printf(&text, "%s%" PRId64, text.len > 0 ? "," : "", job);
        }
    }
    json_t *value = text.len > 0 ? json_string(buf_cstr(&text)) : json_null();
    buf_fini(&text);
    return value;
}

static json_t *model_of(const json_t *node)
{
    const char *model = pick_text(json_array_get(gpus_of(node), 0), "model");
    return model[0] != 0 ? json_string(model) : json_null();
}

static void seen_cell(struct buf *out, const json_t *node, const json_t *value)
{
    if (json_is_true(pick(node, "connected"))) {
        buf_append_str(out, "now");
    } else {
        cell_age(out, node, value);
        buf_append_str(out, " ago");
    }
}

static const struct column node_columns[] = {
    {"NODE", "name", 0, NULL, NULL},
    {"STATE", "state", COLUMN_STATE, NULL, NULL},
    {"GPUS", "gpus", COLUMN_RIGHT, gpus_cell, gpu_count},
    {"GPUS-USED", "gpus_used", COLUMN_CSV, NULL, gpus_used},
    {"MODEL", "model", COLUMN_WIDE, NULL, model_of},
    {"HEALTH", "health", COLUMN_LONG, NULL, health_of},
    {"JOBS", "jobs", COLUMN_LONG, NULL, jobs_of},
    {"SEEN", "last_seen_at", 0, seen_cell, NULL},
    {"ADDR", "addr", COLUMN_WIDE, NULL, NULL},
    {"VERSION", "version", COLUMN_WIDE, NULL, NULL},
    {"SINCE", "since", COLUMN_WIDE, cell_time, NULL},
    {"BY", "by", COLUMN_WIDE, NULL, NULL},
    {"REASON", "reason", 0, NULL, NULL},
};
const struct listing node_listing = LISTING("node", "name", node_columns);

/* ---- the page */

static void memory_cell(struct buf *out, const json_t *gpu, const json_t *bytes)
{
    (void)gpu;
    if (json_integer_value(bytes) >
        0) { /* an accelerator that was only declared has none to tell */
        format_bytes(out, (uint64_t)json_integer_value(bytes));
    }
}

static const struct column gpu_columns[] = {
    {"GPU", "index", COLUMN_RIGHT, NULL, NULL},
    {"MODEL", "model", 0, NULL, NULL},
    {"HEALTH", "health", 0, NULL, NULL},
    {"MEMORY", "memory_bytes", COLUMN_RIGHT, memory_cell, NULL},
    {"JOB", "job", COLUMN_RIGHT, NULL, NULL},
    {"UUID", "uuid", 0, NULL, NULL},
};

void node_page(const struct output *o, struct buf *out, const json_t *node)
{
    page_title(o, out, "node", pick_text(node, "name"), "", pick_text(node, "state"));
    page_text(out, "reason", pick_text(node, "reason"));
    page_text(out, "by", pick_text(node, "by"));
    page_time(out, "since", node, "since");
    if (json_is_true(pick(node, "connected"))) {
        page_text(out, "connected", "yes");
    } else {
        page_time(out, "last seen", node, "last_seen_at");
    }
    page_text(out, "address", pick_text(node, "addr"));
    page_text(out, "version", pick_text(node, "version"));
    page_time(out, "last pass", node, "scheduled_at");
    page_table(o, out, "accelerators", gpus_of(node), gpu_columns,
               sizeof gpu_columns / sizeof gpu_columns[0]);
}

/* ---- names */

void nodes_append(struct buf *out, const json_t *names)
{
    size_t count = json_array_size(names);
    const char **list = mem_alloc_array(count, sizeof *list);
    for (size_t i = 0; i < count; i++) {
        list[i] = json_string_value(json_array_get(names, i));
    }
    hostlist_compress(list, count, out);
    free(list);
}
