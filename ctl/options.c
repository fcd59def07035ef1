#include "ctl/options.h"

#define END                                                                                        \
    {                                                                                              \
        0                                                                                          \
    }
#define JOB_STATES  "PENDING|STARTING|RUNNING|SUSPENDED|STOPPING|COMPLETED|FAILED|CANCELLED|HELD"
#define NODE_STATES "UP|DRAINING|DRAINED|DOWN|FENCING|MAINT"

const struct option global_options[] = {
    {'o', "output", "table|wide|json|yaml|csv|name",
     "how to print; json and yaml keys never change"},
    {0, "no-header", NULL, "leave out the heading line"},
    {'w', "watch", "[=SECONDS]", "show again every SECONDS (2) until Ctrl-C"},
    {0, "sort", "COLUMN", "order a list by a column; -COLUMN for descending"},
    {0, "limit", "N", "at most N lines; 0: all"},
    {'y', "yes", NULL, "do not ask"},
    {0, "server", "ADDR", "the coordinator's socket or host:port (DS_SERVER)"},
    {0, "timeout", "DURATION", "give up after this long: 30s, 5m"},
    {0, "color", "auto|always|never", "colours; auto: on a terminal"},
    {'v', "verbose", NULL, "say on stderr what is asked and how long it takes"},
    {'h', "help", NULL, "this text"},
    {0, "version", NULL, "the version"},
    END,
};

