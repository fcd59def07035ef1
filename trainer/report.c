#include "trainer/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/ds.pb-c.h"
#include "proto/reporter.h"
#include "trainer/model.h"
#include "trainer/progress.h"

#define TAG_BYTES 48

int report_init(struct report *r, bool speaks, struct reporter *reporter, uint64_t epoch,
                uint64_t steps, const char *tb_dir, uint64_t first_step, struct err *err)
{
    *r = (struct report){
        .speaks = speaks, .reporter = reporter, .events.fd = -1, .epoch = epoch, .steps = steps};
    if (!speaks || tb_dir == NULL) {
        return 0;
    }
    return tfevents_open(&r->events, tb_dir, first_step > 1 ? first_step : 0, err);
}

void report_fini(struct report *r)
{
    if (r->speaks) {
        progress_clear();
    }
    if (r->events.path != NULL) {
        tfevents_close(&r->events);
    }
    r->speaks = false;
}

static size_t put(char *text, size_t bytes, size_t used, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static size_t put(char *text, size_t bytes, size_t used, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(text + used, bytes - used, fmt, ap);
    va_end(ap);
    used += more > 0 ? (size_t)more : 0;
    return used < bytes ? used : bytes - 1;
}

size_t report_format(const struct report_step *s, char *text, size_t bytes)
{
    size_t n = put(text, bytes, 0, "step=%" PRIu64 " tokens=%" PRIu64 " loss=%.4f", s->step,
                   s->tokens, s->loss);
    if (!isnan(s->mtp_loss)) {
        n = put(text, bytes, n, " mtp_loss=%.4f", s->mtp_loss);
    }
    if (!isnan(s->balance_maxvio)) {
        n = put(text, bytes, n, " balance_maxvio=%.2f", s->balance_maxvio);
    }
    n = put(text, bytes, n, " grad_norm=%.3f lr=%.1e tok_s=%.0f step_ms=%" PRId64, s->grad_norm,
            s->lr, s->tokens_per_s, s->step_ms);
    if (!isnan(s->valid_loss)) {
        n = put(text, bytes, n, " valid_loss=%.4f", s->valid_loss);
    }
    if (!isnan(s->valid_maxvio)) {
        n = put(text, bytes, n, " valid_maxvio=%.2f", s->valid_maxvio);
    }
    for (size_t i = 0; i < s->router_count; i++) {
        n = put(text, bytes, n, "%s%.2f", i == 0 ? " maxvio_layers=" : ",", s->layer_maxvio[i]);
    }
    return n;
}

static void write_line(const struct report_step *s)
{
    char line[4096];
    size_t n = report_format(s, line, sizeof line - 1);
    line[n++] = '\n';
    /* A reader that went away is no reason to stop a run. */
    ssize_t ignored = write(STDOUT_FILENO, line, n);
    (void)ignored;
}

static unsigned layer_of(const struct router *router)
{
    unsigned layer = 0;
    sscanf(router->name, "model.layers.%u.", &layer);
    return layer;
}

static void write_events(struct report *r, const struct report_step *s)
{
    const struct tfevents_scalar all[] = {
        {"train/loss", s->loss},
        {"train/mtp_loss", s->mtp_loss},
        {"train/balance_maxvio", s->balance_maxvio},
        {"train/grad_norm", s->grad_norm},
        {"train/lr", s->lr},
        {"valid/loss", s->valid_loss},
        {"valid/balance_maxvio", s->valid_maxvio},
        {"speed/tokens_per_s", s->tokens_per_s},
        {"speed/step_ms", (double)s->step_ms},
        {"speed/ckpt_stall_ms", (double)s->ckpt_stall_ms},
        {"speed/data_wait_ms", (double)s->data_wait_ms},
    };
    const size_t most = sizeof all / sizeof all[0];
    struct tfevents_scalar *there = mem_alloc_array(most + s->router_count, sizeof *there);
    char(*tag)[TAG_BYTES] = mem_alloc_array(s->router_count, sizeof *tag);
    size_t n = 0;
    for (size_t i = 0; i < most; i++) {
        if (!isnan(all[i].value)) {
            there[n++] = all[i];
        }
    }
    for (size_t i = 0; i < s->router_count; i++) {
        snprintf(tag[i], sizeof tag[i], "balance/maxvio_layer_%02u", layer_of(&s->routers[i]));
        there[n++] = (struct tfevents_scalar){tag[i], s->layer_maxvio[i]};
    }
    struct err err = {0};
    if (tfevents_write(&r->events, clock_wall_ms(), s->step, there, n, &err) != 0) {
        log_warn("no more TensorBoard events: %s", err.text);
        tfevents_close(&r->events);
    }
    free(there);
    free(tag);
}

static void send_metric(struct report *r, const struct report_step *s)
{
    Ds__Metric m = DS__METRIC__INIT;
    m.step = s->step;
    m.epoch = r->epoch;
    m.tokens = s->tokens;
    m.loss = s->loss;
    m.has_mtp_loss = !isnan(s->mtp_loss);
    m.mtp_loss = s->mtp_loss;
    m.has_grad_norm = 1;
    m.grad_norm = s->grad_norm;
    m.has_lr = 1;
    m.lr = s->lr;
    m.has_tokens_per_s = 1;
    m.tokens_per_s = s->tokens_per_s;
    m.has_balance_maxvio = !isnan(s->balance_maxvio);
    m.balance_maxvio = s->balance_maxvio;
    m.has_valid_loss = !isnan(s->valid_loss);
    m.valid_loss = s->valid_loss;
    m.has_valid_maxvio = !isnan(s->valid_maxvio);
    m.valid_maxvio = s->valid_maxvio;
    struct buf layers = {0};
    for (size_t i = 0; i < s->router_count; i++) {
        buf_printf(&layers, "%s%u:%.3f", i > 0 ? "," : "", layer_of(&s->routers[i]),
                   s->layer_maxvio[i]);
    }
    m.layer_maxvio = s->router_count > 0 ? (char *)(uintptr_t)buf_cstr(&layers) : NULL;
    m.has_step_ms = 1;
    m.step_ms = (uint64_t)s->step_ms;
    reporter_step(r->reporter, &m, r->steps, (uint64_t)s->ckpt_stall_ms, (uint64_t)s->data_wait_ms);
    buf_fini(&layers);
}

void report_step(struct report *r, const struct report_step *s)
{
    if (!r->speaks) {
        return;
    }
    progress_clear();
    write_line(s);
    write_events(r, s);
    if (r->reporter != NULL) {
        send_metric(r, s);
    }
    double ms = (double)s->step_ms;
    r->ms_per_step = r->ms_per_step > 0 ? 0.9 * r->ms_per_step + 0.1 * ms : ms;
    double left = r->ms_per_step * (double)(r->steps > s->step ? r->steps - s->step : 0);
    progress_draw(s->step, r->steps, s->loss, s->tokens_per_s, (int64_t)left);
}
