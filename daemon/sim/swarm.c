#include "daemon/sim/swarm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/sim/chaos.h"
#include "lib/buf.h"
#include "lib/err.h"
#include "lib/mem.h"

struct child {
    pid_t pid; /* 0: free */
    uint64_t seed;
    FILE *out;             /* what it printed */
    struct counts *counts; /* shared with it */
};

static void run_seed(const struct swarm *s, uint64_t seed, struct counts *counts)
{
    uint64_t hash = chaos_run(seed, false, s->quiet, counts);
    if (s->twice && chaos_run(seed, false, true, NULL) != hash) {
        printf("dssim: seed %" PRIu64 " went another way the second time\n", seed);
        fflush(stdout);
        _Exit(1);
    }
    fflush(stdout);
    _Exit(0);
}

static int start(const struct swarm *s, struct child *child, uint64_t seed)
{
    child->out = tmpfile();
    if (child->out == NULL) {
        return ERR_IO;
    }
    fflush(stdout);
    *child->counts = (struct counts){0};
    child->pid = fork();
    if (child->pid < 0) {
        child->pid = 0;
        fclose(child->out);
        return ERR_IO;
    }
    child->seed = seed;
    if (child->pid == 0) {
        dup2(fileno(child->out), STDOUT_FILENO);
        dup2(fileno(child->out), STDERR_FILENO);
        run_seed(s, seed, child->counts);
    }
    return 0;
}

static void show(struct child *child)
{
    char text[4096];
    rewind(child->out);
    for (size_t got; (got = fread(text, 1, sizeof text, child->out)) > 0;) {
        fwrite(text, 1, got, stdout);
    }
    fclose(child->out);
    fflush(stdout);
}

/* Waits for one child; true when its seed failed. */
static bool reap(struct child *children, int count, struct buf *failed, struct counts *total)
{
    int status;
    pid_t pid;
    do {
        pid = wait(&status);
    } while (pid < 0 && errno == EINTR);
    for (int i = 0; i < count; i++) {
        struct child *child = &children[i];
        if (pid <= 0 || child->pid != pid) {
            continue;
        }
        child->pid = 0;
        show(child);
        counts_add(total, child->counts);
        if (WIFSIGNALED(status)) {
            printf("dssim: seed %" PRIu64 " died of signal %d\n", child->seed, WTERMSIG(status));
        }
        if (status != 0) {
            buf_printf(failed, " %" PRIu64, child->seed);
        }
        return status != 0;
    }
    return false;
}

int swarm_run(const struct swarm *s)
{
    struct child *children = mem_alloc_array((size_t)s->jobs, sizeof *children);
    struct counts total = {0};
    struct counts *counts = mmap(NULL, (size_t)s->jobs * sizeof *counts, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) {
        fprintf(stderr, "dssim: no memory for %d processes: %s\n", s->jobs, strerror(errno));
        free(children);
        return ERR_IO;
    }
    for (int i = 0; i < s->jobs; i++) {
        children[i].counts = &counts[i];
    }
    struct buf failed = {0};
    size_t next = 0, running = 0;
    int failures = 0, rc = 0;
    while (next < s->count || running > 0) {
        bool may_start = next < s->count && rc == 0 && !(s->fail_fast && failures > 0);
        if (!may_start && running == 0) {
            break;
        }
        if (may_start && running < (size_t)s->jobs) {
            int free_slot = 0;
            while (children[free_slot].pid != 0) {
                free_slot++;
            }
            rc = start(s, &children[free_slot], s->seeds[next]);
            next += rc == 0;
            running += rc == 0;
            continue;
        }
        failures += reap(children, s->jobs, &failed, &total);
        running--;
    }
    if (rc != 0) {
        fprintf(stderr, "dssim: no process for seed %" PRIu64 ": %s\n", s->seeds[next],
                strerror(errno));
    }
    if (failures > 0) {
        printf("dssim: failed seeds:%s\n", buf_cstr(&failed));
    }
    struct buf text = {0};
    counts_write(&text, &total);
    fwrite(text.data, 1, text.len, stdout);
    printf("dssim: %zu passed, %d failed\n", next - (size_t)failures, failures);
    buf_fini(&text);
    buf_fini(&failed);
    munmap(counts, (size_t)s->jobs * sizeof *counts);
    free(children);
    return rc != 0 ? rc : failures;
}
