/* README.md of an exported folder: what is known of the model and of the run that made it. What is
 * not known is left out. */
#ifndef TRAINER_HF_CARD_H
#define TRAINER_HF_CARD_H

#include <jansson.h>

#include "lib/buf.h"
#include "proto/model_config.h"
#include "trainer/ckpt_facts.h"
#include "trainer/hf_plan.h"
#include "trainer/hf_tokenizer.h"

struct hf_card {
    const struct ckpt_facts *facts;
    const struct model_config *config;
    const struct hf_plan *plan;
    enum export_dtype dtype;
    enum hf_tokenizer_kind tokenizer;
    const json_t *run;     /* of the facts, parsed; or NULL */
    const json_t *job;     /* ds/job/v1, or NULL */
    const json_t *metrics; /* as hf_metrics_read gives them, or NULL */
};

void hf_card_write(struct buf *out, const struct hf_card *card);

#endif
