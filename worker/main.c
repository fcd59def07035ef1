#include <stdio.h>
#include <stdlib.h>

#include "lib/log.h"
#include "lib/version.h"
#include "worker/worker.h"

static int run(const struct config *config, struct err *err)
{
    struct worker w;
    int rc = worker_start(&w, config, err);
    if (rc == 0) {
        worker_run(&w);
    }
    worker_fini(&w);
    return rc;
}

int main(int argc, char **argv)
{
    struct config config;
    struct err err = {0};
    log_init("dsworkerd", LOG_INFO);
    /* Work on the pool waits for storage, not for a processor; a slow removal must not hold up
     * starts. */
    setenv("UV_THREADPOOL_SIZE", "16", 0);
    int rc = config_load(&config, argc, argv, &err);
    if (rc == 0 && config.help) {
        fputs(config_usage(), stdout);
    } else if (rc == 0 && config.version) {
        puts("dsworkerd " DS_VERSION);
    } else if (rc == 0) {
        log_init("dsworkerd", (enum log_level)config.log_level);
        rc = run(&config, &err);
    }
    config_fini(&config);
    if (rc != 0) {
        fprintf(stderr, "dsworkerd: %s\n", err.text);
    }
    return err_exit_status(rc);
}
