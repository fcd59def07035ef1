/* The guard (guard.h) of a run: reads and writes its decisions, and turns them into the way the
 * process ends and goes on. Each decision ends the attempt; the next one (the coordinator's, or the
 * launcher's) finds it in guard.jsonl. */
#ifndef TRAINER_WATCH_H
#define TRAINER_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/jobspec.h"
#include "trainer/ckpt_facts.h"
#include "trainer/comm.h"
#include "trainer/cursor.h"
#include "trainer/guard.h"
#include "trainer/replicas.h"

struct reporter;

struct watch {
    const struct guard_spec *spec; /* borrowed */
    struct comm *world;            /* borrowed */
    struct reporter *reporter;     /* borrowed; or NULL */
    char *root;                    /* owned; the folder of the attempts' folders */
    uint64_t epoch;
    struct guard_history history;
    char layout[96];
};

/* ckpt_dir: of this attempt. Rank 0 reads the file for all, and tells the coordinator again what
 * may not have arrived. reporter: NULL for none. Collective. */
int watch_init(struct watch *w, const struct train_spec *spec, const struct ckpt_facts *facts,
               struct comm *world, struct reporter *reporter, const char *ckpt_dir, uint64_t epoch,
               struct err *err);
void watch_fini(struct watch *w); /* a zeroed one is fine */

/* Is that checkpoint one of this run's? They are ROOT/ATTEMPT/step-STEP. */
bool watch_owns(const struct watch *w, const char *checkpoint);
/* The checkpoint to resume from, given the one that was asked for; own: it is one of this run's.
 * Sets *chosen, which the caller frees; NULL: none. Collective. */
int watch_choose(struct watch *w, const char *resume, bool own, char **chosen, struct err *err);
/* The run stands at `at`, or at its beginning: takes over what was decided, and says so.
 * cursor: of the data, standing there too; it is told what to pass over. */
void watch_take_over(struct watch *w, const struct train_spec *spec, bool own,
                     struct ckpt_facts *at, struct cursor *cursor);
/* Before the update of a step is applied. 0: go on. ERR_AGAIN: the next attempt does what was
 * decided; ERR_NUMERIC: a person has to; ERR_SILENT. The same on every rank. */
int watch_step(struct watch *w, struct guard_state *state, const struct guard_sample *sample,
               struct err *err);
/* After it, when replicas_check found something. Returns ERR_SILENT with what it was. Collective.
 */
int watch_replicas(struct watch *w, uint64_t step, const struct replica_finding *finding,
                   struct err *err);

/* How many decisions there are; *another: the last one is for the next attempt to carry out. */
size_t watch_decided(const char *ckpt_dir, bool *another);

#endif
