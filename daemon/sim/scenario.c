#include "daemon/sim/scenario.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "lib/yaml.h"
#include "proto/jobspec.h"

#define NODES_MAX 65536
#define GPUS_MAX  64
#define JOBS_MAX  100000

const char *const expectation_figures[] = {"ettr",      "goodput",     "utilisation", "failures",
                                           "restarts",  "preemptions", "lost_steps",  "completed",
                                           "gpu_hours", NULL};

/* ---- values with a form of their own */
static int read_duration(const struct yaml_item *item, void *place, struct err *err)
{
    uint64_t ms = 0;
    struct err why = {0};
    if (item->kind != YAML_ITEM_SCALAR || duration_parse(item->text, &ms, &why) != 0) {
        return yaml_refuse(item, err, "not a duration (allowed: such as 30s, 5m, 1h30m, 20d)");
    }
    *(int64_t *)place = (int64_t)ms;
    return 0;
}

static int read_count(const struct yaml_item *item, void *place, struct err *err)
{
    uint64_t count = 0;
    struct err why = {0};
    if (item->kind != YAML_ITEM_SCALAR || count_parse(item->text, &count, &why) != 0) {
        return yaml_refuse(item, err, "not a number (allowed: such as 200, 2664K or 14.8T)");
    }
    *(double *)place = (double)count;
    return 0;
}

static int read_usd(const struct yaml_item *item, void *place, struct err *err)
{
    double usd = 0;
    TRY(yaml_to_double(item, &usd, err));
    if (usd < 0 || usd > 1000000) {
        return yaml_refuse(item, err, "out of range (allowed: 0 to 1000000 dollars an hour)");
    }
    *(int64_t *)place = (int64_t)llround(usd * 1000000);
    return 0;
}

/* ---- faults */
struct fault_source {
    uint64_t nodes; /* where and for how long `count` was counted */
    double days, scale;
};
struct fault_entry {
    struct fleet_fault fault;
    int kind;
    double count, per_1000_node_days, per_day;
};
static const char *const kind_names[] = {"rank",   "network",     "gpu", "node",
                                         "worker", "coordinator", NULL};

#define OBSERVED(field) .offset = offsetof(struct fault_source, field)
static const struct yaml_field observed_fields[] = {
    {.key = "nodes",
     .type = YAML_U64,
     OBSERVED(nodes),
     .required = true,
     .low = 1,
     .high = 1 << 24},
    {.key = "days", .type = YAML_DOUBLE, OBSERVED(days), .required = true, .min = 0.01, .max = 1e5},
    {0},
};
#define ENTRY(field) .offset = offsetof(struct fault_entry, field)
static const struct yaml_field entry_fields[] = {
    {.key = "name", .type = YAML_TEXT, ENTRY(fault.name), .required = true},
    {.key = "kind", .type = YAML_CHOICE, ENTRY(kind), .required = true, .choices = kind_names},
    {.key = "count", .type = YAML_DOUBLE, ENTRY(count), .min = 0, .max = 1e9},
    {.key = "per_1000_node_days", .type = YAML_DOUBLE, ENTRY(per_1000_node_days), .max = 1e6},
    {.key = "per_day", .type = YAML_DOUBLE, ENTRY(per_day), .max = 1e5},
    {.key = "detect", .type = YAML_CUSTOM, ENTRY(fault.detect_ms), .read = read_duration},
    {.key = "repair", .type = YAML_CUSTOM, ENTRY(fault.repair_ms), .read = read_duration},
    {0},
};

