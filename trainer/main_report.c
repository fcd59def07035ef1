/* dstrain report: command line. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "report/run_report.h"
#include "trainer/main.h"
#include "trainer/run.h"
#include "trainer/run_facts.h"

static const char help[] =
    "dstrain report RUN [options]: a report of the run in the folder RUN (the --out of dstrain\n"
    "run), also while it goes on: curves of loss, gradient norm, balance, learning rate and\n"
    "throughput, restarts, decisions of the guard, checkpoints, data seen, time and cost.\n"
    "dstrain run writes one at its end, into its own folder.\n"
    "\n"
    "Writes report.md, its pictures in report-plots/, and report.html, one file that needs no\n"
    "other and no network. Of a long run a plot shows lowest and highest value of every piece.\n"
    "\n"
    "  --out DIR            where to; default RUN. -: one of them on standard output, Markdown\n"
    "                       with sparklines\n"
    "  --format WHICH       md, html, both (default; to standard output md), or json: the facts\n"
    "                       and the figures of each curve, on standard output\n"
    "  --facts FILE         what `dsctl job show ID -o json` printed: nodes, causes, cost of a\n"
    "                       run under a coordinator\n"
    "  --price USD          of an hour of a rank, for the cost of a run without a coordinator\n";

struct report_options {
    const char *run, *out, *format, *facts;
    double price;
};

static bool parse_price(const char *text, double *price)
{
    char *end = NULL;
    errno = 0;
    *price = strtod(text, &end);
    return errno == 0 && end != text && *end == 0 && *price >= 0 && *price <= 1e6;
}

static bool is_format(const char *text)
{
    static const char *const all[] = {"md", "html", "both", "json"};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/* -1: go on, else the exit status. */
static int parse(struct report_options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"out", required_argument, NULL, 'o'},   {"format", required_argument, NULL, 'f'},
        {"facts", required_argument, NULL, 'F'}, {"price", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},        {0}};
    int c;
    *o = (struct report_options){.price = NAN};
    while ((c = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        switch (c) {
        case 'o':
            o->out = optarg;
            break;
        case 'f':
            if (!is_format(optarg)) {
                return main_usage("report", "--format wants md, html, both or json");
            }
            o->format = optarg;
            break;
        case 'F':
            o->facts = optarg;
            break;
        case 'p':
            if (!parse_price(optarg, &o->price)) {
                return main_usage("report", "--price wants dollars an hour, such as 2 or 0.35");
            }
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return main_usage("report", "wrong option");
        }
    }
    if (optind != argc - 1) {
        return main_usage("report", "report wants one folder of a run");
    }
    o->run = argv[optind];
    return -1;
}

static int print(const struct report_options *o, const json_t *facts, const struct metrics *m,
                 struct err *err)
{
    struct doc d;
    doc_init(&d, strcmp(o->format, "html") == 0 ? DOC_HTML : DOC_MARKDOWN, NULL);
    if (strcmp(o->format, "json") == 0) {
        json_t *whole = run_report_json(facts, m);
        char *text = json_dumps(whole, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
        buf_append_str(&d.out, text);
        buf_append_str(&d.out, "\n");
        free(text);
        json_decref(whole);
    } else {
        run_report_write(&d, facts, m);
    }
    int rc = file_write_all(STDOUT_FILENO, d.out.data, d.out.len, err);
    doc_fini(&d);
    return rc;
}

static int save(const struct report_options *o, const json_t *facts, const struct metrics *m,
                struct err *err)
{
    const char *folder = o->out != NULL ? o->out : o->run;
    bool both = strcmp(o->format, "both") == 0;
    enum doc_format format = strcmp(o->format, "md") == 0 ? DOC_MARKDOWN : DOC_HTML;
    char *path = mem_printf("%s/report.%s", folder, format == DOC_HTML ? "html" : "md");
    int rc = file_mkdirs(folder, 0777, err);
    if (rc == 0) {
        rc = both ? run_report_save_both(folder, facts, m, err)
                  : run_report_save(path, format, facts, m, err);
    }
    if (rc == 0) {
        printf("%s\n", path);
    }
    free(path);
    return rc;
}

static int make(struct report_options *o, struct err *err)
{
    json_t *facts = NULL;
    struct metrics m = {0};
    bool to_stdout = o->out != NULL && strcmp(o->out, "-") == 0;
    if (o->format == NULL) {
        o->format = to_stdout ? "md" : "both";
    } else if (to_stdout && strcmp(o->format, "both") == 0) {
        return err_set(err, ERR_USAGE, "--out - is for one format (--format md, html or json)");
    }
    TRY(run_facts_read(o->run, o->price, false, &facts, &m, err));
    int rc = o->facts != NULL ? run_facts_add(facts, &m, o->facts, err) : 0;
    if (rc == 0 && (to_stdout || strcmp(o->format, "json") == 0)) {
        rc = print(o, facts, &m, err);
    } else if (rc == 0) {
        rc = save(o, facts, &m, err);
    }
    metrics_fini(&m);
    json_decref(facts);
    return rc;
}

int main_report(int argc, char **argv)
{
    struct report_options o;
    struct err err = {0};
    int status = parse(&o, argc, argv);
    if (status >= 0) {
        return status;
    }
    int rc = make(&o, &err);
    return rc == 0 ? 0 : main_complain(&err, run_exit_status(rc));
}
