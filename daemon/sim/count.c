#include "daemon/sim/count.h"

#include <stddef.h>

#include "daemon/sim/report.h"

#define HOUR_MS 3600000.0

void counts_add(struct counts *to, const struct counts *from)
{
    for (size_t i = 0; i < COUNT_KINDS; i++) {
        to->n[i] += from->n[i];
    }
}

#define LINE_GROUP(text)       {text, -1},
#define LINE_COUNT(name, text) {text, COUNT_##name},
static const struct {
    const char *text;
    int count; /* -1: a group begins */
} lines[] = {COUNTS(LINE_GROUP, LINE_COUNT)};

void counts_write(struct buf *out, const struct counts *counts)
{
    const char *between = "";
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (lines[i].count < 0) {
            buf_printf(out, "%s%-12s", i > 0 ? "\n" : "", lines[i].text);
            between = "";
            continue;
        }
        buf_append_str(out, between);
        if (lines[i].count == COUNT_SIM_MS) {
            report_number(out, (double)counts->n[COUNT_SIM_MS] / HOUR_MS, 1);
            buf_append_str(out, " simulated hours");
        } else {
            report_number(out, (double)counts->n[lines[i].count], 0);
            buf_printf(out, " %s", lines[i].text);
        }
        between = ", ";
    }
    buf_append_str(out, "\n");
}
