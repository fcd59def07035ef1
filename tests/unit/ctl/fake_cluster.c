#include "tests/unit/ctl/fake_cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#define T0 1795468134123 /* 2026-11-23T21:08:54.123Z */

struct world world;

static char *text(const char *literal)
{
    return (char *)(uintptr_t)literal;
}

static void reply_job(struct fake_call *call, const char *state)
{
    Ds__Reason reason = DS__REASON__INIT;
    Ds__JobProgress progress = DS__JOB_PROGRESS__INIT;
    Ds__JobCheckpoint last = DS__JOB_CHECKPOINT__INIT;
    Ds__JobUsage usage = DS__JOB_USAGE__INIT;
    Ds__JobExit exit_ = DS__JOB_EXIT__INIT;
    Ds__Attempt first = DS__ATTEMPT__INIT;
    Ds__Attempt second = DS__ATTEMPT__INIT;
    Ds__Ckpt ckpt = DS__CKPT__INIT;
    Ds__Event event = DS__EVENT__INIT;
    Ds__Attempt *attempts[] = {&first, &second};
    Ds__Ckpt *ckpts[] = {&ckpt};
    Ds__Event *events[] = {&event};
    char *nodes[] = {text("n1"), text("n2")};
    Ds__Job job = DS__JOB__INIT;
    reason.code = text("exit");
    reason.text = text("rank 3 ended with status 75");
    progress.has_step = progress.has_steps = progress.has_tokens = progress.has_loss = 1;
    progress.has_tokens_per_s = 1;
    progress.step = 120;
    progress.steps = 200;
    progress.tokens = 491520;
    progress.loss = 2.3141;
    progress.tokens_per_s = 15321;
    last.id = 7;
    last.step = 100;
    last.committed_at = T0;
    usage.gpu_ms = 7200000;
    usage.productive_gpu_ms = 6480000;
    usage.cost_micro_usd = 4000000;
    exit_.has_signal = 1;
    exit_.signal = 9;
    exit_.class_ = text("transient");
    first.attempt = first.epoch = 1;
    first.nodes = second.nodes = nodes;
    first.n_nodes = second.n_nodes = 2;
    first.started_at = T0;
    first.has_ended_at = 1;
    first.ended_at = T0 + 60000;
    first.cause = text("rank 3 was killed by signal 9");
    first.state = text("ENDED");
    second = first;
    second.attempt = second.epoch = 2;
    second.has_resume_ckpt = second.has_resume_step = second.has_lost_steps = 1;
    second.resume_ckpt = 7;
    second.resume_step = 100;
    second.lost_steps = 12;
    second.has_detect_ms = second.has_restart_ms = 1;
    second.detect_ms = 350;
    second.restart_ms = 3000;
    ckpt.id = 7;
    ckpt.job = 12;
    ckpt.step = 100;
    ckpt.epoch = 1;
    ckpt.state = text("COMMITTED");
    ckpt.bytes = 1 << 20;
    ckpt.shards = 4;
    ckpt.path = text("/ckpt/12");
    event.seq = 3;
    event.at = T0;
    event.kind = text("JOB_SUBMITTED");
    event.text = text("submitted by root");
    job.id = 12;
    job.name = text("tiny-moe");
    job.user = text("root");
    job.account = text("research");
    job.queue = text("default");
    job.stage = text("pretrain");
    job.state = text(state);
    job.reason = strcmp(state, "FAILED") == 0 ? &reason : NULL;
    job.priority = 100;
    job.nodes_requested = job.gpus_per_node = 2;
    job.nodes = nodes;
    job.n_nodes = 2;
    job.submitted_at = T0 - 1000;
    job.has_started_at = 1;
    job.started_at = T0;
    job.has_ended_at = strcmp(state, "RUNNING") != 0;
    job.ended_at = T0 + 190000;
    job.attempt = job.epoch = 2;
    job.restarts = 1;
    job.exit = &exit_;
    job.progress = &progress;
    job.last_checkpoint = &last;
    job.usage = &usage;
    job.attempts = attempts;
    job.n_attempts = 2;
    job.checkpoints = ckpts;
    job.n_checkpoints = 1;
    job.events = events;
    job.n_events = 1;
    fake_reply(call, &job);
}

/* 2,500 jobs, in pages of at most 1,000. */
static void reply_jobs(struct fake_call *call, const Ds__JobListRequest *request)
{
    uint64_t newest = request->has_before ? request->before - 1 : 2500;
    uint64_t count = newest < request->limit ? newest : request->limit;
    Ds__JobList list = DS__JOB_LIST__INIT;
    snprintf(world.asked_state, sizeof world.asked_state, "%s",
             request->state != NULL ? request->state : "");
    list.items = mem_alloc_array(count, sizeof *list.items);
    for (; list.n_items < count; list.n_items++) {
        Ds__Job *job = mem_alloc(sizeof *job);
        ds__job__init(job);
        job->id = newest - list.n_items;
        job->name = job->user = job->account = job->queue = job->stage = text("x");
        job->state = text("PENDING");
        job->nodes_requested = 1;
        list.items[list.n_items] = job;
    }
    list.has_truncated = 1;
    list.truncated = count < newest;
    fake_reply(call, &list);
    for (size_t i = 0; i < list.n_items; i++) {
        free(list.items[i]);
    }
    free(list.items);
}

