#include "report/doc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "report/chart.h"
#include "report/escape.h"

static const char doc_style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1f2937;--soft:#6b7280;--line:#e5e7eb;"
    "--card:#f8fafc;--good:#0f7f4f;--bad:#b91c1c;--live:#2563c9;--warn:#fff7ed;--warnline:#fdba74}"
    "@media(prefers-color-scheme:dark){:root{--bg:#14181e;--fg:#e3e8ef;--soft:#9aa5b4;"
    "--line:#2b323c;--card:#1a2029;--good:#4ade9a;--bad:#f87171;--live:#6ea8fe;--warn:#2a2118;"
    "--warnline:#8a5a24}}"
    "*{box-sizing:border-box}body{margin:0 auto;max-width:64rem;padding:2rem 1.25rem 4rem;"
    "background:var(--bg);color:var(--fg);"
    "font:15px/1.55 system-ui,-apple-system,'Segoe UI',sans-serif}"
    "h1{font-size:1.7rem;line-height:1.25;margin:0 0 .4rem;overflow-wrap:anywhere}"
    "h2{font-size:1.2rem;margin:2.6rem 0 .7rem;padding-bottom:.3rem;"
    "border-bottom:1px solid var(--line)}p{margin:.5rem 0;max-width:46rem}"
    ".state{display:inline-block;font-size:.75rem;font-weight:600;letter-spacing:.03em;"
    "padding:.15rem .55rem;border-radius:1rem;border:1px solid currentColor;"
    "vertical-align:middle;margin-left:.5rem;color:var(--soft)}"
    ".good{color:var(--good)}.bad{color:var(--bad)}.live{color:var(--live)}"
    ".warn{background:var(--warn);border-left:3px solid var(--warnline);padding:.55rem .9rem;"
    "border-radius:0 4px 4px 0;overflow-wrap:anywhere}"
    "dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:.7rem;"
    "margin:1.2rem 0}dl div{background:var(--card);border:1px solid var(--line);"
    "border-radius:6px;padding:.6rem .8rem}dt{color:var(--soft);font-size:.8rem}"
    "dd{margin:0;overflow-wrap:anywhere}dd.v{font-size:1.3rem;font-weight:600;line-height:1.3;"
    "font-variant-numeric:tabular-nums}dd.d{color:var(--soft);font-size:.8rem}"
    "figure{margin:1.3rem 0 .4rem}figure svg{width:100%;height:auto;display:block}"
    "figcaption{color:var(--soft);font-size:.85rem;margin-bottom:.3rem}"
    "figcaption b{color:var(--fg);font-size:.95rem}.scroll{overflow-x:auto;margin:.4rem 0 1rem}"
    "table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}"
    "th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid var(--line);"
    "vertical-align:top}th{color:var(--soft);font-weight:600;white-space:nowrap}"
    "td{overflow-wrap:anywhere;min-width:5.5rem}td.n,th.n{text-align:right;white-space:nowrap;min-"
    "width:0}"
    "details{margin:.8rem 0}summary{cursor:pointer;color:var(--soft)}"
    "pre{background:var(--card);border:1px solid var(--line);border-radius:6px;"
    "padding:.8rem;overflow-x:auto;font-size:.8rem;white-space:pre-wrap;overflow-wrap:anywhere}"
    "footer{margin-top:3rem;color:var(--soft);font-size:.8rem}"
    "@media print{body{max-width:none;padding:0}figure,tr{break-inside:avoid}}";

/* ---- life */

void doc_init(struct doc *d, enum doc_format format, const char *folder)
{
    *d = (struct doc){.format = format, .folder = folder};
}

static void drop_cells(struct doc *d)
{
    for (size_t i = 0; i < d->cell_count; i++) {
        buf_fini(&d->cells[i]);
    }
    d->cell_count = 0;
}

void doc_fini(struct doc *d)
{
    drop_cells(d);
    for (size_t i = 0; i < d->plot_count; i++) {
        free(d->plots[i].name);
        buf_fini(&d->plots[i].svg);
    }
    free(d->cells);
    free(d->plots);
    buf_fini(&d->out);
    *d = (struct doc){0};
}