static int read_fault(const struct yaml_item *item, const struct fault_source *source,
                      struct fleet_setup *setup, struct err *err)
{
    struct fault_entry entry = {.fault = {.detect_ms = 10000, .repair_ms = -1}, .count = -1};
    entry.per_1000_node_days = entry.per_day = -1;
    int rc = yaml_read(item, entry_fields, &entry, err);
    bool is_coordinator = entry.kind == FAULT_COORDINATOR;
    if (rc == 0 && (entry.per_day >= 0) != is_coordinator) {
        rc = yaml_refuse(item, err,
                         is_coordinator ? "there is one coordinator: give per_day"
                                        : "per_day is of the coordinator only");
    } else if (rc == 0 && is_coordinator && (entry.count >= 0 || entry.per_1000_node_days >= 0)) {
        rc = yaml_refuse(item, err, "there is one coordinator: give per_day alone");
    } else if (rc == 0 && !is_coordinator &&
               (entry.count >= 0) == (entry.per_1000_node_days >= 0)) {
        rc = yaml_refuse(item, err, "give one of count and per_1000_node_days");
    } else if (rc == 0 && entry.count >= 0 && source->nodes == 0) {
        rc = yaml_refuse(item, err, "count needs faults.observed: {nodes, days}");
    }
    if (rc != 0) {
        free(entry.fault.name);
        return rc;
    }
    entry.fault.kind = (enum fleet_fault_kind)entry.kind;
    if (entry.fault.repair_ms < 0) {
        entry.fault.repair_ms = entry.kind >= FAULT_WORKER ? 10000 : 3600000;
    }
    entry.fault.per_day = is_coordinator ? entry.per_day * source->scale : 0;
    entry.fault.per_node_day =
        is_coordinator
            ? 0
            : source->scale * (entry.count >= 0 ? entry.count / (double)source->nodes / source->days
                                                : entry.per_1000_node_days / 1000);
    struct fleet_fault *faults = setup->faults;
    setup->faults = mem_resize(faults, (setup->fault_count + 1) * sizeof *faults);
    setup->faults[setup->fault_count++] = entry.fault;
    return 0;
}

static int read_faults(const struct yaml_item *item, void *place, struct err *err)
{
    struct fleet_setup *setup = place;
    struct fault_source source = {.scale = 1};
    if (item->kind != YAML_ITEM_MAP) {
        return yaml_refuse(item, err, "a map is expected (allowed: observed, scale, kinds)");
    }
    for (size_t i = 0; i < item->count; i++) {
        const struct yaml_item *entry = item->items[i];
        if (strcmp(entry->key, "observed") == 0) {
            TRY(yaml_read(entry, observed_fields, &source, err));
        } else if (strcmp(entry->key, "scale") == 0) {
            TRY(yaml_to_double(entry, &source.scale, err));
        } else if (strcmp(entry->key, "kinds") != 0) {
            return yaml_refuse(entry, err, "unknown key (allowed: observed, scale, kinds)");
        }
    }
    if (source.scale < 0) {
        return yaml_refuse(yaml_get(item, "scale"), err, "out of range (allowed: 0 and above)");
    }
    const struct yaml_item *kinds = yaml_get(item, "kinds");
    if (kinds == NULL || kinds->kind != YAML_ITEM_LIST) {
        return yaml_refuse(item, err, "key 'kinds' is missing: a list of faults");
    }
    for (size_t i = 0; i < kinds->count; i++) {
        TRY(read_fault(kinds->items[i], &source, setup, err));
    }
    return 0;
}

/* ---- jobs */
struct job_entry {
    struct fleet_job job;
    double gpu_hours, tokens, batch, batch_first, ramp;
    int64_t run_ms, every_ms;
    uint32_t count;
};

#define SAVE(field) .offset = offsetof(struct fleet_job, field)
static const struct yaml_field save_fields[] = {
    {.key = "every", .type = YAML_CUSTOM, SAVE(save_every_ms), .read = read_duration},
    {.key = "stall", .type = YAML_CUSTOM, SAVE(save_stall_ms), .read = read_duration},
    {.key = "write", .type = YAML_CUSTOM, SAVE(save_write_ms), .read = read_duration},
    {.key = "told", .type = YAML_U32, SAVE(save_told), .low = 1, .high = 1000000},
    {0},
};
static int read_save(const struct yaml_item *item, void *place, struct err *err)
{
    return yaml_read(item, save_fields, place, err);
}

