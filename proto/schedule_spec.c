#include "proto/schedule_spec.h"

#include <inttypes.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/buf_json.h"
#include "proto/jobspec.h"
#include "proto/jobspec_fields.h"

/* ---- the arithmetic of batches. The ramp has n equal increments at equal distances of tokens. */

static uint64_t increments(const struct train_spec *t)
{
    return (t->global_batch - t->plan.batch.from) / t->plan.batch.increment;
}

uint32_t schedule_batch(const struct train_spec *t, uint64_t tokens)
{
    const struct schedule_spec *s = &t->plan;
    if (s->batch.from == 0 || tokens >= s->batch.until) {
        return t->global_batch;
    }
    uint64_t done = (uint64_t)((unsigned __int128)tokens * increments(t) / s->batch.until);
    return s->batch.from + (uint32_t)done * s->batch.increment;
}

uint32_t schedule_context(const struct train_spec *t, uint64_t tokens)
{
    for (uint32_t i = 0; i < t->plan.contexts; i++) {
        if (tokens < t->plan.context[i].until) {
            return t->plan.context[i].length;
        }
    }
    return t->sequence_length;
}

/* Steps of one batch size until tokens reach `until` or a limit. */
static bool advance(uint64_t step_tokens, uint64_t until, uint64_t steps_max, uint64_t *steps,
                    uint64_t *tokens)
{
    uint64_t left = until > *tokens ? until - *tokens : 0;
    uint64_t n = left / step_tokens + (left % step_tokens != 0);
    uint64_t more;
    n = n < steps_max - *steps ? n : steps_max - *steps;
    *steps += n;
    return !__builtin_mul_overflow(n, step_tokens, &more) &&
           !__builtin_add_overflow(*tokens, more, tokens);
}

bool schedule_length(const struct train_spec *t, uint64_t steps_max, uint64_t tokens_max,
                     uint64_t *steps, uint64_t *tokens)
{
    const struct schedule_spec *s = &t->plan;
    uint64_t n = s->batch.from > 0 ? increments(t) : 0;
    *steps = *tokens = 0;
    for (uint64_t k = 0; k < n; k++) {
        /* the first token count at which k + 1 increments are done */
        unsigned __int128 product = (unsigned __int128)(k + 1) * s->batch.until;
        uint64_t until = (uint64_t)((product + n - 1) / n);
        uint64_t batch = s->batch.from + k * s->batch.increment;
        until = until < tokens_max ? until : tokens_max;
        if (!advance(batch * t->sequence_length, until, steps_max, steps, tokens)) {
            return false;
        }
    }
    return advance((uint64_t)t->global_batch * t->sequence_length, tokens_max, steps_max, steps,
                   tokens);
}

/* ---- reading */

static int read_tokens(const struct yaml_item *item, void *place, struct err *err)
{
    return jobspec_read_tokens(item, place, err);
}

#define AT(member) .offset = offsetof(struct schedule_spec, member)
#define TOKENS(name, member)                                                                       \
    {                                                                                              \
        .key = name, .type = YAML_CUSTOM, AT(member), .read = read_tokens                          \
    }
static int read_tails(const struct yaml_item *item, void *place, struct err *err);
static int read_contexts(const struct yaml_item *item, void *place, struct err *err);
static int read_preset(const struct yaml_item *item, void *place, struct err *err)
{
    (void)place;
    bool known = item->kind == YAML_ITEM_SCALAR && strcmp(item->text, "deepseek-v3") == 0;
    return known ? 0
                 : yaml_refuse(item, err, "%.60s is not one of them (allowed: deepseek-v3)",
                               item->kind == YAML_ITEM_SCALAR ? item->text : "this");
}

static const struct yaml_field batch_fields[] = {
    {.key = "from",
     .type = YAML_U32,
     AT(batch.from),
     .low = 1,
     .high = UINT32_MAX,
     .required = true},
    {.key = "until", .type = YAML_CUSTOM, AT(batch.until), .read = read_tokens, .required = true},
    {.key = "increment", .type = YAML_U32, AT(batch.increment), .low = 1, .high = UINT32_MAX},
    {.key = NULL}};
