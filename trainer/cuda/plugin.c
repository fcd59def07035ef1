/* What dsop_cuda.so shows to the outside: op_plugin.h's one function. */
#include <cuda_runtime_api.h>

#include "trainer/cuda/comm_nccl.h"
#include "trainer/cuda/driver.h"
#include "trainer/cuda/no_memory.h"
#include "trainer/cuda/ops.h"
#include "trainer/cuda/state.h"
#include "trainer/op_plugin.h"

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

static int plugin_open(uint32_t device, const char *plan, const struct op_table **op,
                       struct err *err)
{
    TRY(driver_check(device + 1, err));
    TRY(state_open(device, err));
    no_memory_plan(plan);
    *op = &cuda_ops;
    return 0;
}

static const struct op_plugin plugin = {
    .abi = OP_PLUGIN_ABI,
    .table_bytes = sizeof(struct op_table),
    .built = "CUDA " TEXT(CUDART_VERSION) " for sm_90a",
    .check = driver_check,
    .open = plugin_open,
    .comm = comm_nccl_create,
};

__attribute__((visibility("default"))) const struct op_plugin *dsop_plugin(void);

const struct op_plugin *dsop_plugin(void)
{
    return &plugin;
}
