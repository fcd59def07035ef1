/* CSV as spreadsheets and cluster tools write it: a header that names the columns (without one they
 * are job_id, submit, gpus, duration), quoted fields with "" for a quote, # comments; the delimiter
 * is a comma, semicolon or tab, whichever the first line has. Times are seconds (or what the title
 * says, as in `submit_ms`), dates, or HH:MM:SS. Where no column says how long a job ran, its start
 * and its end do. */
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/sim/trace.h"
#include "daemon/sim/trace_time.h"
#include "lib/mem.h"

#define COLUMNS_MAX 256
#define SECONDS_MAX 3e9

enum column {
    C_ID,
    C_SUBMIT,
    C_GPUS,
    C_DURATION,
    C_LIMIT,
    C_USER,
    C_START,
    C_END,
    C_STATE,
    C_COUNT
};
static const char *const titles[C_COUNT] = {"job_id",     "submit",     "gpus",
                                            "duration",   "time_limit", "user",
                                            "start_time", "end_time",   "state"};
/* Compared without case, blanks, '-', '_', '.' and what stands in brackets; the first that a file
 * has counts. */
static const char *const variants[C_COUNT][20] = {
    [C_ID] = {"jobid", "id", "jobidraw", "jobnumber", "job", "jobname", "name", "task"},
    [C_SUBMIT] = {"submit", "submittime", "submitted", "submittedtime", "submitts", "submittedat",
                  "submission", "submissiontime", "arrival", "arrivaltime", "created", "createdat",
                  "creationtime", "createtime", "timestamp", "time"},
    [C_GPUS] = {"gpus", "gpu", "numgpus", "gpunum", "ngpus", "gpucount", "numgpu", "requestedgpus",
                "reqgpus", "gpurequest", "usedgpus", "accelerators", "procs", "processors",
                "numprocs", "slots"},
    [C_DURATION] = {"duration", "run", "runtime", "elapsed", "elapsedtime", "elapsedraw", "length",
                    "walltimeused", "jobduration", "actualruntime"},
    [C_LIMIT] = {"timelimit", "limit", "walltime", "reqtime", "requestedtime", "requestedwalltime",
                 "estimate", "timelimitraw"},
    [C_USER] = {"user", "username", "userid", "owner"},
    [C_START] = {"starttime", "start", "started", "startedat", "starttimestamp", "scheduledtime"},
    [C_END] = {"endtime", "end", "ended", "endedat", "finishtime", "finish", "finished",
               "finishedat", "completiontime", "completedat", "deletiontime"},
    [C_STATE] = {"state", "status", "jobstate", "podphase", "finalstate"},
};

