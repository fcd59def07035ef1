/* Killing every process below one, whatever it did to get away: process groups, sessions, double
 * forks. The caller is the subreaper (PR_SET_CHILD_SUBREAPER) of the tree, so that orphans stay
 * below it. */
#ifndef WORKER_PROCTREE_H
#define WORKER_PROCTREE_H

#include <stddef.h>
#include <sys/types.h>

#include "lib/buf.h"

/* Sends SIGKILL to all living descendants of root (not to root). They are stopped first, so that
 * none can fork away in between. Returns how many there were; -1 when /proc cannot be read. */
int proctree_kill(pid_t root);
/* Appends "PID (name) state S, ..." of the living descendants, at most 8 of them. */
void proctree_describe(pid_t root, struct buf *text);

/* Kills every process whose environment has exactly NAME=value in it; not the caller. Returns how
 * many were found. */
int proctree_kill_by_env(const char *assignment);

#endif
