/* What happened in a run, counted: that a fault did occur, that a checker did look. */
#ifndef DAEMON_SIM_COUNT_H
#define DAEMON_SIM_COUNT_H

#include <stdint.h>

#include "lib/buf.h"

/* X(name, text); a text alone begins a group. */
#define COUNTS(GROUP, X)                                                                           \
    GROUP("network")                                                                               \
    X(LOST, "connections lost")                                                                    \
    X(LOST_MESSAGES, "messages lost with them")                                                    \
    X(DELAYED, "messages delayed (over 1 s)")                                                      \
    X(COPIES, "messages delivered twice")                                                          \
    X(OVERTAKEN, "messages that overtook another")                                                 \
    X(MUTE, "silences one way")                                                                    \
    X(PARTITIONS, "partitions")                                                                    \
    GROUP("coordinator")                                                                           \
    X(CRASH_ANY, "crashes at any time")                                                            \
    X(CRASH_BEFORE, "crashes before a commit")                                                     \
    X(CRASH_AFTER, "crashes after a commit, before all was sent")                                  \
    X(PAUSES, "standstills")                                                                       \
    X(CLOCK_BACK, "clocks set back")                                                               \
    X(CLOCK_FORWARD, "clocks set forward")                                                         \
    GROUP("disk")                                                                                  \
    X(DISK_SLOW, "slow")                                                                           \
    X(DISK_FULL, "full")                                                                           \
    X(DISK_SYNC, "fsync fails")                                                                    \
    X(COMMITS_FAILED, "commits that failed")                                                       \
    X(POWER_LOST, "crashes that lost unsynced sectors")                                            \
    GROUP("nodes")                                                                                 \
    X(WORKER_RESTARTS, "workers restarted")                                                        \
    X(WORKER_CRASHES, "workers crashed before or after an order")                                  \
    X(REBOOTS, "machines rebooted")                                                                \
    X(RANKS, "ranks died")                                                                         \
    X(NODE_CLOCKS, "clocks set back or forward")                                                   \
    X(GPUS, "accelerators broke")                                                                  \
    X(START_FAILS, "starts failed")                                                                \
    GROUP("people")                                                                                \
    X(SUBMITS, "jobs")                                                                             \
    X(ORDERS, "cancel, hold, release, suspend, resume, requeue")                                   \
    X(CHANGES, "jobs changed")                                                                     \
    X(DRAINS, "drains")                                                                            \
    X(WINDOWS, "maintenance windows")                                                              \
    X(QUOTAS, "quotas and limits")                                                                 \
    X(CORRUPT, "checkpoints called corrupt")                                                       \
    GROUP("seen")                                                                                  \
    X(ATTEMPTS, "attempts")                                                                        \
    X(CKPTS, "checkpoints")                                                                        \
    X(PREEMPTIONS, "preemptions")                                                                  \
    X(SPARES, "nodes seen as spares")                                                              \
    X(DEPENDENCIES, "submits that wait for a job")                                                 \
    X(STALE, "stale shards refused")                                                               \
    GROUP("checked")                                                                               \
    X(INPUTS, "inputs")                                                                            \
    X(COMMITS, "commits")                                                                          \
    X(RELOADS, "reloads equal to the live state")                                                  \
    X(TABLES, "times the tables by all rules")                                                     \
    X(SHARES, "fair shares computed again")                                                        \
    X(STARTS, "orders to start")                                                                   \
    X(SQLITE, "seeds on SQLite")                                                                   \
    X(SIM_MS, "simulated ms")

#define COUNT_SKIP(text)
#define COUNT_NAME(name, text) COUNT_##name,
enum count { COUNTS(COUNT_SKIP, COUNT_NAME) COUNT_KINDS };

struct counts {
    uint64_t n[COUNT_KINDS];
};
void counts_add(struct counts *to, const struct counts *from);
/* A line a group; what never happened is said, too. */
void counts_write(struct buf *out, const struct counts *counts);

#endif