static void reply_submit(struct fake_call *call, const Ds__JobSubmit *request)
{
    Ds__JobSubmitReply reply = DS__JOB_SUBMIT_REPLY__INIT;
    int count = atomic_fetch_add(&world.submits, 1);
    snprintf(world.keys[count % 2], sizeof world.keys[0], "%s", request->key);
    if (atomic_load(&world.drops) > 0) {
        atomic_fetch_sub(&world.drops, 1);
        fake_drop(call);
        return;
    }
    reply.id = request->dry_run ? 0 : 12;
    reply.name = text("one");
    fake_reply(call, &reply);
}

static void reply_wait(struct fake_call *call)
{
    /* The first answer comes while the job runs, the second one is lost. */
    int count = atomic_fetch_add(&world.waits, 1);
    if (count == 1) {
        fake_drop(call);
    } else {
        reply_job(call, count == 0 ? "RUNNING" : world.job_state);
    }
}

static void reply_nodes(struct fake_call *call)
{
    Ds__Gpu gpus[2] = {DS__GPU__INIT, DS__GPU__INIT};
    Ds__Gpu *list[] = {&gpus[0], &gpus[1]};
    Ds__Node node = DS__NODE__INIT;
    Ds__Node *nodes[] = {&node};
    Ds__NodeList reply = DS__NODE_LIST__INIT;
    for (uint32_t i = 0; i < 2; i++) {
        gpus[i].index = i;
        gpus[i].uuid = text("GPU-1");
        gpus[i].model = text("H800");
        gpus[i].health = text(i == 0 ? "ok" : "Xid 79");
        gpus[i].has_job = i == 0;
        gpus[i].job = 12;
    }
    node.name = text("n1");
    node.state = text("UP");
    node.gpus = list;
    node.n_gpus = 2;
    node.has_last_seen_at = 1;
    node.last_seen_at = T0;
    reply.items = nodes;
    reply.n_items = 1;
    fake_reply(call, &reply);
}

/* Names that start with x do not exist. */
static void reply_drain(struct fake_call *call, const Ds__NodeDrain *request)
{
    Ds__NamedOutcome outcomes[8];
    Ds__NamedOutcome *list[8];
    Ds__NamedOutcomeList reply = DS__NAMED_OUTCOME_LIST__INIT;
    for (size_t i = 0; i < request->n_name && i < 8; i++) {
        ds__named_outcome__init(&outcomes[i]);
        bool there = request->name[i][0] != 'x';
        outcomes[i].name = request->name[i];
        outcomes[i].code = there ? 0 : ERR_NOT_FOUND;
        outcomes[i].text = text(there ? "" : "there is no such node (dsctl node list)");
        list[reply.n_items++] = &outcomes[i];
    }
    reply.items = list;
    fake_reply(call, &reply);
}

static void reply_cost(struct fake_call *call, bool verify)
{
    Ds__BadputEntry badput = DS__BADPUT_ENTRY__INIT;
    Ds__BadputEntry *badputs[] = {&badput};
    Ds__CostItem item = DS__COST_ITEM__INIT;
    Ds__CostItem *items[] = {&item};
    Ds__CostItem total = DS__COST_ITEM__INIT;
    Ds__Capacity capacity = DS__CAPACITY__INIT;
    Ds__Cost cost = DS__COST__INIT;
    Ds__CostVerify verified = DS__COST_VERIFY__INIT;
    badput.category = text("init");
    badput.gpu_ms = 720000;
    item.key = text("12");
    item.gpu_ms = 7200000;
    item.productive_gpu_ms = 6480000;
    item.badput = badputs;
    item.n_badput = 1;
    item.cost_micro_usd = 4000000;
    total = item;
    total.key = text("total");
    capacity.allocated = 7200000;
    capacity.idle = 3600000;
    capacity.reported = 10800000;
    cost.items = items;
    cost.n_items = 1;
    cost.capacity = verified.capacity = &capacity;
    cost.total = &total;
    verified.ok = world.verify_ok;
    verified.rows = 42;
    verified.head = text("abcd");
    char *problems[] = {text("row 3: the hash does not follow from row 2")};
    verified.problem = problems;
    verified.n_problem = world.verify_ok ? 0 : 1;
    if (verify) {
        fake_reply(call, &verified);
    } else {
        fake_reply(call, &cost);
    }
}

