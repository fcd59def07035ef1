#include "worker/gpu_facts.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Xids */

static const struct xid {
    uint32_t first, last;
    enum gpu_verdict verdict;
    const char *text;
} xids[] = {
    {8, 8, GPU_WATCH, "the program's kernel timed out"},
    {11, 11, GPU_WATCH, "invalid command from the program"},
    {13, 13, GPU_WATCH, "graphics engine exception of the program"},
    {25, 25, GPU_WATCH, "invalid command from the program"},
    {31, 31, GPU_WATCH, "the program accessed memory that is not its own"},
    {32, 32, GPU_WATCH, "invalid push buffer of the program"},
    {37, 38, GPU_WATCH, "recorded by the driver"},
    {39, 41, GPU_WATCH, "exception of the program"},
    {43, 45, GPU_WATCH, "channel of a program torn down"},
    {46, 46, GPU_RESET, "the GPU stopped processing"},
    {48, 48, GPU_RESET, "uncorrectable ECC error"},
    {54, 54, GPU_REPLACE, "auxiliary power is not connected"},
    {60, 60, GPU_WATCH, "video processor exception of the program"},
    {62, 62, GPU_RESET, "internal micro-controller halt"},
    {63, 63, GPU_WATCH, "row remapping recorded: reset when idle"},
    {64, 64, GPU_REPLACE, "row remapping failed"},
    {66, 67, GPU_WATCH, "recorded by the driver"},
    {68, 72, GPU_WATCH, "exception of the program"},
    {74, 74, GPU_WATCH, "NVLink error"},
    {75, 77, GPU_WATCH, "exception of the program"},
    {79, 79, GPU_REBOOT, "fallen off the bus"},
    {80, 80, GPU_WATCH, "exception of the program"},
    {82, 86, GPU_WATCH, "exception of the program"},
    {88, 89, GPU_WATCH, "exception of the program"},
    {92, 92, GPU_WATCH, "high rate of corrected ECC errors"},
    {94, 94, GPU_WATCH, "contained ECC error: the program must restart"},
    {95, 95, GPU_RESET, "uncontained ECC error"},
    {96, 105, GPU_WATCH, "exception of the program"},
    {106, 107, GPU_WATCH, "recorded by the driver"},
    {109, 109, GPU_RESET, "context switch timed out"},
    {110, 110, GPU_RESET, "security fault"},
    {119, 119, GPU_RESET, "GSP does not answer"},
    {120, 120, GPU_RESET, "GSP error"},
    {121, 121, GPU_WATCH, "C2C link error, corrected"},
    {126, 135, GPU_WATCH, "exception of the program"},
    {136, 136, GPU_RESET, "link training failed"},
    {137, 137, GPU_WATCH, "NVLink access fault of the program"},
    {139, 139, GPU_WATCH, "exception of the program"},
    {140, 140, GPU_RESET, "unrecovered ECC error"},
    {143, 143, GPU_RESET, "initialisation failed"},
    {144, 150, GPU_WATCH, "NVLink error"},
    {151, 151, GPU_REBOOT, "key rotation failed"},
    {154, 154, GPU_WATCH, "the recovery action changed"},
    {155, 156, GPU_RESET, "NVLink or memory error that needs a reset"},
    {158, 158, GPU_RESET, "fatal timeout"},
};

static const struct xid *xid_find(uint32_t xid)
{
    for (size_t i = 0; i < sizeof xids / sizeof xids[0]; i++) {
        if (xid >= xids[i].first && xid <= xids[i].last) {
            return &xids[i];
        }
    }
    return NULL;
}

enum gpu_verdict xid_verdict(uint32_t xid)
{
    const struct xid *x = xid_find(xid);
    return xid == 0 ? GPU_OK : x != NULL ? x->verdict : GPU_WATCH;
}

const char *xid_text(uint32_t xid)
{
    const struct xid *x = xid_find(xid);
    return x != NULL ? x->text : "";
}

bool xid_parse(const char *line, uint32_t *xid, char *bus, size_t bus_bytes)
{
    static const char mark[] = "NVRM: Xid (PCI:";
    const char *p = strstr(line, mark);
    if (p == NULL) {
        return false;
    }
    p += sizeof mark - 1;
    size_t len = strspn(p, "0123456789abcdefABCDEF:.");
    if (len == 0 || len >= bus_bytes || strncmp(p + len, "): ", 3) != 0 ||
        !isdigit((unsigned char)p[len + 3])) {
        return false;
    }
    char *end;
    unsigned long number = strtoul(p + len + 3, &end, 10);
    if (number == 0 || number > UINT16_MAX) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        bus[i] = (char)tolower((unsigned char)p[i]);
    }
    bus[len] = 0;
    *xid = (uint32_t)number;
    return true;
}

