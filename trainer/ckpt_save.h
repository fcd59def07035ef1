/* Saving, in the background. From a step boundary on a thread copies the rank's tensors while the
 * forward and backward passes of the next step read them; the optimiser waits for the copy. Then
 * the thread writes it to DIR/step-0000000100/shard-00001-of-00004.safetensors under a temporary
 * name, fsyncs file and folder, and tells the caller size and digests. One save is in flight at
 * most. The shard counts for nothing until the coordinator has all of them and commits. */
#ifndef TRAINER_CKPT_SAVE_H
#define TRAINER_CKPT_SAVE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/ckpt_facts.h"
#include "trainer/ckpt_tensors.h"
#include "trainer/op.h"

/* Of rank and world size. */
#define CKPT_SHARD_NAME "shard-%05u-of-%05u.safetensors"
/* In a shard's own metadata: how many threads its rank computed with. */
#define CKPT_THREADS_KEY "threads"

struct ckpt_shard {
    uint64_t step;
    uint32_t rank, world;
    char file[64];
    uint64_t bytes;
    char xxh3[33], sha256[65];
    int64_t stall_ms; /* the step loop waited, so far: for the save before, and for the copy */
    int64_t write_ms;
    const char *layout; /* the facts, encoded; valid during the call */
};

struct ckpt_saver;

/* Borrows tensors and op. dir: DS_CHECKPOINT_DIR. durable is called from the writing thread when a
 * shard is safe. */
struct ckpt_saver *ckpt_saver_create(const struct ckpt_tensors *tensors, const struct op_table *op,
                                     const char *dir, uint32_t rank, uint32_t world,
                                     uint32_t threads,
                                     void (*durable)(void *ctx, const struct ckpt_shard *shard),
                                     void *ctx);
/* Waits for a save in flight. */
void ckpt_saver_destroy(struct ckpt_saver *s);

/* Of the copy, which this process has from the first save on that is not the last. */
size_t ckpt_saver_bytes(const struct ckpt_saver *s);
/* Waits for the save before this one, begins to copy, returns; *stall_ms: how long that took. The
 * tensors may be read but not changed until ckpt_saver_copied. An error of the save before is
 * returned here. last: nothing is computed beside it, so the tensors are written from where they
 * are, and the process takes no memory for a copy; ckpt_saver_copied waits for the file then. */
int ckpt_save(struct ckpt_saver *s, const struct ckpt_facts *facts, bool last, int64_t *stall_ms,
              struct err *err);
/* Waits until the save in flight, if any, has its copy: weights change next. Returns the ms it
 * took, which are none where forward and backward passes lie in between. */
int64_t ckpt_saver_copied(struct ckpt_saver *s);
/* Waits for the save in flight and returns its outcome: 0, ERR_NOSPACE, ERR_IO... The first error
 * stays. */
int ckpt_saver_wait(struct ckpt_saver *s, struct err *err);
/* Whether a save has failed, without waiting. */
bool ckpt_saver_failed(struct ckpt_saver *s);

#endif
