/* Control groups (v2), where this process may make some: then the kernel kills a whole attempt at
 * once. Nothing here is required. */
#ifndef WORKER_CGROUP_H
#define WORKER_CGROUP_H

#include <stdbool.h>
#include <stddef.h>

/* The folder of this process's own group, when it is delegated to us: ours to write, not the root,
 * with cgroup.kill (Linux 5.14). */
bool cgroup_find_own(char *path, size_t bytes);

/* True when the folder is there afterwards. */
bool cgroup_make(const char *path);
/* An open descriptor of its cgroup.procs (writing "0" moves the writer in), or -1. */
int cgroup_open_procs(const char *path);
/* KILL to all in it. True when the group exists and the kernel took the order. */
bool cgroup_kill(const char *path);
/* Removes it; fails silently while processes are in it. */
void cgroup_remove(const char *path);

#endif
