/* dssim swarm */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/sim/cmd.h"
#include "daemon/sim/swarm.h"
#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"

#define FILE_BYTES_MAX (1024u * 1024u)

static const char usage[] =
    "usage: dssim swarm [--seeds N] [--seed FIRST] [--jobs J] [--from FILE] [--once] [--quiet]\n"
    "Random small clusters under every fault, one seed after the other. Each seed runs twice and\n"
    "must go the same way. Prints the seeds that failed; status 1 when there were any.\n"
    "\n"
    "  --seeds N      how many (default 100)\n"
    "  --seed FIRST   the first (default 1); the others follow\n"
    "  --from FILE    seeds from a file instead, one a line, # begins a comment\n"
    "  --jobs J       how many at a time (default: one a processor)\n"
    "  --once         run each seed once only\n"
    "  --fail-fast    start no more after the first failure\n"
    "  --quiet        print only failures and the closing line\n";

struct options {
    uint64_t first, count, jobs;
    const char *from;
    bool once, quiet, fail_fast, finished;
};

static const struct option long_options[] = {
    {"seeds", required_argument, NULL, 'n'},
    {"seed", required_argument, NULL, 's'},
    {"from", required_argument, NULL, 'f'},
    {"jobs", required_argument, NULL, 'j'},
    {"once", no_argument, NULL, '1'},
    {"quiet", no_argument, NULL, 'q'},
    {"fail-fast", no_argument, NULL, 'x'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int parse(int argc, char **argv, struct options *o, struct err *err)
{
    int c;
    while ((c = getopt_long(argc, argv, "hj:q", long_options, NULL)) != -1) {
        switch (c) {
        case 'n':
            TRY(cmd_number("--seeds", optarg, 1, 10000000, &o->count, err));
            break;
        case 's':
            TRY(cmd_number("--seed", optarg, 0, UINT64_MAX / 2, &o->first, err));
            break;
        case 'j':
            TRY(cmd_number("--jobs", optarg, 1, 1024, &o->jobs, err));
            break;
        case 'f':
            o->from = optarg;
            break;
        case '1':
            o->once = true;
            break;
        case 'q':
            o->quiet = true;
            break;
        case 'x':
            o->fail_fast = true;
            break;
        case 'h':
            fputs(usage, stdout);
            o->finished = true;
            return 0;
        default:
            return err_set(err, ERR_USAGE, "wrong use (dssim swarm --help)");
        }
    }
    if (optind < argc) {
        return err_set(err, ERR_USAGE, "unexpected argument '%s' (dssim swarm --help)",
                       argv[optind]);
    }
    return 0;
}

static int read_seeds(const char *path, uint64_t **seeds, size_t *count, struct err *err)
{
    struct buf text = {0};
    int rc = file_read(path, FILE_BYTES_MAX, &text, err);
    size_t capacity = 0, number = 0;
    char *rest = buf_cstr(&text), *line;
    while (rc == 0 && (line = strsep(&rest, "\n")) != NULL) {
        number++;
        line[strcspn(line, "#")] = 0;
        char *word = line + strspn(line, " \t\r");
        word[strcspn(word, " \t\r")] = 0;
        if (word[0] == 0) {
            continue;
        }
        void *items = *seeds;
        mem_grow(&items, &capacity, *count + 1, sizeof **seeds);
        *seeds = items;
        char what[4200];
        snprintf(what, sizeof what, "%s:%zu", path, number);
        rc = cmd_number(what, word, 0, UINT64_MAX / 2, &(*seeds)[*count], err);
        *count += rc == 0;
    }
    buf_fini(&text);
    return rc;
}

int cmd_swarm(int argc, char **argv)
{
    struct err err = {0};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    struct options o = {
        .first = 1, .count = 100, .jobs = processors > 0 ? (uint64_t)processors : 1};
    if (parse(argc, argv, &o, &err) != 0) {
        return cmd_fail(&err);
    }
    if (o.finished) {
        return 0;
    }
    uint64_t *seeds = NULL;
    size_t count = 0;
    if (o.from != NULL) {
        if (read_seeds(o.from, &seeds, &count, &err) != 0) {
            free(seeds);
            return cmd_fail(&err);
        }
    } else {
        count = (size_t)o.count;
        seeds = mem_alloc_array(count, sizeof *seeds);
        for (size_t i = 0; i < count; i++) {
            seeds[i] = o.first + i;
        }
    }
    struct swarm swarm = {.seeds = seeds,
                          .count = count,
                          .jobs = (int)o.jobs,
                          .twice = !o.once,
                          .fail_fast = o.fail_fast,
                          .quiet = o.quiet};
    int failed = swarm_run(&swarm);
    free(seeds);
    return failed == 0 ? 0 : 1;
}
