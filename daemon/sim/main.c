/* dssim: the coordinator's core on a virtual clock. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sim/cmd.h"
#include "lib/version.h"

static const char usage[] =
    "usage: dssim COMMAND [options]\n"
    "The coordinator's own decisions on a virtual clock, with faults.\n"
    "\n"
    "  run      one simulated cluster: a random small one under every fault, or a scenario\n"
    "  swarm    many random seeds, several at a time\n"
    "  replay   the jobs of a trace, beside FIFO and EASY backfill\n"
    "  whatif   the same trace with another policy or number of nodes\n"
    "\n"
    "dssim COMMAND --help says more; dssim --version prints the version.\n";

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", cmd_run},
    {"swarm", cmd_swarm},
    {"replay", cmd_replay},
    {"whatif", cmd_whatif},
};

int cmd_fail(const struct err *err)
{
    fprintf(stderr, "dssim: %s\n", err->text);
    return err_exit_status(err->code);
}

int cmd_number(const char *what, const char *text, uint64_t low, uint64_t high, uint64_t *value,
               struct err *err)
{
    char *end = NULL;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != 0 || errno != 0 || number < low ||
        number > high) {
        return err_set(err, ERR_USAGE, "%s: '%s' is not a whole number (allowed: %llu to %llu)",
                       what, text, (unsigned long long)low, (unsigned long long)high);
    }
    *value = number;
    return 0;
}

int cmd_format(const char *text, enum report_format *format, struct err *err)
{
    int value = report_format_parse(text);
    if (value < 0) {
        return err_set(err, ERR_USAGE, "-o: unknown format '%s' (allowed: table, csv, json)", text);
    }
    *format = (enum report_format)value;
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--version") == 0) {
        printf("dssim %s\n", DS_VERSION);
        return 0;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    if (name[0] != 0) {
        fprintf(stderr, "dssim: unknown command '%s' (dssim --help)\n", name);
    } else {
        fputs(usage, stderr);
    }
    return err_exit_status(ERR_USAGE);
}