struct csv {
    const char *name;
    char *next;    /* the rest of the text */
    size_t number; /* of the line that comes */
    char delimiter;
    char *fields[COLUMNS_MAX];
    size_t count;
    size_t line;          /* where the record began */
    int column[C_COUNT];  /* index of the field; -1: none */
    double unit[C_COUNT]; /* seconds of one, of a number in it */
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

/* Which column it is, and how good the name is (0 is best); -1: none of ours. */
static int column_of(const char *folded, int *rank)
{
    for (int c = 0; c < C_COUNT; c++) {
        for (int i = 0; i < 20 && variants[c][i] != NULL; i++) {
            if (strcmp(folded, variants[c][i]) == 0) {
                *rank = i;
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

static int check_header(const struct csv *csv, struct err *err)
{
    static const enum column needed[] = {C_SUBMIT, C_GPUS, C_DURATION};
    for (size_t i = 0; i < 3; i++) {
        bool from_times =
            needed[i] == C_DURATION && csv->column[C_START] >= 0 && csv->column[C_END] >= 0;
        if (csv->column[needed[i]] < 0 && !from_times) {
            return err_set(err, ERR_INVALID,
                           "%s:%zu: the header has no column '%s'%s (name the columns "
                           "job_id,submit,gpus,duration)",
                           csv->name, csv->line, titles[needed[i]],
                           needed[i] == C_DURATION ? ", nor start_time and end_time" : "");
        }
    }
    return 0;
}

/* True when the record names columns; then it is used up. */
static int read_header(struct csv *csv, bool *is_header, struct err *err)
{
    int ranks[C_COUNT];
    *is_header = false;
    for (size_t i = 0; i < csv->count; i++) {
        char title[256], folded[64];
        int rank;
        snprintf(title, sizeof title, "%s", csv->fields[i]);
        double unit = trace_time_unit(title);
        fold(title, folded, sizeof folded);
        int c = column_of(folded, &rank);
        if (c >= 0 && (csv->column[c] < 0 || rank < ranks[c])) {
            csv->column[c] = (int)i;
            csv->unit[c] = unit > 0 ? unit : 1;
            ranks[c] = rank;
            *is_header = true;
        }
    }
    if (*is_header) {
        return check_header(csv, err);
    }
    if (csv->count < 4 || !is_number(csv->fields[2])) {
        return err_set(err, ERR_INVALID,
                       "%s:%zu: this is neither a header nor a job (a header names the columns: "
                       "job_id,submit,gpus,duration)",
                       csv->name, csv->line);
    }
    for (int c = 0; c < 4; c++) {
        csv->column[c] = c;
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

/* What programs write for "nothing". */
static bool is_nothing(const char *text)
{
    static const char *const words[] = {"",   "-",   "nan",     "none", "null",
                                        "na", "n/a", "unknown", "nat"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int read_time(const struct csv *csv, enum column c, bool is_date, int64_t *ms,
                     struct err *err)
{
    const char *text = field_of(csv, c);
    char *end;
    double seconds = strtod(text, &end) * csv->unit[c];
    if (end == text || *end != 0) {
        if (!(is_date ? trace_time_date(text, &seconds) || trace_time_length(text, &seconds)
                      : trace_time_length(text, &seconds))) {
            return refuse(csv, c,
                          is_date ? "is no time (write seconds, or 2024-01-31 12:00:00)"
                                  : "is no duration (write seconds, 1:30:00 or 90m)",
                          err);
        }
    }
    if (!isfinite(seconds) || seconds < 0 || seconds > 2 * SECONDS_MAX) {
        return refuse(csv, c,
                      seconds > 0 ? "is out of range (seconds are meant; name the column such as "
                                    "submit_ms if they are milliseconds)"
                                  : "is out of range (a time is not negative)",
                      err);
    }
    *ms = llround(seconds * 1000);
    return 0;
}

/* Accelerators; a part of one takes a whole one here. */
static int read_gpus(struct trace *trace, const struct csv *csv, uint64_t *gpus, struct err *err)
{
    const char *text = field_of(csv, C_GPUS);
    char *end;
    double count = strtod(text, &end);
    if (end == text || *end != 0 || !isfinite(count)) {
        return refuse(csv, C_GPUS, "is no number (write how many accelerators, such as 8)", err);
    }
    if (count < 0 || count > 1e9) {
        return refuse(csv, C_GPUS, "is out of range (allowed: 0 to 1e9)", err);
    }
    trace->rounded += count != floor(count);
    *gpus = (uint64_t)ceil(count);
    return 0;
}

/* How long it ran; *ran false: it never did, and the file says so. */
static int read_length(const struct csv *csv, int64_t *ms, bool *ran, struct err *err)
{
    bool may_lack = csv->column[C_STATE] >= 0 || csv->column[C_START] >= 0;
    *ran = true;
    if (csv->column[C_DURATION] >= 0) {
        if (may_lack && is_nothing(field_of(csv, C_DURATION))) {
            *ran = false;
            return 0;
        }
        return read_time(csv, C_DURATION, false, ms, err);
    }
    int64_t start_ms, end_ms;
    if (is_nothing(field_of(csv, C_START)) || is_nothing(field_of(csv, C_END))) {
        *ran = false;
        return 0;
    }
    TRY(read_time(csv, C_START, true, &start_ms, err));
    TRY(read_time(csv, C_END, true, &end_ms, err));
    *ms = end_ms - start_ms;
    return *ms >= 0 ? 0 : refuse(csv, C_END, "lies before the start", err);
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
    bool ran;
    TRY(read_time(csv, C_SUBMIT, true, &job.submit_ms, err));
    TRY(read_gpus(trace, csv, &job.procs, err));
    TRY(read_length(csv, &job.run_ms, &ran, err));
    if (!is_nothing(field_of(csv, C_LIMIT))) {
        TRY(read_time(csv, C_LIMIT, false, &job.limit_ms, err));
    }
    if (!ran || job.procs == 0) {
        trace->skipped++;
        return 0;
    }
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
        csv.unit[c] = 1;
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
