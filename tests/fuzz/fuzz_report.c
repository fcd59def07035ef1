/* A folder's files are what a crash left of them. First byte: how many of the next lines are steps;
 * what comes after them is the facts. Whatever they are, both pages come out, and no text of theirs
 * becomes markup. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "report/run_report.h"
#include "tests/fuzz/fuzz.h"

static void write_page(enum doc_format format, const json_t *facts, const struct metrics *m)
{
    struct doc d;
    doc_init(&d, format, "plots");
    run_report_write(&d, facts, m);
    const char *text = buf_cstr(&d.out);
    assert(strstr(text, "<script") == NULL);
    for (size_t i = 0; i < d.plot_count; i++) {
        assert(strstr(buf_cstr(&d.plots[i].svg), "nan") == NULL);
    }
    doc_fini(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct metrics m = {0};
    const char *at = (const char *)data + (len > 0);
    const char *end = (const char *)data + len;
    const char *nl;
    for (size_t lines = len > 0 ? data[0] : 0;
         lines > 0 && at < end && (nl = memchr(at, '\n', (size_t)(end - at))) != NULL; lines--) {
        metrics_take_line(&m, at, (size_t)(nl - at));
        at = nl + 1;
    }
    metrics_finish(&m);
    for (size_t i = 1; i < m.count; i++) {
        assert(m.rows[i].step > m.rows[i - 1].step);
    }
    json_t *facts = at < end ? json_loadb(at, (size_t)(end - at), 0, NULL) : NULL;
    write_page(DOC_MARKDOWN, facts, &m);
    write_page(DOC_HTML, facts, &m);
    if (json_is_object(facts)) {
        json_decref(run_report_json(facts, &m));
    }
    json_decref(facts);
    metrics_fini(&m);
    return 0;
}
