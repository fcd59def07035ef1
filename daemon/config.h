/* dsd.yaml and the command line's say over it. */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include "daemon/config_sched.h"
#include "daemon/conn.h"
#include "daemon/core/core.h"
#include "lib/err.h"
#include "lib/log.h"

#define CONFIG_FILE "/etc/ds/dsd.yaml"

struct config {
    struct core_config core;
    struct conn_limits limits;
    char *state_dir; /* owned, as all below; absolute */
    char *socket;    /* absolute */
    char *listen;    /* HOST:PORT; NULL: no TCP */
    char *prices;    /* absolute; NULL: everything is free of charge */
    enum log_level log_level;
    struct sched_config sched; /* what core.policy points into */
};

/* What the command line sets; NULL: nothing. */
struct config_flags {
    const char *config, *state_dir, *socket, *listen, *prices;
};

/* Reads flags->config, else $DS_CONFIG, else CONFIG_FILE when there is one; then the flags. Paths
 * of the file are relative to its folder, those of flags to the working folder. The caller calls
 * config_fini. ERR_CONFIG with file:line:column. */
int config_load(struct config *c, const struct config_flags *flags, struct err *err);
/* The same from a text; name for messages, dir absolute. flags->config is ignored. */
int config_parse(struct config *c, const char *yaml, size_t len, const char *name, const char *dir,
                 const struct config_flags *flags, struct err *err);
void config_fini(struct config *c); /* a zeroed one is fine */

#endif