#define JOB(field) .offset = offsetof(struct job_entry, field)
static const struct yaml_field job_fields[] = {
    {.key = "name", .type = YAML_TEXT, JOB(job.name)},
    {.key = "user", .type = YAML_TEXT, JOB(job.user)},
    {.key = "account", .type = YAML_TEXT, JOB(job.account)},
    {.key = "stage", .type = YAML_TEXT, JOB(job.stage)},
    {.key = "count", .type = YAML_U32, JOB(count), .low = 1, .high = JOBS_MAX},
    {.key = "submit", .type = YAML_CUSTOM, JOB(job.submit_ms), .read = read_duration},
    {.key = "every", .type = YAML_CUSTOM, JOB(every_ms), .read = read_duration},
    {.key = "crash", .type = YAML_CUSTOM, JOB(job.crash_ms), .read = read_duration},
    {.key = "priority", .type = YAML_I64, JOB(job.priority), .low = -1000000, .high = 1000000},
    {.key = "nodes", .type = YAML_U32, JOB(job.nodes), .low = 1, .high = NODES_MAX},
    {.key = "gpus_per_node", .type = YAML_U32, JOB(job.gpus), .low = 1, .high = GPUS_MAX},
    {.key = "gpu_hours", .type = YAML_CUSTOM, JOB(gpu_hours), .read = read_count},
    {.key = "run", .type = YAML_CUSTOM, JOB(run_ms), .read = read_duration},
    {.key = "time_limit", .type = YAML_CUSTOM, JOB(job.limit_ms), .read = read_duration},
    {.key = "tokens", .type = YAML_CUSTOM, JOB(tokens), .read = read_count},
    {.key = "batch", .type = YAML_CUSTOM, JOB(batch), .read = read_count},
    {.key = "batch_first", .type = YAML_CUSTOM, JOB(batch_first), .read = read_count},
    {.key = "ramp", .type = YAML_CUSTOM, JOB(ramp), .read = read_count},
    {.key = "save", .type = YAML_CUSTOM, JOB(job), .read = read_save},
    {0},
};

/* All hours of the stage contain its start and its saving; the rest is useful. How often is saved
 * depends on the useful time, which depends on how often is saved. */
static void take_useful(const struct fleet_setup *setup, struct fleet_job *job, int64_t wall_ms)
{
    int64_t left_ms = wall_ms - setup->launch_ms - setup->load_ms;
    job->schedule.useful_ms = left_ms;
    for (int i = 0; i < 8 && job->schedule.useful_ms > 0; i++) {
        uint64_t saves = schedule_saves(&job->schedule, job->save_every_ms);
        job->schedule.useful_ms = left_ms - (int64_t)saves * job->save_stall_ms;
    }
    job->work_ms = job->schedule.useful_ms;
}

static int finish_job(const struct yaml_item *item, const struct fleet_setup *setup,
                      struct job_entry *e, struct err *err)
{
    struct fleet_job *job = &e->job;
    job->gpus = job->gpus > 0 ? job->gpus : setup->gpus;
    job->nodes = job->nodes > 0 ? job->nodes : setup->nodes;
    job->has_train = e->tokens > 0;
    if ((e->gpu_hours > 0) == (e->run_ms > 0)) {
        return yaml_refuse(item, err, "give one of gpu_hours and run");
    }
    int64_t wall_ms = e->run_ms > 0
                          ? e->run_ms
                          : llround(e->gpu_hours * 3600000 / ((double)job->nodes * job->gpus));
    if (!job->has_train) {
        job->work_ms = wall_ms;
        return 0;
    }
    if (e->batch < 1 || e->batch > e->tokens) {
        return yaml_refuse(item, err, "batch is missing or more than tokens: tokens of one step");
    }
    e->batch_first = e->batch_first > 0 ? e->batch_first : e->batch;
    if (e->batch_first > e->batch || e->ramp > e->tokens) {
        return yaml_refuse(item, err, "batch_first is at most batch, ramp at most tokens");
    }
    job->work_ms = wall_ms;
    job->schedule = (struct schedule){.tokens = e->tokens,
                                      .batch = e->batch,
                                      .batch_first = e->batch_first,
                                      .ramp = e->ramp,
                                      .useful_ms = wall_ms};
    schedule_init(&job->schedule);
    if (e->gpu_hours > 0) {
        take_useful(setup, job, wall_ms);
    }
    if (job->work_ms <= 0) {
        return yaml_refuse(item, err, "gpu_hours is less than its start and saving take");
    }
    return 0;
}

