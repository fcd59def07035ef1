/* PLUG-IN SEAM. A back end that is a shared object, loaded at run time, so that the program itself
 * depends on none of its libraries (backend.c loads it). It exports one function, OP_PLUGIN_SYMBOL.
 */
#ifndef TRAINER_OP_PLUGIN_H
#define TRAINER_OP_PLUGIN_H

#include "trainer/comm.h"
#include "trainer/op.h"

/* Changes with this header and with anything in op.h. */
#define OP_PLUGIN_ABI    3
#define OP_PLUGIN_SYMBOL "dsop_plugin"

struct op_plugin {
    uint32_t abi;         /* OP_PLUGIN_ABI when it was built: first, read before all else */
    uint32_t table_bytes; /* sizeof(struct op_table) then */
    const char *built;    /* for people: with what, for what */
    /* Could ranks 0 to ranks - 1 of this machine each have a device? Looks only. */
    int (*check)(uint32_t ranks, struct err *err);
    /* Takes device number `device`, the calling process's for good. plan: a sentence on what this
     * rank needs, said when memory runs out; borrowed for good. */
    int (*open)(uint32_t device, const char *plan, const struct op_table **op, struct err *err);
    /* A group of ranks whose tensors are in the back end's memory; after open. As
     * comm_gloo_create(), without an address. */
    int (*comm)(struct comm **c, const struct comm_store *store, const char *prefix, uint32_t rank,
                uint32_t size, int64_t timeout_ms, struct err *err);
};

typedef const struct op_plugin *op_plugin_fn(void);

#endif
