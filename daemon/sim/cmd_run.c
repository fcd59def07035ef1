/* dssim run */
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "daemon/sim/chaos.h"
#include "daemon/sim/cmd.h"

static const char usage[] =
    "usage: dssim run [--seed S] [--verbose]\n"
    "One simulated cluster from one seed; the same seed gives the same run to the bit.\n"
    "\n"
    "  --seed S        where chance begins (default 1)\n"
    "  --verbose       tell what happens\n";

static const struct option long_options[] = {
    {"seed", required_argument, NULL, 's'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

int cmd_run(int argc, char **argv)
{
    struct err err = {0};
    uint64_t seed = 1;
    bool verbose = false;
    int c;
    while ((c = getopt_long(argc, argv, "hv", long_options, NULL)) != -1) {
        switch (c) {
        case 's':
            if (cmd_number("--seed", optarg, 0, UINT64_MAX / 2, &seed, &err) != 0) {
                return cmd_fail(&err);
            }
            break;
        case 'v':
            verbose = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            return err_exit_status(ERR_USAGE);
        }
    }
    chaos_run(seed, verbose, false);
    return 0;
}
