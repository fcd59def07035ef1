/* The answers of a small cluster: job 12 of two nodes and two attempts, checkpoint 7, a node, a
 * bill. */
#ifndef TESTS_UNIT_CTL_FAKE_CLUSTER_H
#define TESTS_UNIT_CTL_FAKE_CLUSTER_H

#include <stdatomic.h>

#include "tests/unit/ctl/fake_server.h"

/* What tests set, and what they look at afterwards. */
struct world {
    atomic_int submits;   /* requests to submit that arrived */
    atomic_int drops;     /* connections still to be dropped before an answer to a submit */
    char keys[2][64];     /* of the last two submits */
    atomic_int waits;     /* JOB_WAITs: the first finds job 12 RUNNING, the second one is dropped */
    char job_state[16];   /* of job 12 from the third on */
    int verify_ok;        /* the ledger is */
    atomic_int tails;     /* EVENT_LISTs that wait: the second one is dropped, the fifth refused */
    char asked_state[16]; /* by the last JOB_LIST */
};
extern struct world world;

void fake_cluster_answer(struct fake_call *call, uint16_t method, const ProtobufCMessage *request,
                         void *arg);

#endif
