/* SWF: 18 numbers a line and perhaps more, -1 where nothing is known; comments begin with ; and may
 * be `Key: value`.
 */
#include <stdbool.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/sim/trace.h"
#include "lib/mem.h"

#define FIELDS      18
#define SECONDS_MAX 3e9 /* a hundred years */

enum { F_ID, F_SUBMIT, F_WAIT, F_RUN, F_USED, F_REQUESTED = 7, F_LIMIT, F_STATUS = 10, F_USER };

static const char *const names[FIELDS] = {
    "job number",      "submit time",      "wait time",   "run time",
    "used processors", "used CPU time",    "used memory", "requested processors",
    "requested time",  "requested memory", "status",      "user",
    "group",           "application",      "queue",       "partition",
    "preceding job",   "think time",
};

static void read_comment(struct trace *trace, const char *line)
{
    char key[32];
    double value;
    if (sscanf(line, "; %31[A-Za-z]: %lf", key, &value) == 2 && value >= 1 && value <= 1e9) {
        if (strcasecmp(key, "MaxNodes") == 0) {
            trace->max_nodes = (uint64_t)value;
        } else if (strcasecmp(key, "MaxProcs") == 0) {
            trace->max_procs = (uint64_t)value;
        }
    }
}

static int read_numbers(char *line, double values[FIELDS], char *texts[FIELDS], const char *name,
                        size_t number, struct err *err)
{
    size_t count = 0;
    for (char *word; (word = strsep(&line, " \t")) != NULL;) {
        if (word[0] == 0) {
            continue;
        }
        char *end;
        double value = strtod(word, &end);
        if (*end != 0 || !isfinite(value)) {
            return err_set(
                err, ERR_INVALID,
                "%s:%zu: field %zu (%s) is no number: '%.40s' (write -1 where nothing is known)",
                name, number, count + 1, count < FIELDS ? names[count] : "an extension", word);
        }
        if (count < FIELDS) { /* some archives append columns of their own */
            values[count] = value;
            texts[count] = word;
        }
        count++;
    }
    if (count < FIELDS) {
        return err_set(err, ERR_INVALID,
                       "%s:%zu: %zu fields, SWF has %d (write -1 where nothing is known; comments "
                       "begin with ;)",
                       name, number, count, FIELDS);
    }
    return 0;
}

static int check(const double v[FIELDS], const char *name, size_t number, struct err *err)
{
    static const int times[] = {F_SUBMIT, F_WAIT, F_RUN, F_LIMIT};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        if (fabs(v[times[i]]) > SECONDS_MAX * (times[i] == F_SUBMIT ? 2 : 1)) {
            return err_set(err, ERR_INVALID, "%s:%zu: field %d (%s) is out of range: %g s", name,
                           number, times[i] + 1, names[times[i]], v[times[i]]);
        }
    }
    if (v[F_SUBMIT] < 0) {
        return err_set(err, ERR_INVALID,
                       "%s:%zu: field 2 (submit time) is negative (a job without one cannot be "
                       "replayed: leave the line out)",
                       name, number);
    }
    if (v[F_USED] > 1e9 || v[F_REQUESTED] > 1e9) {
        return err_set(err, ERR_INVALID, "%s:%zu: more than 1e9 processors", name, number);
    }
    return 0;
}

static int read_line(struct trace *trace, char *line, const char *name, size_t number,
                     struct err *err)
{
    double v[FIELDS];
    char *texts[FIELDS];
    TRY(read_numbers(line, v, texts, name, number, err));
    TRY(check(v, name, number, err));
    double procs = v[F_REQUESTED] > 0 ? v[F_REQUESTED] : v[F_USED];
    bool never_ran = v[F_STATUS] == 5 && v[F_RUN] <= 0;
    if (v[F_RUN] < 0 || procs < 1 || never_ran) {
        trace->skipped++;
        return 0;
    }
    struct trace_job *job = trace_add(trace);
    job->id = mem_strdup(texts[F_ID]);
    job->user = v[F_USER] >= 0 ? mem_printf("u%s", texts[F_USER]) : NULL;
    job->submit_ms = llround(v[F_SUBMIT] * 1000);
    job->run_ms = llround(v[F_RUN] * 1000);
    job->limit_ms = v[F_LIMIT] > 0 ? llround(v[F_LIMIT] * 1000) : 0;
    job->procs = (uint64_t)procs;
    return 0;
}

int trace_read_swf(struct trace *trace, char *text, const char *name, struct err *err)
{
    size_t number = 0;
    for (char *line; (line = strsep(&text, "\n")) != NULL;) {
        number++;
        line[strcspn(line, "\r")] = 0;
        line += strspn(line, " \t");
        if (line[0] == ';') {
            read_comment(trace, line);
        } else if (line[0] != 0) {
            TRY(read_line(trace, line, name, number, err));
        }
    }
    return 0;
}
