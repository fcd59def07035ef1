#include "ctl/ckpts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/cells.h"
#include "ctl/page.h"
#include "proto/format.h"
#include "proto/pick.h"

static const struct column ckpt_columns[] = {
    {"ID", "id", COLUMN_RIGHT, NULL, NULL},
    {"JOB", "job", COLUMN_RIGHT, NULL, NULL},
    {"STEP", "step", COLUMN_RIGHT, NULL, NULL},
    {"EPOCH", "epoch", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
    {"STATE", "state", COLUMN_STATE, NULL, NULL},
    {"SIZE", "bytes", COLUMN_RIGHT, cell_bytes, NULL},
    {"SHARDS", "shards", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
    {"COMMITTED", "committed_at", 0, cell_time, NULL},
    {"PINNED", "pinned", COLUMN_SPARE, cell_yes, NULL},
    {"SHA256", "sha256", COLUMN_WIDE, NULL, NULL},
    {"PATH", "path", COLUMN_WIDE, NULL, NULL},
    {"REASON", "reason", 0, NULL, NULL},
};
const struct listing ckpt_listing = LISTING("ckpt", "id", ckpt_columns);

void ckpt_table(const struct output *o, struct buf *out, const json_t *ckpts)
{
    static const struct column columns[] = {
        {"ID", "id", COLUMN_RIGHT, NULL, NULL},
        {"STEP", "step", COLUMN_RIGHT, NULL, NULL},
        {"EPOCH", "epoch", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
        {"STATE", "state", COLUMN_STATE, NULL, NULL},
        {"SIZE", "bytes", COLUMN_RIGHT, cell_bytes, NULL},
        {"SHARDS", "shards", COLUMN_RIGHT | COLUMN_SPARE, NULL, NULL},
        {"COMMITTED", "committed_at", 0, cell_time, NULL},
        {"PATH", "path", COLUMN_WIDE, NULL, NULL},
        {"REASON", "reason", COLUMN_WRAP, NULL, NULL},
    };
    json_t *kept = json_array();
    size_t deleted = 0;
    for (size_t i = 0; i < json_array_size(ckpts); i++) {
        if (strcmp(pick_text(json_array_get(ckpts, i), "state"), "DELETED") == 0) {
            deleted++;
        } else {
            json_array_append(kept, json_array_get(ckpts, i));
        }
    }
    page_table(o, out, "checkpoints", kept, columns, sizeof columns / sizeof columns[0]);
    if (deleted > 0) {
        buf_printf(out, "%s  and %zu deleted\n", json_array_size(kept) > 0 ? "" : "\ncheckpoints\n",
                   deleted);
    }
    json_decref(kept);
}

static const struct column shard_columns[] = {
    {"RANK", "rank", COLUMN_RIGHT, NULL, NULL},
    {"FILE", "file", 0, NULL, NULL},
    {"SIZE", "bytes", COLUMN_RIGHT, cell_bytes, NULL},
    {"XXH3", "xxh3", COLUMN_WIDE, NULL, NULL},
    {"SHA256", "sha256", 0, NULL, NULL},
};

void ckpt_page(const struct output *o, struct buf *out, const json_t *ckpt)
{
    char id[24];
    snprintf(id, sizeof id, "%" PRId64, pick_int(ckpt, "id"));
    page_title(o, out, "checkpoint", id, "", pick_text(ckpt, "state"));
    page_text(out, "reason", pick_text(ckpt, "reason"));
    page_label(out, "of");
    buf_printf(out, "job %" PRId64 ", step %" PRId64 ", epoch %" PRId64 "\n", pick_int(ckpt, "job"),
               pick_int(ckpt, "step"), pick_int(ckpt, "epoch"));
    page_label(out, "size");
    format_bytes(out, pick_count(ckpt, "bytes"));
    buf_printf(out, " in %" PRId64 " shard%s\n", pick_int(ckpt, "shards"),
               pick_int(ckpt, "shards") == 1 ? "" : "s");
    page_time(out, "committed", ckpt, "committed_at");
    page_text(out, "pinned", json_is_true(pick(ckpt, "pinned")) ? "yes" : "no");
    page_text(out, "path", pick_text(ckpt, "path"));
    page_text(out, "sha256", pick_text(ckpt, "sha256"));
    page_table(o, out, "shards", json_object_get(ckpt, "shard_list"), shard_columns,
               sizeof shard_columns / sizeof shard_columns[0]);
}
