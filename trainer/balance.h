/* Auxiliary-loss-free load balancing (Wang et al. 2024, algorithm 1; reference deepseek-v3 §5):
 * after each step, from the loads of the whole global batch, an expert below the mean load gets
 * +speed on its selection bias, one above -speed. */
#ifndef TRAINER_BALANCE_H
#define TRAINER_BALANCE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/comm.h"
#include "trainer/model.h"

/* Sums the routers' loads over all ranks: each counted those of the layers it has. Collective. */
int balance_sum_loads(struct router *routers, size_t count, struct comm *group, struct err *err);
/* MaxVio, largest load over the mean, minus 1: the mean over the routers; NAN when there are none.
 * each: NULL, or of every router. */
double balance_max_violation(const struct router *routers, size_t count, double *each);
/* gamma: see schedule.h. */
void balance_update(struct router *routers, size_t count, double speed);

#endif