static int add_jobs(struct scenario *s, const struct yaml_item *item, struct err *err)
{
    struct job_entry e = {.count = 1};
    e.job.save_every_ms = 300000;
    e.job.save_stall_ms = 1000;
    e.job.save_write_ms = 20000;
    e.job.save_told = 1;
    int rc = yaml_read(item, job_fields, &e, err);
    if (rc == 0) {
        rc = finish_job(item, &s->setup, &e, err);
    }
    if (rc == 0 && s->job_count + e.count > JOBS_MAX) {
        rc = yaml_refuse(item, err, "too many jobs (allowed: %d in all)", JOBS_MAX);
    }
    if (rc == 0) {
        s->jobs = mem_resize(s->jobs, (s->job_count + e.count) * sizeof *s->jobs);
    }
    for (uint32_t i = 0; rc == 0 && i < e.count; i++) {
        struct fleet_job *job = &s->jobs[s->job_count];
        *job = e.job;
        job->name = mem_strdup(e.job.name);
        job->user = mem_strdup(e.job.user);
        job->account = mem_strdup(e.job.account);
        job->stage = mem_strdup(e.job.stage);
        job->after = s->chain ? s->job_count : 0;
        job->submit_ms += (int64_t)i * e.every_ms;
        s->job_count++;
    }
    free(e.job.name);
    free(e.job.user);
    free(e.job.account);
    free(e.job.stage);
    return rc;
}

/* ---- the whole */
#define AT(field) .offset = offsetof(struct scenario, field)
static const struct yaml_field cluster_fields[] = {
    {.key = "nodes",
     .type = YAML_U32,
     AT(setup.nodes),
     .required = true,
     .low = 1,
     .high = NODES_MAX},
    {.key = "gpus_per_node", .type = YAML_U32, AT(setup.gpus), .low = 1, .high = GPUS_MAX},
    {.key = "model", .type = YAML_TEXT, AT(model)},
    {.key = "usd_per_gpu_hour",
     .type = YAML_CUSTOM,
     AT(setup.micro_usd_per_gpu_hour),
     .read = read_usd},
    {.key = "heartbeat", .type = YAML_CUSTOM, AT(setup.core.heartbeat_ms), .read = read_duration},
    {.key = "lease", .type = YAML_CUSTOM, AT(setup.core.lease_ms), .read = read_duration},
    {.key = "launch", .type = YAML_CUSTOM, AT(setup.launch_ms), .read = read_duration},
    {.key = "load", .type = YAML_CUSTOM, AT(setup.load_ms), .read = read_duration},
    {.key = "stop", .type = YAML_CUSTOM, AT(setup.stop_ms), .read = read_duration},
    {0},
};

static int skip(const struct yaml_item *item, void *place, struct err *err)
{
    (void)item;
    (void)place;
    (void)err;
    return 0;
}

/* ---- what is expected of the outcome */
#define EXPECT(field) .offset = offsetof(struct expectation, field)
static const struct yaml_field expect_fields[] = {
    {.key = "figure",
     .type = YAML_CHOICE,
     EXPECT(figure),
     .required = true,
     .choices = expectation_figures},
    {.key = "min", .type = YAML_DOUBLE, EXPECT(low), .min = -1e15, .max = 1e15},
    {.key = "max", .type = YAML_DOUBLE, EXPECT(high), .min = -1e15, .max = 1e15},
    {0},
};

