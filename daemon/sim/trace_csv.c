/* CSV as spreadsheets and cluster tools write it: a header that names the columns (without one they
 * are job_id, submit, gpus, duration), quoted fields with "" for a quote, # comments; the delimiter
 * is a comma, semicolon or tab, whichever the first line has. Times are seconds, dates, or
 * HH:MM:SS. */
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "daemon/sim/trace.h"
#include "lib/mem.h"
#include "proto/jobspec.h"

#define COLUMNS_MAX 256
#define SECONDS_MAX 3e9

enum column { C_ID, C_SUBMIT, C_GPUS, C_DURATION, C_LIMIT, C_USER, C_COUNT };
static const char *const titles[C_COUNT] = {"job_id",   "submit",     "gpus",
                                            "duration", "time_limit", "user"};
/* Compared without case, blanks, '-', '_', '.' and what stands in brackets. */
static const char *const variants[C_COUNT][20] = {
    [C_ID] = {"jobid", "id", "job", "jobname", "name", "jobnumber", "jobidraw", "task"},
    [C_SUBMIT] = {"submit", "submittime", "submitted", "submitts", "submittedat", "submission",
                  "submissiontime", "arrival", "arrivaltime", "submits", "submitsec", "submittimes",
                  "time", "timestamp", "submitseconds", "created", "createdat"},
    [C_GPUS] = {"gpus", "gpu", "numgpus", "gpunum", "ngpus", "gpucount", "numgpu", "requestedgpus",
                "reqgpus", "procs", "processors", "numprocs", "accelerators", "slots"},
    [C_DURATION] = {"duration", "run", "runtime", "runtimes", "elapsed", "durations", "durationsec",
                    "durationseconds", "length", "elapsedtime", "walltimeused", "runseconds",
                    "elapsedraw"},
    [C_LIMIT] = {"timelimit", "limit", "walltime", "reqtime", "requestedtime", "requestedwalltime",
                 "estimate", "timelimits"},
    [C_USER] = {"user", "username", "userid", "owner"},
};

struct csv {
    const char *name;
    char *next;    /* the rest of the text */
    size_t number; /* of the line that comes */
    char delimiter;
    char *fields[COLUMNS_MAX];
    size_t count;
    size_t line;         /* where the record began */
    int column[C_COUNT]; /* index of the field; -1: none */
};

/* ---- records */
static int quoted(struct csv *csv, char **field, struct err *err)
{
    char *in = csv->next + 1, *out = csv->next;
    *field = out;
    for (; *in != 0; in++) {
        if (*in == '"' && in[1] == '"') {
            in++;
        } else if (*in == '"') {
            break;
        }
        csv->number += *in == '\n';
        *out++ = *in;
    }
    if (*in != '"') {
        return err_set(err, ERR_INVALID, "%s:%zu: a quote is never closed", csv->name, csv->line);
    }
    csv->next = in + 1;
    csv->next += strspn(csv->next, " \r");
    char end = *csv->next;
    if (end != 0 && end != '\n' && end != csv->delimiter) {
        return err_set(err, ERR_INVALID, "%s:%zu: text after a closing quote", csv->name,
                       csv->number);
    }
    *out = 0;
    return 0;
}

static void plain(struct csv *csv, char **field)
{
    char stop[] = {csv->delimiter, '\n', 0};
    *field = csv->next;
    csv->next += strcspn(csv->next, stop);
}

static void trim(char *text)
{
    size_t len = strlen(text);
    while (len > 0 && isspace((unsigned char)text[len - 1])) {
        text[--len] = 0;
    }
}

/* Splits the next record into fields; *found false at the end of the text. */
static int next_record(struct csv *csv, bool *found, struct err *err)
{
    csv->count = 0;
    while (csv->next[0] == '#' || csv->next[strspn(csv->next, " \t\r")] == '\n') {
        csv->next += strcspn(csv->next, "\n");
        csv->next += *csv->next == '\n';
        csv->number++;
    }
    csv->line = csv->number;
    *found = csv->next[strspn(csv->next, " \t\r")] != 0;
    for (bool more = *found; more;) {
        if (csv->count == COLUMNS_MAX) {
            return err_set(err, ERR_INVALID, "%s:%zu: more than %d columns", csv->name, csv->line,
                           COLUMNS_MAX);
        }
        char **field = &csv->fields[csv->count++];
        csv->next += strspn(csv->next, " ");
        if (*csv->next == '"') {
            TRY(quoted(csv, field, err));
        } else {
            plain(csv, field);
        }
        char end = *csv->next;
        *csv->next = 0;
        trim(*field);
        more = end == csv->delimiter;
        csv->next += end != 0;
        csv->number += end == '\n';
    }
    return 0;
}

