#include "ctl/cells.h"

#include "ctl/nodes.h"
#include "ctl/when.h"
#include "lib/clock.h"
#include "proto/format.h"

static bool time_of(const json_t *value, int64_t *at_ms)
{
    return json_is_string(value) && when_parse(json_string_value(value), 0, at_ms, NULL) == 0;
}

void cell_time(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    int64_t at_ms = 0;
    if (time_of(value, &at_ms)) {
        format_time(out, at_ms);
    }
}

void cell_age(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    int64_t at_ms = 0;
    if (time_of(value, &at_ms)) {
        format_duration(out, clock_wall_ms() - at_ms);
    }
}

void cell_duration(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    format_duration(out, json_integer_value(value));
}

void cell_count(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    format_count(out, json_number_value(value));
}

void cell_bytes(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    format_bytes(out, (uint64_t)json_integer_value(value));
}

void cell_gpu_hours(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    format_gpu_hours(out, (uint64_t)json_integer_value(value));
}

void cell_usd(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    format_usd(out, json_integer_value(value));
}

void cell_loss(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    buf_printf(out, "%.4f", json_number_value(value));
}

void cell_nodes(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    nodes_append(out, value);
}

void cell_yes(struct buf *out, const json_t *item, const json_t *value)
{
    (void)item;
    buf_append_str(out, json_is_true(value) ? "yes" : "");
}
