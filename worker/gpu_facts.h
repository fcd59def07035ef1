/* What a driver says of a GPU's condition, and what follows from it. Pure. Classes and rules after
 * NVIDIA's catalogue of Xids (reference reliability §2.3, §2.4); the driver's own verdict goes
 * first where it gives one. */
#ifndef WORKER_GPU_FACTS_H
#define WORKER_GPU_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* By how bad they are. Up to GPU_WATCH jobs may go on being started on it. */
enum gpu_verdict {
    GPU_OK,
    GPU_WATCH,   /* worth saying: slow, corrected, or the business of the program that ran */
    GPU_RESET,   /* the GPU must be reset before it is used again */
    GPU_REBOOT,  /* only a reboot of the node brings it back */
    GPU_REPLACE, /* to be looked at and probably replaced */
};

enum gpu_recovery { /* NVML's, from driver 570 on */
                    RECOVERY_NONE,
                    RECOVERY_GPU_RESET,
                    RECOVERY_NODE_REBOOT,
                    RECOVERY_DRAIN_P2P,
                    RECOVERY_DRAIN_AND_RESET,
};

/* A reading that the driver does not give is 0, and for `recovery` RECOVERY_NONE. */
struct gpu_facts {
    uint64_t ecc_corrected, ecc_uncorrected; /* since the driver was loaded */
    uint64_t ecc_uncorrected_ever;
    uint32_t rows_corrected, rows_uncorrected; /* remapped because of such errors */
    bool remap_pending, remap_failed;
    uint32_t nvlinks, nvlinks_up;
    uint64_t nvlink_replays, nvlink_recoveries, nvlink_crc;
    uint32_t pcie_generation, pcie_generation_max, pcie_width, pcie_width_max;
    uint64_t throttle; /* NVML's bits of clock event reasons */
    enum gpu_recovery recovery;
    uint32_t xid; /* the worst since the worker started; 0: none */
    bool lost;    /* it does not answer */
};

/* What an Xid asks for; those that are not in the catalogue are watched. */
enum gpu_verdict xid_verdict(uint32_t xid);
/* In a few words: "uncorrectable ECC error". "" when it is not in the catalogue. */
const char *xid_text(uint32_t xid);
/* "NVRM: Xid (PCI:0000:65:00): 79, pid=1234, name=python, GPU has fallen off the bus." anywhere in
 * a line of the kernel's log. bus: receives "0000:65:00"; 32 bytes. */
bool xid_parse(const char *line, uint32_t *xid, char *bus, size_t bus_bytes);

/* health: what is reported of the GPU. "ok"; "ok: " and what is worth saying; or what must be done
 * and why, such as "reset: Xid 48, uncorrectable ECC error; row remapping pending". Cut to fit. */
enum gpu_verdict gpu_judge(const struct gpu_facts *facts, char *health, size_t bytes);

#endif