/* ---- the header */
static void fold(const char *title, char *out, size_t bytes)
{
    size_t len = 0;
    for (; *title != 0 && *title != '(' && *title != '[' && len + 1 < bytes; title++) {
        if (isalnum((unsigned char)*title)) {
            out[len++] = (char)tolower((unsigned char)*title);
        }
    }
    out[len] = 0;
}

static int column_of(const char *title)
{
    char folded[64];
    fold(title, folded, sizeof folded);
    for (int c = 0; c < C_COUNT; c++) {
        for (size_t i = 0; i < 20 && variants[c][i] != NULL; i++) {
            if (strcmp(folded, variants[c][i]) == 0) {
                return c;
            }
        }
    }
    return -1;
}

static bool is_number(const char *text)
{
    char *end;
    strtod(text, &end);
    return end != text && *end == 0;
}

/* True when the record names columns; then it is used up. */
static int read_header(struct csv *csv, bool *is_header, struct err *err)
{
    *is_header = false;
    for (size_t i = 0; i < csv->count; i++) {
        int c = column_of(csv->fields[i]);
        if (c >= 0 && csv->column[c] < 0) {
            csv->column[c] = (int)i;
            *is_header = true;
        }
    }
    if (!*is_header) {
        if (csv->count < 4 || !is_number(csv->fields[2])) {
            return err_set(
                err, ERR_INVALID,
                "%s:%zu: this is neither a header nor a job (a header names the columns: "
                "job_id,submit,gpus,duration)",
                csv->name, csv->line);
        }
        for (int c = 0; c < 4; c++) {
            csv->column[c] = c;
        }
    }
    static const enum column needed[] = {C_SUBMIT, C_GPUS, C_DURATION};
    for (size_t i = 0; i < 3; i++) {
        if (csv->column[needed[i]] < 0) {
            return err_set(err, ERR_INVALID, "%s:%zu: the header has no column '%s'", csv->name,
                           csv->line, titles[needed[i]]);
        }
    }
    return 0;
}

/* ---- values */
static const char *field_of(const struct csv *csv, enum column c)
{
    int at = csv->column[c];
    return at >= 0 && (size_t)at < csv->count ? csv->fields[at] : "";
}

static int refuse(const struct csv *csv, enum column c, const char *why, struct err *err)
{
    return err_set(err, ERR_INVALID, "%s:%zu: column '%s' %s: '%.40s'", csv->name, csv->line,
                   titles[c], why, field_of(csv, c));
}

/* D-HH:MM:SS, HH:MM:SS, MM:SS. */
static bool parse_clock(const char *text, double *seconds)
{
    unsigned days = 0, a, b;
    double c;
    int used = 0;
    if (sscanf(text, "%u-%n", &days, &used) == 1 && used > 0) {
        text += used;
    } else {
        days = 0;
    }
    int end = 0;
    if (sscanf(text, "%u:%u:%lf%n", &a, &b, &c, &end) == 3 && text[end] == 0) {
        *seconds = days * 86400.0 + a * 3600.0 + b * 60.0 + c;
        return true;
    }
    end = 0;
    if (sscanf(text, "%u:%lf%n", &a, &c, &end) == 2 && text[end] == 0) {
        *seconds = days * 86400.0 + a * 60.0 + c;
        return true;
    }
    return false;
}

static bool parse_date(const char *text, double *seconds)
{
    static const char *const forms[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M",
                                        "%Y/%m/%d %H:%M:%S", "%Y-%m-%d"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct tm tm = {0};
        const char *end = strptime(text, forms[i], &tm);
        if (end == NULL) {
            continue;
        }
        *seconds = (double)timegm(&tm);
        if (*end == '.') {
            char *after;
            *seconds += strtod(end, &after);
            end = after;
        }
        int hours = 0, minutes = 0, used = 0;
        if (sscanf(end, "%d:%d%n", &hours, &minutes, &used) == 2 && (*end == '+' || *end == '-')) {
            *seconds -= hours * 3600.0 + (hours < 0 || *end == '-' ? -minutes : minutes) * 60.0;
            end += used;
        }
        end += *end == 'Z' || strcmp(end, " UTC") == 0 ? strlen(end) : 0;
        if (*end == 0) {
            return true;
        }
    }
    return false;
}

