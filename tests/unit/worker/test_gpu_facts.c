#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/random.h"
#include "worker/gpu_facts.h"

static void check(struct gpu_facts facts, enum gpu_verdict verdict, const char *expected)
{
    char health[256];
    assert_int_equal(gpu_judge(&facts, health, sizeof health), verdict);
    assert_string_equal(health, expected);
}

static void test_judge(void **state)
{
    (void)state;
    check((struct gpu_facts){0}, GPU_OK, "ok");
    /* what a healthy GPU of a busy node says */
    check((struct gpu_facts){.ecc_corrected = 12,
                             .ecc_uncorrected_ever = 1,
                             .rows_corrected = 3,
                             .nvlinks = 18,
                             .nvlinks_up = 18,
                             .nvlink_replays = 4,
                             .pcie_generation = 1, /* saves power while idle */
                             .pcie_generation_max = 5,
                             .pcie_width = 16,
                             .pcie_width_max = 16,
                             .throttle = 0x1 | 0x4},
          GPU_OK, "ok");
    check((struct gpu_facts){.ecc_uncorrected = 1}, GPU_WATCH, "ok: 1 uncorrected ECC error");
    check((struct gpu_facts){.remap_pending = true, .ecc_uncorrected = 2}, GPU_RESET,
          "reset: row remapping pending; 2 uncorrected ECC errors");
    check((struct gpu_facts){.remap_failed = true}, GPU_REPLACE, "replace: row remapping failed");
    check((struct gpu_facts){.nvlinks = 18, .nvlinks_up = 17}, GPU_RESET,
          "reset: 17 of 18 NVLinks are up");
    check((struct gpu_facts){.pcie_width = 8, .pcie_width_max = 16, .throttle = 0x40 | 0x80},
          GPU_WATCH, "ok: PCIe x8 of x16; hardware thermal slowdown; power brake");
    check((struct gpu_facts){.lost = true, .xid = 79}, GPU_REBOOT,
          "reboot: the GPU is lost; Xid 79, fallen off the bus");
    check((struct gpu_facts){.xid = 13}, GPU_WATCH,
          "ok: Xid 13, graphics engine exception of the program");
    check((struct gpu_facts){.xid = 999}, GPU_WATCH, "ok: Xid 999");
    static const enum gpu_verdict by_action[] = {GPU_OK, GPU_RESET, GPU_REBOOT, GPU_RESET,
                                                 GPU_RESET};
    for (int i = 0; i < 5; i++) {
        char health[256];
        struct gpu_facts facts = {.recovery = (enum gpu_recovery)i};
        assert_int_equal(gpu_judge(&facts, health, sizeof health), by_action[i]);
    }
}

/* Reference reliability §2.3. */
static void test_classes(void **state)
{
    (void)state;
    static const uint32_t resets[] = {46,  48,  62,  95,  109, 110, 119,
                                      120, 136, 140, 143, 155, 156, 158};
    static const uint32_t programs[] = {8, 13, 31, 43, 45, 63, 74, 92, 94, 121, 137, 154, 500};
    for (size_t i = 0; i < sizeof resets / sizeof resets[0]; i++) {
        assert_int_equal(xid_verdict(resets[i]), GPU_RESET);
        assert_true(xid_text(resets[i])[0] != 0);
    }
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
        assert_int_equal(xid_verdict(programs[i]), GPU_WATCH);
    }
    assert_int_equal(xid_verdict(79), GPU_REBOOT);
    assert_int_equal(xid_verdict(64), GPU_REPLACE);
    assert_int_equal(xid_verdict(0), GPU_OK);
}

static void test_parse(void **state)
{
    (void)state;
    uint32_t xid = 0;
    char bus[32] = "";
    assert_true(
        xid_parse("4,1234,5678,-;NVRM: Xid (PCI:0000:E5:00): 79, pid=1234, name=python, GPU "
                  "has fallen off the bus.",
                  &xid, bus, sizeof bus));
    assert_int_equal(xid, 79);
    assert_string_equal(bus, "0000:e5:00");
    assert_true(xid_parse("NVRM: Xid (PCI:0000:65:00): 13", &xid, bus, sizeof bus));
    assert_int_equal(xid, 13);
    static const char *const others[] = {
        "",
        "NVRM: Xid",
        "NVRM: Xid (PCI:",
        "NVRM: Xid (PCI:0000:65:00)",
        "NVRM: Xid (PCI:0000:65:00): ",
        "NVRM: Xid (PCI:0000:65:00): x",
        "NVRM: Xid (PCI:0000:65:00): 0",
        "NVRM: Xid (PCI:0000:65:00): 99999999999999999999",
        "NVRM: Xid (PCI:zz): 79",
        "NVRM: Xid (PCI:0000:65:00:0000:65:00:0000:65:00:0000): 79",
        "nvrm: xid (pci:0000:65:00): 79",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_false(xid_parse(others[i], &xid, bus, sizeof bus));
    }
}

/* Damaged lines and all facts at once: nothing is read or written where it should not be. */
static void test_random(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char line[] = "6,88,99,-;NVRM: Xid (PCI:0000:65:00): 48, pid=77, DBE";
        char bus[12];
        uint32_t xid;
        for (uint64_t n = random_below(4); n > 0; n--) {
            line[random_below(sizeof line - 1)] = (char)(1 + random_below(255));
        }
        if (xid_parse(line, &xid, bus, sizeof bus)) {
            assert_true(xid > 0 && strlen(bus) < sizeof bus);
        }
        struct gpu_facts facts = {.ecc_uncorrected = random_next(),
                                  .remap_pending = random_one_in(2),
                                  .remap_failed = random_one_in(2),
                                  .nvlinks = (uint32_t)random_below(20),
                                  .nvlinks_up = (uint32_t)random_below(20),
                                  .nvlink_crc = random_next(),
                                  .nvlink_recoveries = random_next(),
                                  .pcie_width = (uint32_t)random_below(32),
                                  .pcie_width_max = 16,
                                  .throttle = random_next(),
                                  .recovery = (enum gpu_recovery)random_below(5),
                                  .xid = (uint32_t)random_below(200),
                                  .lost = random_one_in(2)};
        size_t bytes = 1 + random_below(256);
        char *health = malloc(bytes);
        enum gpu_verdict verdict = gpu_judge(&facts, health, bytes);
        assert_true(strlen(health) < bytes);
        assert_true(verdict > GPU_WATCH ||
                    strncmp(health, "ok", bytes - 1 < 2 ? bytes - 1 : 2) == 0);
        free(health);
    }
}

int main(void)
{
    random_start("test_gpu_facts");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_judge), cmocka_unit_test(test_classes),
                                       cmocka_unit_test(test_parse), cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
