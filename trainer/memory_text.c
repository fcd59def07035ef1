#include "trainer/memory_text.h"

#include "lib/mem.h"
#include "proto/plan_memory.h"

static const char *knob(const struct train_spec *train, const struct plan_memory *m)
{
    uint64_t passes = m->activations + m->workspace;
    uint64_t state = m->weights + m->gradients + m->optimizer;
    if (passes > state) {
        return train->micro_batch > 1 ? "lower train.micro_batch" : "lower train.sequence_length";
    }
    return "take a smaller model, or more ranks in train.parallel";
}

char *memory_text(const struct train_spec *train, const struct model_config *model, uint32_t ranks,
                  uint32_t pipeline_index)
{
    struct plan_run run = plan_run_of(train, model, ranks);
    struct plan_memory m;
    if (plan_memory(&run, pipeline_index, &m, NULL) != 0) {
        return mem_printf("%s", "");
    }
    const double gb = 1e9;
    return mem_printf(
        "the plan of this rank needs %.3f GB: weights %.3f, gradients %.3f, optimizer "
        "%.3f, activations %.3f, workspace %.3f, reserved %.3f (%s)",
        (double)m.total / gb, (double)m.weights / gb, (double)m.gradients / gb,
        (double)m.optimizer / gb, (double)m.activations / gb, (double)m.workspace / gb,
        (double)m.reserved / gb, knob(train, &m));
}