static const struct yaml_field fields[] = {
    {.key = "preset", .type = YAML_CUSTOM, .read = read_preset},
    TOKENS("constant_until", constant_until),
    TOKENS("decay_until", decay_until),
    {.key = "tails", .type = YAML_CUSTOM, .read = read_tails},
    TOKENS("bias_update_until", bias_update_until),
    TOKENS("mtp_lambda_until", mtp_lambda_until),
    {.key = "mtp_lambda_then", .type = YAML_DOUBLE, AT(mtp_lambda_then), .min = 0, .max = 100},
    {.key = "batch", .type = YAML_MAP, .fields = batch_fields},
    {.key = "context", .type = YAML_CUSTOM, .read = read_contexts},
    {.key = NULL}};

/* One entry of a list, and the place of its `until`. */
struct phase {
    uint64_t until;
    double lr;
    uint32_t length;
};
static const struct yaml_field tail_fields[] = {{.key = "until",
                                                 .type = YAML_CUSTOM,
                                                 .offset = offsetof(struct phase, until),
                                                 .read = read_tokens},
                                                {.key = "lr",
                                                 .type = YAML_DOUBLE,
                                                 .offset = offsetof(struct phase, lr),
                                                 .min = 0,
                                                 .max = 10,
                                                 .required = true},
                                                {.key = NULL}};
static const struct yaml_field context_fields[] = {{.key = "until",
                                                    .type = YAML_CUSTOM,
                                                    .offset = offsetof(struct phase, until),
                                                    .read = read_tokens,
                                                    .required = true},
                                                   {.key = "length",
                                                    .type = YAML_U32,
                                                    .offset = offsetof(struct phase, length),
                                                    .low = 1,
                                                    .high = UINT32_MAX,
                                                    .required = true},
                                                   {.key = NULL}};

static int read_phases(const struct yaml_item *item, const struct yaml_field *phase_fields,
                       const char *form, struct phase *phases, struct err *err)
{
    if (item->kind != YAML_ITEM_LIST || item->count == 0 || item->count > SCHEDULE_PHASES_MAX) {
        return yaml_refuse(item, err, "a list of 1 to %d phases is expected (allowed: [%s, ...])",
                           SCHEDULE_PHASES_MAX, form);
    }
    for (size_t i = 0; i < item->count; i++) {
        phases[i] = (struct phase){0};
        TRY(yaml_read(item->items[i], phase_fields, &phases[i], err));
        if (i > 0 && phases[i - 1].until == 0) {
            return yaml_refuse(item->items[i - 1], err, "'until' is missing before another phase");
        }
        if (i > 0 && phases[i].until != 0 && phases[i].until <= phases[i - 1].until) {
            return yaml_refuse(yaml_get(item->items[i], "until"), err,
                               "is not after the phase before, which lasts until %" PRIu64
                               " tokens",
                               phases[i - 1].until);
        }
    }
    return 0;
}

static int read_tails(const struct yaml_item *item, void *place, struct err *err)
{
    struct schedule_spec *s = place;
    struct phase phases[SCHEDULE_PHASES_MAX];
    TRY(read_phases(item, tail_fields, "{until: 14T, lr: 2.2e-5}", phases, err));
    s->tails = (uint32_t)item->count;
    for (uint32_t i = 0; i < s->tails; i++) {
        s->tail[i].until = phases[i].until;
        s->tail[i].lr = phases[i].lr;
    }
    return 0;
}

static int read_contexts(const struct yaml_item *item, void *place, struct err *err)
{
    struct schedule_spec *s = place;
    struct phase phases[SCHEDULE_PHASES_MAX];
    TRY(read_phases(item, context_fields, "{until: 1T, length: 1024}", phases, err));
    s->contexts = (uint32_t)item->count;
    for (uint32_t i = 0; i < s->contexts; i++) {
        s->context[i].until = phases[i].until;
        s->context[i].length = phases[i].length;
    }
    return 0;
}