static int read_expect(const struct yaml_item *item, void *place, struct err *err)
{
    struct scenario *s = place;
    if (item->kind != YAML_ITEM_LIST) {
        return yaml_refuse(item, err, "a list is expected, such as [{figure: ettr, min: 0.98}]");
    }
    s->expected = mem_alloc_array(item->count + 1, sizeof *s->expected);
    for (size_t i = 0; i < item->count; i++) {
        struct expectation *e = &s->expected[i];
        *e = (struct expectation){.low = -INFINITY, .high = INFINITY};
        TRY(yaml_read(item->items[i], expect_fields, e, err));
        s->expected_count++;
    }
    return 0;
}

static const struct yaml_field scenario_fields[] = {
    {.key = "name", .type = YAML_TEXT, AT(name)},
    {.key = "cluster", .type = YAML_MAP, .required = true, .fields = cluster_fields},
    {.key = "faults", .type = YAML_CUSTOM, .read = skip},
    {.key = "chain", .type = YAML_BOOL, AT(chain)},
    {.key = "horizon", .type = YAML_CUSTOM, AT(setup.horizon_ms), .read = read_duration},
    {.key = "jobs", .type = YAML_CUSTOM, .required = true, .read = skip},
    {.key = "expect", .type = YAML_CUSTOM, .read = read_expect},
    {0},
};

/* Where a scenario of this name may be: as given, the tree's, the one beside the installed program.
 */
static int find_file(const char *name, struct buf *path, struct err *err)
{
    char program[PATH_MAX] = "";
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    program[len > 0 ? len : 0] = 0;
    char *slash = strrchr(program, '/');
    if (slash != NULL) {
        *slash = 0;
    }
    bool is_path = strchr(name, '/') != NULL || access(name, R_OK) == 0;
    for (int i = 0; i < 3 && !is_path; i++) {
        buf_reset(path);
        if (i == 0) {
            buf_printf(path, "etc/sim/%s.yaml", name);
        } else {
            buf_printf(path, "%s/../%s/%s.yaml", program, i == 1 ? "../etc/sim" : "share/ds/sim",
                       name);
        }
        if (access(buf_cstr(path), R_OK) == 0) {
            return 0;
        }
    }
    if (!is_path) {
        return err_set(err, ERR_NOT_FOUND,
                       "there is no scenario '%s' (give a file, or one of etc/sim without .yaml)",
                       name);
    }
    buf_reset(path);
    buf_append_str(path, name);
    return 0;
}

static int load_tree(const char *name, const char *const *set, size_t set_count,
                     struct yaml_tree *tree, struct buf *path, struct err *err)
{
    struct buf text = {0};
    int rc;
    TRY_GOTO(find_file(name, path, err), out);
    TRY_GOTO(file_read(buf_cstr(path), YAML_BYTES_MAX, &text, err), out);
    TRY_GOTO(yaml_load(tree, (const char *)text.data, text.len, buf_cstr(path), err), out);
    for (size_t i = 0; i < set_count; i++) {
        TRY_GOTO(yaml_set(tree, set[i], err), out);
    }
out:
    buf_fini(&text);
    return rc;
}

static int load_faults(struct scenario *s, const struct yaml_item *own, const char *faults,
                       struct err *err)
{
    if (faults == NULL) {
        return own != NULL ? read_faults(own, &s->setup, err) : 0;
    }
    if (strcmp(faults, "none") == 0) {
        return 0;
    }
    struct yaml_tree tree = {0};
    struct buf path = {0};
    int rc = load_tree(faults, NULL, 0, &tree, &path, err);
    const struct yaml_item *item = rc == 0 ? yaml_get(tree.root, "faults") : NULL;
    if (rc == 0 && item == NULL) {
        rc = err_set(err, ERR_INVALID, "%s has no key 'faults'", buf_cstr(&path));
    }
    rc = rc == 0 ? read_faults(item, &s->setup, err) : rc;
    yaml_fini(&tree);
    buf_fini(&path);
    return rc;
}

