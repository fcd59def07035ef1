#include "trainer/schedule.h"

#include <math.h>

double schedule_lr(const struct train_spec *spec, uint64_t step)
{
    double lr = spec->optimizer.lr;
    double lr_min = spec->optimizer.lr_min;
    uint64_t warmup = spec->optimizer.warmup_steps;
    uint64_t constant = spec->optimizer.constant_steps;
    if (step <= warmup) {
        return lr * (double)step / (double)warmup;
    }
    uint64_t decay_from = warmup + constant;
    if (step <= decay_from) {
        return lr;
    }
    if (step >= spec->steps) {
        return lr_min;
    }
    double progress = (double)(step - decay_from) / (double)(spec->steps - decay_from);
    return lr_min + 0.5 * (lr - lr_min) * (1.0 + cos(acos(-1.0) * progress));
}