/* ---- the published run, scaled to the length of this one */

#define V3_TOKENS      14800000000000u
#define V3_RAMP_FACTOR 5 /* 3072 to 15360 sequences */
#define V3_RAMP_FINE                                                                               \
    8 /* by 384, nearly a straight line; fewer where the ranks want more at once                   \
       */

static uint64_t share(uint64_t tokens, uint64_t point)
{
    unsigned __int128 product = (unsigned __int128)tokens * point + V3_TOKENS / 2;
    return (uint64_t)(product / V3_TOKENS);
}

static void set_published(struct schedule_spec *s, const struct train_spec *t, uint64_t unit)
{
    uint64_t tokens = t->tokens;
    *s = (struct schedule_spec){
        .constant_until = share(tokens, 10000000000000u),
        .decay_until = share(tokens, 14300000000000u),
        .tail = {{share(tokens, 14633000000000u), t->optimizer.lr / 10},
                 {0, t->optimizer.lr * (7.3 / 220)}},
        .tails = 2,
        .bias_update_until = share(tokens, 14300000000000u),
        .mtp_lambda_until = share(tokens, 10000000000000u),
        .mtp_lambda_then = t->mtp_lambda / 3,
    };
    uint64_t ramp = share(tokens, 469000000000u);
    for (uint64_t n = V3_RAMP_FINE; n >= 1 && ramp > 0 && s->batch.from == 0; n /= 2) {
        if (t->global_batch % (V3_RAMP_FACTOR * n * unit) == 0) {
            s->batch.from = t->global_batch / V3_RAMP_FACTOR;
            s->batch.increment = s->batch.from / (uint32_t)n;
            s->batch.until = ramp;
        }
    }
}

/* ---- checks */

static int check_rate(const struct yaml_item *map, const struct train_spec *t, struct err *err)
{
    const struct schedule_spec *s = &t->plan;
    if (s->constant_until != 0 && t->optimizer.constant_steps != 0) {
        return yaml_refuse(
            yaml_get(map, "constant_until"), err,
            "given together with optimizer.constant_steps (allowed: one of the two)");
    }
    if (s->decay_until != 0 && s->decay_until < s->constant_until) {
        return yaml_refuse(yaml_get(map, "decay_until"), err,
                           "is before constant_until, %" PRIu64 " tokens", s->constant_until);
    }
    if (s->tails > 0 && s->decay_until == 0) {
        return yaml_refuse(yaml_get(map, "tails"), err, "needs decay_until: where they begin");
    }
    if (s->tails > 0 && s->tail[0].until != 0 && s->tail[0].until <= s->decay_until) {
        return yaml_refuse(yaml_get(map, "tails"), err,
                           "the first ends before decay_until, %" PRIu64 " tokens", s->decay_until);
    }
    return 0;
}

static int check_batch(const struct yaml_item *map, const struct train_spec *t, struct err *err)
{
    const struct schedule_spec *s = &t->plan;
    const struct yaml_item *batch = yaml_get(map, "batch");
    if (s->batch.from == 0) {
        return 0;
    }
    if (s->batch.from > t->global_batch) {
        return yaml_refuse(yaml_get(batch, "from"), err, "%u is over global_batch %u",
                           s->batch.from, t->global_batch);
    }
    uint32_t way = t->global_batch - s->batch.from;
    if (way % s->batch.increment != 0) {
        return yaml_refuse(batch, err,
                           "from %u to %u is no whole number of increments of %u (allowed: an "
                           "increment that divides %u)",
                           s->batch.from, t->global_batch, s->batch.increment, way);
    }
    if (way / s->batch.increment > SCHEDULE_RAMP_MAX) {
        return yaml_refuse(batch, err, "has over %d increments (allowed: larger ones)",
                           SCHEDULE_RAMP_MAX);
    }
    return 0;
}