static int read_time(const struct csv *csv, enum column c, bool may_be_date, int64_t *ms,
                     struct err *err)
{
    const char *text = field_of(csv, c);
    double seconds;
    char *end;
    uint64_t duration_ms;
    struct err ignored = {0};
    seconds = strtod(text, &end);
    if (end == text || *end != 0) {
        if (!may_be_date && duration_parse(text, &duration_ms, &ignored) == 0) {
            seconds = (double)duration_ms / 1000;
        } else if (!parse_clock(text, &seconds) && !(may_be_date && parse_date(text, &seconds))) {
            return refuse(csv, c,
                          may_be_date ? "is no time (seconds, or 2024-01-31 12:00:00)"
                                      : "is no duration (seconds, 1:30:00 or 90m)",
                          err);
        }
    }
    if (!isfinite(seconds) || seconds < 0 || seconds > 2 * SECONDS_MAX) {
        return refuse(csv, c, "is out of range", err);
    }
    *ms = llround(seconds * 1000);
    return 0;
}

static int read_count(const struct csv *csv, enum column c, double *count, struct err *err)
{
    const char *text = field_of(csv, c);
    char *end;
    *count = strtod(text, &end);
    if (end == text || *end != 0 || !isfinite(*count) || *count != floor(*count)) {
        return refuse(csv, c, "is no whole number", err);
    }
    return *count < 0 || *count > 1e9 ? refuse(csv, c, "is out of range", err) : 0;
}

static int read_job(struct trace *trace, const struct csv *csv, struct err *err)
{
    size_t needed = 0;
    for (int c = 0; c <= C_DURATION; c++) {
        needed = csv->column[c] + 1 > (int)needed ? (size_t)(csv->column[c] + 1) : needed;
    }
    if (csv->count < needed) {
        return err_set(err, ERR_INVALID, "%s:%zu: %zu fields, at least %zu are expected", csv->name,
                       csv->line, csv->count, needed);
    }
    struct trace_job job = {0};
    double gpus;
    TRY(read_time(csv, C_SUBMIT, true, &job.submit_ms, err));
    TRY(read_count(csv, C_GPUS, &gpus, err));
    TRY(read_time(csv, C_DURATION, false, &job.run_ms, err));
    if (field_of(csv, C_LIMIT)[0] != 0) {
        TRY(read_time(csv, C_LIMIT, false, &job.limit_ms, err));
    }
    if (gpus < 1) {
        trace->skipped++; /* without accelerators: not ours */
        return 0;
    }
    job.procs = (uint64_t)gpus;
    const char *id = field_of(csv, C_ID), *user = field_of(csv, C_USER);
    job.id = id[0] != 0 ? mem_strdup(id) : mem_printf("%zu", trace->count + 1);
    job.user = user[0] != 0 ? mem_strdup(user) : NULL;
    *trace_add(trace) = job;
    return 0;
}

int trace_read_csv(struct trace *trace, char *text, const char *name, struct err *err)
{
    struct csv csv = {.name = name, .next = text, .number = 1, .delimiter = ','};
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) {
        csv.next += 3;
    }
    for (int c = 0; c < C_COUNT; c++) {
        csv.column[c] = -1;
    }
    const char *head = csv.next;
    while (*head == '#' || *head == '\n' || *head == '\r') {
        head += strcspn(head, "\n");
        head += *head == '\n';
    }
    size_t line = strcspn(head, "\n");
    if (memchr(head, ',', line) == NULL) {
        csv.delimiter = memchr(head, ';', line) != NULL    ? ';'
                        : memchr(head, '\t', line) != NULL ? '\t'
                                                           : ',';
    }
    bool found, is_header;
    TRY(next_record(&csv, &found, err));
    if (!found) {
        return err_set(err, ERR_INVALID, "%s is empty", name);
    }
    TRY(read_header(&csv, &is_header, err));
    if (!is_header) {
        TRY(read_job(trace, &csv, err));
    }
    for (;;) {
        TRY(next_record(&csv, &found, err));
        if (!found) {
            return 0;
        }
        TRY(read_job(trace, &csv, err));
    }
}
