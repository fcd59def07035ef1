/* The checks on the kernels emulated on the CPU (emulate.hh). What only hardware can tell, products
 * of cuBLASLt and attention of cuDNN, is left to check_gpu. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/gpu/check.h"
#include "trainer/cuda/ops.h"
#include "trainer/cuda/state.h"

struct cuda_state cuda_state;

void state_check(int code, const char *what)
{
    if (code != 0) {
        printf("%s: launch function returned %d\n", what, code);
        abort();
    }
}

int main(void)
{
    static double partial[STATE_PARTIALS], sums[1];
    cuda_state.partial = partial;
    cuda_state.sums = sums;
    cuda_state.multiprocessors = 3;
    check.gpu = &cuda_ops;
    check.cpu = op_cpu(1);
    check_start("check_emulated");
    check_ops();
    check_mixture();
    check_quantise();
    check_rows();
    check_grouped();
    check_train();
    printf("emulated kernels: %d passed, %d failed\n", check.passed, check.failed);
    return check.failed == 0 ? 0 : 1;
}
