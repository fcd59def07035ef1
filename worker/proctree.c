/* One pass over /proc gives (pid, parent) of all processes; descendants are found from it by
 * sweeping until nothing is added. A process that forks during the pass may be missed; so
 * everything found is stopped and the pass repeated until it finds nothing new: then nothing below
 * is able to fork, and all of it is killed. */
#include "worker/proctree.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"

#define PASSES_MAX        64
#define ENVIRON_BYTES_MAX (4u * 1024u * 1024u)

struct process {
    pid_t pid, parent;
    char state;
    bool below;
    char name[16];
};
struct process_list {
    struct process *items; /* owned */
    size_t count, capacity;
};

static bool read_process(pid_t pid, struct process *p)
{
    char path[64];
    char text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0) {
        return false;
    }
    text[got] = 0;
    /* The name is in parentheses and may hold anything, parentheses too. */
    const char *open_paren = strchr(text, '(');
    const char *close_paren = strrchr(text, ')');
    int parent;
    if (open_paren == NULL || close_paren == NULL ||
        sscanf(close_paren + 1, " %c %d", &p->state, &parent) != 2) {
        return false;
    }
    snprintf(p->name, sizeof p->name, "%.*s", (int)(close_paren - open_paren - 1), open_paren + 1);
    p->pid = pid;
    p->parent = parent;
    return true;
}

typedef void (*pid_cb)(void *ctx, pid_t pid);

static int each_pid(pid_cb cb, void *ctx)
{
    DIR *d = opendir("/proc");
    if (d == NULL) {
        return -1;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        char *end;
        long pid = strtol(e->d_name, &end, 10);
        if (*end == 0 && pid > 0) {
            cb(ctx, (pid_t)pid);
        }
    }
    closedir(d);
    return 0;
}

static void add_process(void *ctx, pid_t pid)
{
    struct process_list *list = ctx;
    struct process p = {0};
    if (read_process(pid, &p)) {
        void *items = list->items;
        mem_grow(&items, &list->capacity, list->count + 1, sizeof p);
        list->items = items;
        list->items[list->count++] = p;
    }
}

static int by_pid(const void *a, const void *b)
{
    const struct process *left = a;
    const struct process *right = b;
    return (left->pid > right->pid) - (left->pid < right->pid);
}

static const struct process *find(const struct process_list *list, pid_t pid)
{
    struct process key = {.pid = pid};
    return list->count == 0 ? NULL : bsearch(&key, list->items, list->count, sizeof key, by_pid);
}

static bool is_below(const struct process_list *list, pid_t parent, pid_t root)
{
    const struct process *p = find(list, parent);
    return parent == root || (p != NULL && p->below);
}

/* Marks the descendants of root. */
static int scan(struct process_list *list, pid_t root)
{
    list->count = 0;
    if (each_pid(add_process, list) != 0) {
        return -1;
    }
    if (list->count > 0) {
        qsort(list->items, list->count, sizeof *list->items, by_pid);
    }
    bool more = true;
    while (more) {
        more = false;
        for (size_t i = 0; i < list->count; i++) {
            struct process *p = &list->items[i];
            if (!p->below && is_below(list, p->parent, root)) {
                p->below = true;
                more = true;
            }
        }
    }
    return 0;
}

static bool is_alive(const struct process *p)
{
    return p->below && p->state != 'Z' && p->state != 'X';
}

/* Stops what the previous pass did not know. Returns how many. */
static size_t stop_new(const struct process_list *now, const struct process_list *before)
{
    size_t fresh = 0;
    for (size_t i = 0; i < now->count; i++) {
        const struct process *p = &now->items[i];
        const struct process *known = find(before, p->pid);
        if (is_alive(p) && (known == NULL || !is_alive(known))) {
            kill(p->pid, SIGSTOP);
            fresh++;
        }
    }
    return fresh;
}

int proctree_kill(pid_t root)
{
    struct process_list lists[2] = {{0}, {0}};
    struct process_list *now = &lists[0];
    struct process_list *before = &lists[1];
    int found = 0;
    for (int pass = 0; pass < PASSES_MAX; pass++) {
        if (scan(now, root) != 0) {
            found = -1;
            break;
        }
        if (stop_new(now, before) == 0) {
            break;
        }
        struct process_list *swap = now;
        now = before;
        before = swap;
    }
    for (size_t i = 0; found >= 0 && i < now->count; i++) {
        if (is_alive(&now->items[i])) {
            kill(now->items[i].pid, SIGKILL);
            found++;
        }
    }
    free(lists[0].items);
    free(lists[1].items);
    return found;
}

void proctree_describe(pid_t root, struct buf *text)
{
    struct process_list list = {0};
    int shown = 0;
    if (scan(&list, root) == 0) {
        for (size_t i = 0; i < list.count && shown < 8; i++) {
            const struct process *p = &list.items[i];
            if (is_alive(p)) {
                buf_printf(text, "%s%d (%s) state %c", shown > 0 ? ", " : "", (int)p->pid, p->name,
                           p->state);
                shown++;
            }
        }
    }
    free(list.items);
}

/* ---- by environment */

struct env_search {
    const char *assignment;
    pid_t self;
    int found;
};

static bool has_assignment(pid_t pid, const char *assignment)
{
    char path[64];
    struct buf env = {0};
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    bool has = false;
    size_t len = strlen(assignment) + 1; /* with the NUL */
    if (file_read(path, ENVIRON_BYTES_MAX, &env, NULL) == 0) {
        buf_append(&env, "", 1);
        for (size_t at = 0; at + len <= env.len && !has; at += strlen((char *)env.data + at) + 1) {
            has = memcmp(env.data + at, assignment, len) == 0;
        }
    }
    buf_fini(&env);
    return has;
}

static void kill_if_matching(void *ctx, pid_t pid)
{
    struct env_search *search = ctx;
    if (pid == search->self) {
        return;
    }
    /* The pidfd is taken first: what is looked at and what is killed are then the same process. */
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        return;
    }
    struct process p = {0};
    if (has_assignment(pid, search->assignment) && read_process(pid, &p) && p.state != 'Z') {
        syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
        search->found++;
    }
    close(fd);
}

int proctree_kill_by_env(const char *assignment)
{
    struct env_search search = {assignment, getpid(), 0};
    each_pid(kill_if_matching, &search);
    return search.found;
}