int scenario_load(struct scenario *s, const char *name, const char *faults, const char *const *set,
                  size_t set_count, struct err *err)
{
    *s = (struct scenario){0};
    struct yaml_tree tree = {0};
    struct buf path = {0};
    s->setup.seed = 1;
    s->setup.gpus = 8;
    s->setup.launch_ms = 20000;
    s->setup.load_ms = 100000;
    s->setup.stop_ms = 5000;
    core_config_default(&s->setup.core);
    int rc;
    TRY_GOTO(load_tree(name, set, set_count, &tree, &path, err), out);
    TRY_GOTO(yaml_read(tree.root, scenario_fields, s, err), out);
    TRY_GOTO(load_faults(s, yaml_get(tree.root, "faults"), faults, err), out);
    const struct yaml_item *jobs = yaml_get(tree.root, "jobs");
    if (jobs->kind != YAML_ITEM_LIST || jobs->count == 0) {
        rc = yaml_refuse(jobs, err, "a list of jobs is expected");
    }
    for (size_t i = 0; rc == 0 && i < jobs->count; i++) {
        rc = add_jobs(s, jobs->items[i], err);
    }
    if (s->name == NULL) {
        s->name = mem_strdup(name);
    }
    s->setup.model = s->model != NULL ? s->model : "gpu";
out:
    yaml_fini(&tree);
    buf_fini(&path);
    if (rc != 0) {
        scenario_fini(s);
    }
    return rc;
}

void scenario_fini(struct scenario *s)
{
    for (size_t i = 0; i < s->setup.fault_count; i++) {
        free(s->setup.faults[i].name);
    }
    free(s->setup.faults);
    fleet_jobs_free(s->jobs, s->job_count);
    free(s->name);
    free(s->model);
    free(s->expected);
    *s = (struct scenario){0};
}

/* Of a node and day, of those that stop a job: it goes on without its worker or the coordinator. */
static double stopping_rate(const struct fleet_fault *fault)
{
    return fault->kind == FAULT_WORKER ? 0 : fault->per_node_day;
}

double scenario_fault_rate(const struct scenario *s)
{
    double rate = 0;
    for (size_t i = 0; i < s->setup.fault_count; i++) {
        rate += stopping_rate(&s->setup.faults[i]);
    }
    return rate;
}

double scenario_closed_form(const struct scenario *s)
{
    const struct fleet_job *job = NULL;
    for (size_t i = 0; i < s->job_count; i++) {
        bool larger = s->jobs[i].has_train && (job == NULL || s->jobs[i].nodes > job->nodes);
        job = larger ? &s->jobs[i] : job;
    }
    if (job == NULL) {
        return 1;
    }
    /* u0: noticed, stopped, ordered again, loaded. */
    double rate = scenario_fault_rate(s), detect_ms = 0;
    for (size_t i = 0; i < s->setup.fault_count && rate > 0; i++) {
        const struct fleet_fault *fault = &s->setup.faults[i];
        detect_ms +=
            stopping_rate(fault) / rate *
            (double)(fault->kind == FAULT_NODE ? s->setup.core.lease_ms : fault->detect_ms);
    }
    double u0_ms = detect_ms + (double)(s->setup.stop_ms + s->setup.launch_ms + s->setup.load_ms);
    double dt_ms = (double)job->save_every_ms, w_ms = (double)job->save_stall_ms;
    double lost = job->nodes * rate / 86400000.0 * (u0_ms + dt_ms / 2);
    return (1 - lost) / (1 + w_ms / dt_ms);
}