const struct option submit_options[] = {
    {0, "set", "KEY=VALUE", "override a key of the file, such as train.steps=100; repeatable"},
    {0, "key", "KEY", "idempotency key: the same key gives the same job, always"},
    {0, "wait", NULL, "wait until the job ended; exit status as of job wait"},
    {'f', "follow", NULL, "show the logs of rank 0, then do as --wait"},
    {0, "dry-run", NULL, "check everything, submit nothing"},
    {0, "parsable", NULL, "print the id alone"},
    END,
};
const struct option plan_options[] = {
    {0, "set", "KEY=VALUE", "override a key of the file, such as nodes=4; repeatable"},
    END,
};
const struct option run_plan_options[] = {
    {0, "model", "FILE", "a Hugging Face config.json; default: DeepSeek-V3's shape"},
    {0, "gpus", "N", "default 2048"},
    {0, "tokens", "T", "default 14.8T"},
    {0, "days", "D", "instead of --gpus: how many it takes; with it: how many tokens"},
    {0, "budget", "USD", "instead of --tokens: how many it buys"},
    {0, "pipeline", "N", "ranks of a pipeline; default: the fewest that fit"},
    {0, "expert", "N", "ranks of an expert group; default: the fewest that fit"},
    {0, "schedule", "dualpipev|1f1b", "of the pipeline; default dualpipev"},
    {0, "precision", "fp8|bf16|fp32", "default fp8, stored activations in BF16"},
    {0, "sequence-length", "N", "tokens; default 4096"},
    {0, "global-batch", "N", "sequences a step; default 15360"},
    {0, "micro-batch", "N", "sequences at once; default 1"},
    {0, "memory", "GB", "of a GPU; default 80"},
    {0, "mfu", "SHARE", "of the peak that a step reaches; default 0.3894, DeepSeek-V3's"},
    {0, "peak", "TFLOPS", "of a GPU in BF16; default 989.4, an H800's"},
    {0, "price", "USD", "of a GPU-hour; default 2"},
    END,
};
const struct option update_options[] = {
    {0, "priority", "N", "higher goes first"},
    {0, "queue", "QUEUE", "move it there, while it waits"},
    {0, "account", "ACCOUNT", "who pays, while it waits"},
    {0, "time-limit", "DURATION", "of all its attempts together; none: no limit"},
    {0, "not-before", "TIME", "start no sooner; none: any time"},
    {0, "deadline", "TIME", "to be over by then; none: no deadline"},
    {0, "array-limit", "N", "jobs of its array at a time; none: all"},
    {0, "preemptible", "yes|no", "whether others may make it stop"},
    {0, "min-runtime", "DURATION", "of an attempt before it may be preempted; none: no such time"},
    END,
};
const struct option resize_options[] = {
    {0, "nodes", "N", "this many nodes, or 2-8 for any of these"},
    END,
};
const struct option queue_options[] = {
    {0, "priority", "N", "added to that of its jobs"},
    {0, "weight", "W", "what an hour in it counts in the fair share; 1 is as it is"},
    {0, "nodes", "N", "nodes of its running jobs; none here and below: no limit"},
    {0, "jobs", "N", "running jobs"},
    {0, "user-nodes", "N", "nodes of one user's running jobs"},
    {0, "user-jobs", "N", "running jobs of one user"},
    {0, "waiting", "N", "waiting jobs; more are refused"},
    {0, "priority-max", "N", "the highest priority a job may ask for"},
    {0, "time-limit", "DURATION", "the longest time limit, and that of a job without one"},
    {0, "preempts", "yes|no", "its jobs may make others stop"},
    {0, "preemptible", "yes|no", "its jobs may be made to stop"},
    {0, "accepts", "yes|no", "takes new jobs"},
    {0, "starts", "yes|no", "starts jobs"},
    END,
};
const struct option account_options[] = {
    {0, "shares", "N", "its part of the cluster, beside that of others"},
    {0, "nodes", "N", "nodes of its running jobs; none: no limit"},
    {0, "accepts", "yes|no", "takes new jobs"},
    END,
};
const struct option quota_options[] = {
    {'u', "user", "USER", "of this user; *: of each one; not given: of all together"},
    {0, "account", "ACCOUNT", "of this account, likewise"},
    {0, "class", "CLASS", "of this class of priorities (scheduler.classes in dsd.yaml)"},
    {0, "nodes", "N", "nodes at a time; none: the quota is no more"},
    {0, "expires", "TIME", "such as +7d or 2026-12-01; default never"},
    {0, "reason", "TEXT", "why, for the record"},
    END,
};
const struct option all_options[] = {
    {'a', "all", NULL, "also those that are over"},
    END,
};
const struct option maint_options[] = {
    {0, "nodes", "LIST", "host list, such as gpu[001-032,040]"},
    {0, "start", "TIME", "now, +2h, or '2026-12-01 08:00'"},
    {0, "duration", "DURATION", "how long"},
    {0, "reason", "TEXT", "what is done there"},
    {'u', "user", "USER", "no maintenance: keep the nodes for this user's jobs"},
    {0, "account", "ACCOUNT", "no maintenance: keep the nodes for this account's jobs"},
    END,
};
const struct option list_options[] = {
    {0, "state", JOB_STATES, "only jobs in this state"},
    {'u', "user", "USER", "only this user's"},
    {'q', "queue", "QUEUE", "only those of this queue"},
    {'a', "all", NULL, "also those that ended"},
    END,
};
const struct option reason_options[] = {
    {0, "reason", "TEXT", "why, for the record"},
    END,
};
const struct option logs_options[] = {
    {'r', "rank", "RANKS", "this rank, a list such as 0,2-3, or all; default 0"},
    {0, "attempt", "A", "of this attempt; default the newest"},
    {'f', "follow", NULL, "go on as the logs grow, over restarts, until the job ended"},
    {'n', "tail", "N", "start N lines before the end"},
    {0, "stdout", NULL, "only what went to standard output"},
    {0, "stderr", NULL, "only what went to standard error"},
    END,
};
const struct option metrics_options[] = {
    {'p', "plot", NULL, "draw the loss over the steps"},
    {0, "from", "STEP", "from this step on"},
    END,
};
const struct option report_options[] = {
    {'o', "output", "md|html|json", "default: md, or what the name of FILE ends with"},
    {0, "out", "FILE", "into this file; Markdown's pictures go into a folder beside it"},
    END,
};
const struct option node_list_options[] = {
    {0, "state", NODE_STATES, "only nodes in this state"},
    END,
};
const struct option export_options[] = {
    {'o', "output", "DIR", "the folder to write; it must be new or empty"},
    {0, "format", "hf", "hf, the only one: a Hugging Face folder"},
    {0, "dtype", "fp32|bf16|fp8", "of the weights; default bf16"},
    {0, "shard-size", "SIZE", "of a file, such as 500MB; default 5GB"},
    {0, "tokenizer", "WHICH", "a tokenizer.json, a folder with one, bytes, or none"},
    END,
};
const struct option cost_options[] = {
    {0, "by", "job|user|account|stage|queue|node|category|month",
     "what a line stands for; default job"},
    {0, "from", "TIME", "from 2026-11-01, 2026-11-01T12:00, an RFC 3339 time, or 7d (ago)"},
    {0, "to", "TIME", "until then; default now"},
    END,
};
const struct option event_options[] = {
    {0, "since", "SEQ", "those after this sequence number"},
    {'j', "job", "ID", "only this job's"},
    END,
};
