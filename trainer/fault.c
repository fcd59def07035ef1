#include "trainer/fault.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "lib/log.h"
#include "trainer/rng.h"

static bool is_on(const struct fault_spec *f, uint64_t epoch)
{
    return f->attempts == 0 || epoch <= f->attempts;
}

void fault_tokens(const struct fault_spec *f, const struct feed *feed, uint64_t first,
                  uint32_t count, int32_t *tokens, uint64_t epoch)
{
    size_t width = (size_t)feed->sequence_length + 1;
    for (uint32_t i = 0; f->noise_sequences > 0 && is_on(f, epoch) && i < count; i++) {
        uint64_t at = cursor_nth(&feed->cursor, first + i);
        if (at < f->noise_at || at - f->noise_at >= f->noise_sequences) {
            continue;
        }
        for (size_t k = 0; k < width; k++) {
            uint64_t random = rng_u64(at, rng_stream("fault"), k);
            tokens[i * width + k] = (int32_t)(random % feed->vocab);
        }
    }
}

/* The first parameter that all ranks of a stage hold. */
static const struct param *shared_param(struct model *model)
{
    size_t count;
    const struct param *params = model_params(model, &count);
    for (size_t i = 0; i < count; i++) {
        if (params[i].expert < 0 && !params[i].copy) {
            return &params[i];
        }
    }
    return NULL;
}

/* One of all, by chance; the same at every reading. */
static const struct param *any_param(struct model *model, uint64_t step, uint32_t rank)
{
    size_t count;
    const struct param *params = model_params(model, &count);
    size_t at = (size_t)(rng_u64(step, rng_stream("fault"), rank) % count);
    for (size_t i = 0; i < count; i++, at = (at + 1) % count) {
        if (!params[at].copy) {
            return &params[at];
        }
    }
    return NULL;
}

void fault_gradient(const struct fault_spec *f, struct model *model, const struct op_table *op,
                    uint64_t step, uint32_t rank, uint64_t epoch)
{
    bool inf = step == f->inf_step && rank == f->inf_rank;
    bool nan = step == f->nan_step && rank == f->nan_rank;
    const struct param *p = (inf || nan) && is_on(f, epoch) ? any_param(model, step, rank) : NULL;
    if (p != NULL) {
        float value = inf ? INFINITY : NAN;
        log_warn("fault: step %" PRIu64 ": a gradient of %s is %g here", step, p->name,
                 (double)value);
        op->copy_from_host(p->grad, &value, sizeof value);
    }
}

void fault_weight(const struct fault_spec *f, struct model *model, const struct op_table *op,
                  uint64_t step, uint32_t rank, uint64_t epoch)
{
    bool due = step == f->flip_step && rank == f->flip_rank && is_on(f, epoch);
    const struct param *p = due ? shared_param(model) : NULL;
    if (p != NULL) {
        uint32_t bits;
        log_warn("fault: step %" PRIu64 ": a bit of %s flips here", step, p->name);
        op->copy_to_host(&bits, p->weight, sizeof bits);
        bits ^= 1u;
        op->copy_from_host(p->weight, &bits, sizeof bits);
    }
}
