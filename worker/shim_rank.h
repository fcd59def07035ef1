/* One rank as its shim sees it: a child process, two pipes, two log files. */
#ifndef WORKER_SHIM_RANK_H
#define WORKER_SHIM_RANK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/err.h"
#include "worker/log_file.h"

#define LAST_WORDS_BYTES 2048

struct shim_rank {
    uint32_t rank; /* global */
    pid_t pid;     /* 0: not running */
    bool exited;
    int32_t code, signal; /* as in RankExit */
    int64_t at_ms;
    int out, err; /* reading ends; -1: closed */
    struct log_file out_log, err_log;
    char last_words[LAST_WORDS_BYTES]; /* end of stderr */
    size_t last_words_bytes;
};

/* What all ranks of the attempt have in common. Borrowed. */
struct rank_start {
    char *const *argv; /* NULL-terminated */
    char *const *env;  /* NULL-terminated, with the rank's own variables */
    const char *workdir;
    int null_fd;       /* /dev/null, for stdin */
    int cgroup_fd;     /* cgroup.procs, or -1 */
    bool oom_reset;    /* set oom_score_adj to 0: the shim is protected, ranks are not */
    bool becomes_user; /* else the rest is not looked at */
    uid_t uid;
    gid_t gid;
    const uint32_t *groups;
    size_t group_count;
};

/* Starts the process in a process group of its own, with the shim's death as its own (SIGKILL).
 * ERR_* says what could not be done. */
int shim_rank_start(struct shim_rank *r, const struct rank_start *start, struct err *err);
void shim_rank_fini(struct shim_rank *r);

/* Takes what is in the pipes now, at most `turns` times 64 KiB of each, so that a talkative rank
 * does not starve the others. A closed pipe becomes -1. */
#define SHIM_DRAIN_SOME 4
#define SHIM_DRAIN_ALL                                                                             \
    64 /* more than a pipe holds; still an end, as someone may write on and on                     \
        */
void shim_rank_drain(struct shim_rank *r, int turns);
/* status: from waitpid. flight_dir: of the ranks' flight recorders, or NULL: what a rank that
 * failed was doing then is added to its last words. */
void shim_rank_exited(struct shim_rank *r, int status, int64_t now_ms, const char *flight_dir);
/* To its process group, or to it alone when it left that. */
void shim_rank_signal(const struct shim_rank *r, int signal);

#endif