/* Checkpoint 7 is whole, 8 is not; there is no other. */
static void reply_ckpt(struct fake_call *call, uint64_t id)
{
    Ds__Ckpt ckpt = DS__CKPT__INIT;
    if (id != 7 && id != 8) {
        fake_refuse(call, ERR_NOT_FOUND, "there is no such checkpoint (dsctl ckpt list)");
        return;
    }
    ckpt.id = id;
    ckpt.job = 12;
    ckpt.step = 100;
    ckpt.epoch = 1;
    ckpt.state = text(id == 7 ? "COMMITTED" : "CORRUPT");
    ckpt.bytes = 1 << 20;
    ckpt.shards = 4;
    ckpt.path = text("/ckpt/12");
    fake_reply(call, &ckpt);
}

/* Every step but the fifth was reported. */
static void reply_metrics(struct fake_call *call, const Ds__MetricRead *request)
{
    Ds__Metric metric = DS__METRIC__INIT;
    Ds__Metric *items[] = {&metric};
    Ds__MetricList list = DS__METRIC_LIST__INIT;
    metric.step = request->from_step == 5 ? 6 : request->from_step;
    metric.tokens = metric.step * 10;
    metric.loss = 7.5;
    list.items = items;
    list.n_items = 1;
    fake_reply(call, &list);
}

static void reply_log(struct fake_call *call, const Ds__LogRead *request)
{
    const char *whole = request->stream == 1 ? "first\nsecond\nthird" : "oops\n";
    size_t len = strlen(whole);
    size_t start = request->has_tail_lines ? len - strlen("third") : request->offset;
    /* Seven bytes at a time, so that lines come in pieces. */
    size_t count = len - start < 7 ? len - start : 7;
    Ds__LogChunk chunk = DS__LOG_CHUNK__INIT;
    chunk.data.data = (uint8_t *)(uintptr_t)whole + start;
    chunk.data.len = count;
    chunk.offset = start;
    chunk.next_offset = start + count;
    chunk.end = chunk.final = start + count == len;
    fake_reply(call, &chunk);
}

/* Two events an answer, 40 in all. */
static void reply_events(struct fake_call *call, const Ds__EventListRequest *request)
{
    Ds__Event events[2];
    Ds__Event *list[] = {&events[0], &events[1]};
    Ds__EventList reply = DS__EVENT_LIST__INIT;
    int count = request->has_wait_ms ? atomic_fetch_add(&world.tails, 1) : 0;
    if (count == 1) {
        fake_drop(call);
        return;
    }
    if (count == 4) {
        fake_refuse(call, ERR_DENIED, "enough (stop here)");
        return;
    }
    uint64_t limit = request->limit < 2 ? request->limit : 2;
    uint64_t first = request->has_since ? request->since + 1 : 41 - limit;
    for (; reply.n_items < limit && first + reply.n_items <= 40; reply.n_items++) {
        Ds__Event *event = &events[reply.n_items];
        ds__event__init(event);
        event->seq = first + reply.n_items;
        event->at = T0;
        event->kind = text("job.submitted");
        event->has_job = event->seq % 2 == 0;
        event->job = 12;
        event->text = text("it happened");
    }
    reply.items = list;
    fake_reply(call, &reply);
}

void fake_cluster_answer(struct fake_call *call, uint16_t method, const ProtobufCMessage *request,
                         void *arg)
{
    (void)arg;
    switch (method) {
    case RPC_JOB_SUBMIT:
        reply_submit(call, (const Ds__JobSubmit *)request);
        break;
    case RPC_JOB_LIST:
        reply_jobs(call, (const Ds__JobListRequest *)request);
        break;
    case RPC_JOB_SHOW:
        if (((const Ds__JobId *)request)->id == 12) {
            reply_job(call, "FAILED");
        } else {
            fake_refuse(call, ERR_NOT_FOUND, "there is no job 13 (dsctl job list --all)");
        }
        break;
    case RPC_CKPT_SHOW:
        reply_ckpt(call, ((const Ds__CkptId *)request)->id);
        break;
    case RPC_JOB_METRICS:
        reply_metrics(call, (const Ds__MetricRead *)request);
        break;
    case RPC_JOB_WAIT:
        reply_wait(call);
        break;
    case RPC_JOB_LOGS:
        reply_log(call, (const Ds__LogRead *)request);
        break;
    case RPC_EVENT_LIST:
        reply_events(call, (const Ds__EventListRequest *)request);
        break;
    case RPC_NODE_LIST:
        reply_nodes(call);
        break;
    case RPC_NODE_DRAIN:
        reply_drain(call, (const Ds__NodeDrain *)request);
        break;
    case RPC_COST_REPORT:
    case RPC_COST_VERIFY:
        reply_cost(call, method == RPC_COST_VERIFY);
        break;
    default:
        fake_refuse(call, ERR_DENIED, "not today (ask tomorrow)");
    }
}
