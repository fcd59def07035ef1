/* What a worker is told by its file and its command line; the command line wins. */
#ifndef WORKER_CONFIG_H
#define WORKER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define CONFIG_FILE            "/etc/ds/dsworkerd.yaml"
#define CONFIG_SERVER          "127.0.0.1:6818"
#define CONFIG_STATE_DIR       "/var/lib/ds/worker"
#define CONFIG_ACCELERATOR_MAX 1024u

/* Declared accelerators: `count` alike. */
struct config_accelerator {
    char *model; /* owned */
    uint32_t count;
};

struct config {
    char *name;                  /* of the node */
    char *server;                /* a path (has a '/') or host:port */
    char *state_dir;             /* absolute */
    char *addr;                  /* where other nodes reach it; NULL: as seen on the link */
    char *dstrain, *dsshim;      /* programs, absolute */
    char *nvml_library;          /* for dlopen */
    char *kmsg;                  /* the kernel's log, read for Xids */
    uint64_t health_interval_ms; /* between readings of all that the driver says */
    bool accelerators_auto;      /* ask NVML */
    struct config_accelerator *accelerators; /* owned */
    size_t accelerator_count;
    uint64_t orphan_timeout_ms; /* ranks without a worker are stopped after this; 0 never */
    uint64_t log_file_mib;      /* rotate a rank's output beyond */
    uint32_t log_files;         /* rotated files kept beside the current one */
    uint64_t log_total_mib;     /* of ended attempts; the oldest go first */
    int log_level;
    bool help, version; /* print and leave; nothing else is set */
};

/* Reads options, then the file they name (or DS_CONFIG, or CONFIG_FILE when it exists). ERR_USAGE
 * for the command line, ERR_CONFIG for the file. The caller calls config_fini in any case. */
int config_load(struct config *c, int argc, char **argv, struct err *err);
void config_fini(struct config *c);
const char *config_usage(void);

#endif