/* ---- text */

static bool is_html(const struct doc *d)
{
    return d->format == DOC_HTML;
}

static void put(struct doc *d, const char *markup)
{
    buf_append_str(&d->out, markup);
}

static void put_escaped(struct doc *d, const char *text)
{
    if (is_html(d)) {
        escape_html(&d->out, text);
    } else {
        escape_markdown(&d->out, text);
    }
}

void doc_begin(struct doc *d, const char *title, const char *state, const char *look)
{
    if (!is_html(d)) {
        put(d, "# ");
        put_escaped(d, title);
        put(d, state[0] != 0 ? " — " : "");
        put_escaped(d, state);
        put(d, "\n\n");
        return;
    }
    put(d, "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\"><head>"
           "<meta charset=\"utf-8\"/>\n<meta http-equiv=\"Content-Security-Policy\" "
           "content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>");
    put_escaped(d, title);
    put(d, "</title>\n<style>");
    put(d, doc_style);
    put(d, chart_style);
    put(d, "</style></head>\n<body>\n<h1>");
    put_escaped(d, title);
    if (state[0] != 0) {
        buf_printf(&d->out, " <span class=\"state %s\">", look);
        put_escaped(d, state);
        put(d, "</span>");
    }
    put(d, "</h1>\n");
}

void doc_end(struct doc *d, const char *last_line)
{
    put(d, is_html(d) ? "<footer>" : "---\n\n");
    put_escaped(d, last_line);
    put(d, is_html(d) ? "</footer>\n</body></html>\n" : "\n");
}

void doc_heading(struct doc *d, const char *text)
{
    put(d, is_html(d) ? "<h2>" : "## ");
    put_escaped(d, text);
    put(d, is_html(d) ? "</h2>\n" : "\n\n");
}

static void put_paragraph(struct doc *d, const char *before, const char *after, const char *fmt,
                          va_list ap) __attribute__((format(printf, 4, 0)));
static void put_paragraph(struct doc *d, const char *before, const char *after, const char *fmt,
                          va_list ap)
{
    char *text = NULL;
    if (vasprintf(&text, fmt, ap) < 0) {
        text = NULL;
    }
    put(d, before);
    put_escaped(d, text != NULL ? text : "");
    put(d, after);
    free(text);
}

void doc_text(struct doc *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put_paragraph(d, is_html(d) ? "<p>" : "", is_html(d) ? "</p>\n" : "\n\n", fmt, ap);
    va_end(ap);
}

void doc_warn(struct doc *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put_paragraph(d, is_html(d) ? "<p class=\"warn\">" : "> ", is_html(d) ? "</p>\n" : "\n\n", fmt,
                  ap);
    va_end(ap);
}

void doc_fold(struct doc *d, const char *summary, const char *text)
{
    /* Markdown takes HTML blocks; in both, the text is escaped as HTML. */
    put(d, "<details><summary>");
    escape_html(&d->out, summary);
    put(d, "</summary>\n<pre>");
    escape_html(&d->out, text);
    put(d, "</pre></details>\n\n");
}

/* ---- tables */

struct buf *doc_cell_buf(struct doc *d)
{
    void *cells = d->cells;
    mem_grow(&cells, &d->cell_capacity, d->cell_count + 1, sizeof *d->cells);
    d->cells = cells;
    d->cells[d->cell_count] = (struct buf){0};
    return &d->cells[d->cell_count++];
}

void doc_cell(struct doc *d, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0) {
        text = NULL;
    }
    va_end(ap);
    buf_append_str(doc_cell_buf(d), text != NULL ? text : "");
    free(text);
}

static bool is_number(const char *column)
{
    return column[0] == '>';
}