static int check_contexts(const struct yaml_item *map, const struct train_spec *t, struct err *err)
{
    const struct yaml_item *list = yaml_get(map, "context");
    for (uint32_t i = 0; i < t->plan.contexts; i++) {
        uint32_t length = t->plan.context[i].length;
        if (length > t->sequence_length || t->sequence_length % length != 0) {
            return yaml_refuse(yaml_get(list->items[i], "length"), err,
                               "%u does not divide sequence_length %u (allowed: a divisor of it)",
                               length, t->sequence_length);
        }
    }
    return 0;
}

int schedule_spec_read(const struct yaml_item *item, struct train_spec *t, uint64_t unit,
                       struct err *err)
{
    struct schedule_spec *s = &t->plan;
    const struct yaml_item *preset =
        item->kind == YAML_ITEM_SCALAR ? item : yaml_get(item, "preset");
    if (preset != NULL) {
        TRY(read_preset(preset, NULL, err));
        if (t->tokens == 0) {
            return yaml_refuse(preset, err,
                               "its points are shares of the run's tokens (give train.tokens "
                               "instead of steps)");
        }
        set_published(s, t, unit);
    }
    if (item->kind == YAML_ITEM_SCALAR) {
        return check_batch(item, t, err);
    }
    uint32_t increment = s->batch.increment;
    s->batch.increment = 0;
    TRY(yaml_read(item, fields, s, err));
    if (s->batch.increment == 0) {
        bool own = yaml_get(item, "batch") != NULL;
        s->batch.increment = own ? s->batch.from : increment;
    }
    if (yaml_get(item, "mtp_lambda_then") != NULL && s->mtp_lambda_until == 0) {
        return yaml_refuse(yaml_get(item, "mtp_lambda_then"), err, "needs mtp_lambda_until");
    }
    if (preset == NULL && yaml_get(item, "mtp_lambda_until") != NULL &&
        yaml_get(item, "mtp_lambda_then") == NULL) {
        return yaml_refuse(yaml_get(item, "mtp_lambda_until"), err, "needs mtp_lambda_then");
    }
    TRY(check_rate(item, t, err));
    TRY(check_batch(item, t, err));
    return check_contexts(item, t, err);
}

/* ---- writing */

static void put_key(struct buf *out, const char *key)
{
    bool first = out->data[out->len - 1] == '{';
    buf_printf(out, "%s\"%s\": ", first ? "" : ", ", key);
}

static void put_tokens(struct buf *out, const char *key, uint64_t tokens)
{
    if (tokens > 0) {
        put_key(out, key);
        buf_printf(out, "%" PRIu64, tokens);
    }
}

void schedule_spec_json(struct buf *out, const struct schedule_spec *s)
{
    buf_append_str(out, "{");
    put_tokens(out, "constant_until", s->constant_until);
    put_tokens(out, "decay_until", s->decay_until);
    for (uint32_t i = 0; i < s->tails; i++) {
        if (i == 0) {
            put_key(out, "tails");
        }
        buf_append_str(out, i == 0 ? "[{" : ", {");
        put_tokens(out, "until", s->tail[i].until);
        put_key(out, "lr");
        buf_json_double(out, s->tail[i].lr);
        buf_append_str(out, i + 1 == s->tails ? "}]" : "}");
    }
    put_tokens(out, "bias_update_until", s->bias_update_until);
    put_tokens(out, "mtp_lambda_until", s->mtp_lambda_until);
    if (s->mtp_lambda_until > 0) {
        put_key(out, "mtp_lambda_then");
        buf_json_double(out, s->mtp_lambda_then);
    }
    if (s->batch.from > 0) {
        put_key(out, "batch");
        buf_printf(out, "{\"from\": %u, \"until\": %" PRIu64 ", \"increment\": %u}", s->batch.from,
                   s->batch.until, s->batch.increment);
    }
    for (uint32_t i = 0; i < s->contexts; i++) {
        if (i == 0) {
            put_key(out, "context");
        }
        buf_printf(out, "%s{\"until\": %" PRIu64 ", \"length\": %u}%s", i == 0 ? "[" : ", ",
                   s->context[i].until, s->context[i].length, i + 1 == s->contexts ? "]" : "");
    }
    buf_append_str(out, "}");
}