/* ---- the whole */

struct finding {
    enum gpu_verdict verdict;
    char *text;
    size_t bytes, len;
};

__attribute__((format(printf, 3, 4))) static void find(struct finding *f, enum gpu_verdict verdict,
                                                       const char *fmt, ...)
{
    va_list ap;
    f->verdict = verdict > f->verdict ? verdict : f->verdict;
    if (f->len > 0 && f->len + 2 < f->bytes) {
        f->len += (size_t)snprintf(f->text + f->len, f->bytes - f->len, "; ");
    }
    va_start(ap, fmt);
    int n = vsnprintf(f->text + f->len, f->bytes - f->len, fmt, ap);
    va_end(ap);
    f->len = n > 0 && (size_t)n < f->bytes - f->len ? f->len + (size_t)n : f->bytes - 1;
}

static void judge_recovery(struct finding *f, enum gpu_recovery recovery)
{
    switch (recovery) {
    case RECOVERY_NONE:
        break;
    case RECOVERY_GPU_RESET:
        find(f, GPU_RESET, "the driver asks for a reset");
        break;
    case RECOVERY_NODE_REBOOT:
        find(f, GPU_REBOOT, "the driver asks for a reboot");
        break;
    case RECOVERY_DRAIN_P2P:
        find(f, GPU_RESET, "the driver asks to drain peer-to-peer traffic");
        break;
    case RECOVERY_DRAIN_AND_RESET:
        find(f, GPU_RESET, "the driver asks to drain and reset");
        break;
    }
}

/* NVML's bits that mean less than full speed for a reason that is nobody's wish. */
static const struct throttle {
    uint64_t bit;
    const char *text;
} throttles[] = {
    {0x08, "hardware slowdown"},
    {0x20, "software thermal slowdown"},
    {0x40, "hardware thermal slowdown"},
    {0x80, "power brake"},
};

static void judge_memory(struct finding *f, const struct gpu_facts *facts)
{
    if (facts->remap_failed) {
        find(f, GPU_REPLACE, "row remapping failed");
    }
    if (facts->remap_pending) {
        find(f, GPU_RESET, "row remapping pending");
    }
    if (facts->ecc_uncorrected > 0) {
        find(f, GPU_WATCH, "%" PRIu64 " uncorrected ECC error%s", facts->ecc_uncorrected,
             facts->ecc_uncorrected == 1 ? "" : "s");
    }
}

static void judge_links(struct finding *f, const struct gpu_facts *facts)
{
    if (facts->nvlinks_up < facts->nvlinks) {
        find(f, GPU_RESET, "%" PRIu32 " of %" PRIu32 " NVLinks are up", facts->nvlinks_up,
             facts->nvlinks);
    }
    if (facts->nvlink_crc > 0 || facts->nvlink_recoveries > 0) {
        find(f, GPU_WATCH, "NVLink: %" PRIu64 " CRC errors, %" PRIu64 " recoveries",
             facts->nvlink_crc, facts->nvlink_recoveries);
    }
    if (facts->pcie_width < facts->pcie_width_max) {
        find(f, GPU_WATCH, "PCIe x%" PRIu32 " of x%" PRIu32, facts->pcie_width,
             facts->pcie_width_max);
    }
}

enum gpu_verdict gpu_judge(const struct gpu_facts *facts, char *health, size_t bytes)
{
    static const char *const prefix[] = {[GPU_OK] = "ok",
                                         [GPU_WATCH] = "ok: ",
                                         [GPU_RESET] = "reset: ",
                                         [GPU_REBOOT] = "reboot: ",
                                         [GPU_REPLACE] = "replace: "};
    char text[512] = "";
    struct finding f = {GPU_OK, text, sizeof text, 0};
    if (facts->lost) {
        find(&f, GPU_REBOOT, "the GPU is lost");
    }
    judge_recovery(&f, facts->recovery);
    if (facts->xid != 0) {
        const char *what = xid_text(facts->xid);
        find(&f, xid_verdict(facts->xid), "Xid %" PRIu32 "%s%s", facts->xid, *what != 0 ? ", " : "",
             what);
    }
    judge_memory(&f, facts);
    judge_links(&f, facts);
    for (size_t i = 0; i < sizeof throttles / sizeof throttles[0]; i++) {
        if (facts->throttle & throttles[i].bit) {
            find(&f, GPU_WATCH, "%s", throttles[i].text);
        }
    }
    snprintf(health, bytes, "%s%s", prefix[f.verdict], text);
    return f.verdict;
}
