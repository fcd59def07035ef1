/* check_gpu [small]: all checks on the GPU; small: with the small sizes alone, for
 * compute-sanitizer, which is slow. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/gpu/check.h"
#include "trainer/cuda/driver.h"
#include "trainer/cuda/ops.h"
#include "trainer/cuda/state.h"

#define EXIT_NO_GPU 78

static void section(const char *name, void (*body)(void))
{
    int passed = check.passed, failed = check.failed;
    body();
    printf("%-28s %d passed, %d failed\n", name, check.passed - passed, check.failed - failed);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    if (driver_check(1, &err) != 0 || state_open(0, &err) != 0) {
        fprintf(stderr, "check_gpu: %s\n", err.text);
        return EXIT_NO_GPU;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    check.gpu = &cuda_ops;
    check.cpu = op_cpu((int)cores);
    check.large = !(argc > 1 && strcmp(argv[1], "small") == 0);
    check_start("check_gpu");
    section("op.h, rows", check_ops);
    section("op.h, mixture and products", check_mixture);
    section("codes", check_quantise);
    section("BF16 rows", check_rows);
    section("cuBLASLt", check_gemm);
    section("grouped FP8", check_grouped);
    section("a model trained", check_train);
    printf("check_gpu: %d passed, %d failed\n", check.passed, check.failed);
    return check.failed == 0 ? 0 : 1;
}