static void html_table(struct doc *d, const char *const *columns, size_t count)
{
    put(d, "<div class=\"scroll\"><table><thead><tr>");
    for (size_t i = 0; i < count; i++) {
        put(d, is_number(columns[i]) ? "<th class=\"n\">" : "<th>");
        put_escaped(d, columns[i] + is_number(columns[i]));
        put(d, "</th>");
    }
    put(d, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < d->cell_count; i++) {
        put(d, i % count == 0 ? "<tr>" : "");
        put(d, is_number(columns[i % count]) ? "<td class=\"n\">" : "<td>");
        put_escaped(d, buf_cstr(&d->cells[i]));
        put(d, i % count + 1 == count ? "</td></tr>\n" : "</td>");
    }
    put(d, "</tbody></table></div>\n");
}

static void markdown_table(struct doc *d, const char *const *columns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put(d, "| ");
        put_escaped(d, columns[i] + is_number(columns[i]));
        put(d, " ");
    }
    put(d, "|\n");
    for (size_t i = 0; i < count; i++) {
        put(d, is_number(columns[i]) ? "|---:" : "|---");
    }
    put(d, "|\n");
    for (size_t i = 0; i < d->cell_count; i++) {
        put(d, "| ");
        put_escaped(d, buf_cstr(&d->cells[i]));
        put(d, i % count + 1 == count ? " |\n" : " ");
    }
    put(d, "\n");
}

void doc_table(struct doc *d, const char *const *columns, size_t count)
{
    if (d->cell_count > 0 && is_html(d)) {
        html_table(d, columns, count);
    } else if (d->cell_count > 0) {
        markdown_table(d, columns, count);
    }
    drop_cells(d);
}

void doc_tiles(struct doc *d)
{
    static const char *const columns[] = {"", "", ""};
    if (!is_html(d)) {
        doc_table(d, columns, 3);
        return;
    }
    put(d, "<dl>\n");
    for (size_t i = 0; i + 2 < d->cell_count; i += 3) {
        put(d, "<div><dt>");
        put_escaped(d, buf_cstr(&d->cells[i]));
        put(d, "</dt><dd class=\"v\">");
        put_escaped(d, buf_cstr(&d->cells[i + 1]));
        put(d, "</dd><dd class=\"d\">");
        put_escaped(d, buf_cstr(&d->cells[i + 2]));
        put(d, "</dd></div>\n");
    }
    put(d, "</dl>\n");
    drop_cells(d);
}

/* ---- pictures */

bool doc_wants_alone(const struct doc *d)
{
    return !is_html(d);
}

static void keep_plot(struct doc *d, const char *name, const struct buf *svg)
{
    d->plots = mem_resize(d->plots, (d->plot_count + 1) * sizeof *d->plots);
    struct doc_plot *plot = &d->plots[d->plot_count++];
    *plot = (struct doc_plot){.name = mem_printf("%s.svg", name)};
    buf_append(&plot->svg, svg->data, svg->len);
}

/* A relative one. */
static void put_link(struct doc *d, const char *path)
{
    for (const char *c = path; *c != 0; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || strchr("-_.~/", *c) != NULL;
        buf_printf(&d->out, plain ? "%c" : "%%%02X", (unsigned char)*c);
    }
}

void doc_figure(struct doc *d, const struct doc_figure *f, const struct buf *svg)
{
    if (is_html(d)) {
        buf_printf(&d->out, "<figure id=\"%s\"><figcaption><b>", f->name);
        put_escaped(d, f->title);
        put(d, "</b> ");
        put_escaped(d, f->caption);
        put(d, "</figcaption>\n");
        buf_append(&d->out, svg->data, svg->len);
        put(d, "</figure>\n");
        return;
    }
    put(d, "**");
    put_escaped(d, f->title);
    put(d, "** ");
    put_escaped(d, f->caption);
    put(d, "\n\n");
    if (d->folder != NULL) {
        buf_printf(&d->out, "![");
        put_escaped(d, f->title);
        put(d, "](");
        put_link(d, d->folder);
        buf_printf(&d->out, "/%s.svg)\n\n", f->name);
        keep_plot(d, f->name, svg);
    } else if (f->spark[0] != 0) {
        buf_printf(&d->out, "    %s\n\n", f->spark);
    }
}
