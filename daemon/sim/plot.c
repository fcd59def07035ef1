#include "daemon/sim/plot.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/mem.h"

#define DAY_MS 86400000.0

void plot_init(struct plot *plot, const char *title, int64_t from_ms, int64_t to_ms, size_t points)
{
    *plot = (struct plot){.title = title, .from_ms = from_ms, .to_ms = to_ms, .points = points};
    plot->to_ms = to_ms > from_ms ? to_ms : from_ms + 1;
}

void plot_fini(struct plot *plot)
{
    for (size_t i = 0; i < plot->count; i++) {
        free(plot->series[i].utilisation);
        free(plot->series[i].queue);
    }
    free(plot->series);
    *plot = (struct plot){0};
}

/* Adds `weight` for the time from..to, spread over the stretches it touches. */
static void spread(const struct plot *plot, double *into, int64_t from_ms, int64_t to_ms,
                   double weight)
{
    double step = (double)(plot->to_ms - plot->from_ms) / (double)plot->points;
    double from = (double)(from_ms - plot->from_ms) / step;
    double to = (double)(to_ms - plot->from_ms) / step;
    from = from < 0 ? 0 : from;
    to = to > (double)plot->points ? (double)plot->points : to;
    for (size_t i = (size_t)from; (double)i < to; i++) {
        double begin = from > (double)i ? from : (double)i;
        double end = to < (double)i + 1 ? to : (double)i + 1;
        into[i] += weight * (end - begin);
    }
}

void plot_add(struct plot *plot, const char *name, const struct plot_span *spans, size_t count,
              uint64_t capacity)
{
    plot->series = mem_resize(plot->series, (plot->count + 1) * sizeof *plot->series);
    struct plot_series *s = &plot->series[plot->count++];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->utilisation = mem_alloc_array(plot->points, sizeof *s->utilisation);
    s->queue = mem_alloc_array(plot->points, sizeof *s->queue);
    for (size_t i = 0; i < count; i++) {
        const struct plot_span *span = &spans[i];
        spread(plot, s->utilisation, span->start_ms, span->end_ms,
               100.0 * (double)span->gpus / (double)capacity);
        if (span->wait_ms >= 0) {
            spread(plot, s->queue, span->wait_ms, span->start_ms, 1);
        }
    }
}

/* ---- gnuplot */
static void write_points(FILE *out, const struct plot *plot, const double *values)
{
    double step = (double)(plot->to_ms - plot->from_ms) / (double)plot->points / DAY_MS;
    for (size_t i = 0; i < plot->points; i++) {
        fprintf(out, "%.6g %.6g\n", ((double)i + 0.5) * step, values[i]);
    }
    fputs("e\n", out);
}

static void write_panel(FILE *out, const struct plot *plot, const char *label, bool queue)
{
    fprintf(out, "set ylabel '%s'\nset yrange [0:%s]\nplot ", label, queue ? "*" : "105");
    for (size_t i = 0; i < plot->count; i++) {
        fprintf(out, "%s'-' using 1:2 with lines linewidth 1.5 title '%s'", i > 0 ? ", " : "",
                plot->series[i].name);
    }
    fputc('\n', out);
    for (size_t i = 0; i < plot->count; i++) {
        write_points(out, plot, queue ? plot->series[i].queue : plot->series[i].utilisation);
    }
}

/* Texts of ours stand in single quotes there: a quote is doubled. */
static void put_quoted(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text != 0; text++) {
        if (*text == '\'') {
            fputc('\'', out);
        }
        fputc(*text == '\n' ? ' ' : *text, out);
    }
    fputs("'\n", out);
}

static void write_script(FILE *out, const struct plot *plot, const char *path, bool svg)
{
    fprintf(out, "set terminal %s\nset output ", svg ? "svg size 1200,800" : "png size 1200,800");
    put_quoted(out, path);
    fputs("set multiplot layout 2,1 title ", out);
    put_quoted(out, plot->title);
    fputs("set grid\nset key noenhanced top right\nset xlabel 'days'\n", out);
    write_panel(out, plot, "accelerators in use, %", false);
    write_panel(out, plot, "jobs waiting", true);
    fputs("unset multiplot\n", out);
}

static FILE *start_gnuplot(pid_t *pid)
{
    int ends[2];
    if (pipe(ends) != 0) {
        return NULL;
    }
    *pid = fork();
    if (*pid == 0) {
        dup2(ends[0], STDIN_FILENO);
        close(ends[0]);
        close(ends[1]);
        execlp("gnuplot", "gnuplot", "-", (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    if (*pid < 0) {
        close(ends[1]);
        return NULL;
    }
    return fdopen(ends[1], "w");
}

int plot_write(const struct plot *plot, const char *path, struct err *err)
{
    size_t len = strlen(path);
    bool svg = len > 4 && strcasecmp(path + len - 4, ".svg") == 0;
    if (!svg && !(len > 4 && strcasecmp(path + len - 4, ".png") == 0)) {
        return err_set(err, ERR_USAGE, "--plot: %s ends in neither .png nor .svg", path);
    }
    pid_t pid = -1;
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    FILE *out = start_gnuplot(&pid);
    if (out == NULL) {
        signal(SIGPIPE, before);
        return err_set_errno(err, "start gnuplot");
    }
    write_script(out, plot, path, svg);
    fclose(out);
    signal(SIGPIPE, before);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        return err_set(err, ERR_NOT_FOUND,
                       "%s: pictures are drawn by gnuplot, which is not installed (apt-get install "
                       "gnuplot-nox; --plot alone draws in the terminal)",
                       path);
    }
    return status == 0 ? 0 : err_set(err, ERR_IO, "gnuplot could not write %s", path);
}
