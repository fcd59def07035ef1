#include "ctl/cmd.h"

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

static const struct option submit_options[] = {
    {0, "set", "KEY=VALUE", "override a key of the file, such as train.steps=100; repeatable"},
    {0, "key", "KEY", "idempotency key: the same key gives the same job, always"},
    {0, "wait", NULL, "wait until the job ended; exit status as of job wait"},
    {'f', "follow", NULL, "show the logs of rank 0, then do as --wait"},
    {0, "dry-run", NULL, "check everything, submit nothing"},
    {0, "parsable", NULL, "print the id alone"},
    END,
};
static const struct option plan_options[] = {
    {0, "set", "KEY=VALUE", "override a key of the file, such as nodes=4; repeatable"},
    END,
};
static const struct option update_options[] = {
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
static const struct option resize_options[] = {
    {0, "nodes", "N", "this many nodes, or 2-8 for any of these"},
    END,
};
static const struct option queue_options[] = {
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
static const struct option account_options[] = {
    {0, "shares", "N", "its part of the cluster, beside that of others"},
    {0, "nodes", "N", "nodes of its running jobs; none: no limit"},
    {0, "accepts", "yes|no", "takes new jobs"},
    END,
};
static const struct option quota_options[] = {
    {'u', "user", "USER", "of this user; *: of each one; not given: of all together"},
    {0, "account", "ACCOUNT", "of this account, likewise"},
    {0, "class", "CLASS", "of this class of priorities, likewise"},
    {0, "nodes", "N", "nodes at a time; none: the quota is no more"},
    {0, "expires", "TIME", "such as +7d or 2026-12-01; default never"},
    {0, "reason", "TEXT", "why, for the record"},
    END,
};
static const struct option all_options[] = {
    {'a', "all", NULL, "also those that are over"},
    END,
};
static const struct option maint_options[] = {
    {0, "nodes", "LIST", "host list, such as gpu[001-032,040]"},
    {0, "start", "TIME", "now, +2h, or '2026-12-01 08:00'"},
    {0, "duration", "DURATION", "how long"},
    {0, "reason", "TEXT", "what is done there"},
    {'u', "user", "USER", "no maintenance: keep the nodes for this user's jobs"},
    {0, "account", "ACCOUNT", "no maintenance: keep the nodes for this account's jobs"},
    END,
};
static const struct option list_options[] = {
    {0, "state", JOB_STATES, "only jobs in this state"},
    {'u', "user", "USER", "only this user's"},
    {'q', "queue", "QUEUE", "only those of this queue"},
    {'a', "all", NULL, "also those that ended"},
    END,
};
static const struct option reason_options[] = {
    {0, "reason", "TEXT", "why, for the record"},
    END,
};
static const struct option logs_options[] = {
    {'r', "rank", "RANKS", "this rank, a list such as 0,2-3, or all; default 0"},
    {0, "attempt", "A", "of this attempt; default the newest"},
    {'f', "follow", NULL, "go on as the logs grow, over restarts, until the job ended"},
    {'n', "tail", "N", "start N lines before the end"},
    {0, "stdout", NULL, "only what went to standard output"},
    {0, "stderr", NULL, "only what went to standard error"},
    END,
};
static const struct option metrics_options[] = {
    {'p', "plot", NULL, "draw the loss over the steps"},
    {0, "from", "STEP", "from this step on"},
    END,
};
static const struct option node_list_options[] = {
    {0, "state", NODE_STATES, "only nodes in this state"},
    END,
};
static const struct option export_options[] = {
    {'o', "output", "DIR", "the folder to write; it must be new or empty"},
    {0, "format", "hf", "hf, the only one: a Hugging Face folder"},
    {0, "dtype", "fp32|bf16|fp8", "of the weights; default bf16"},
    {0, "shard-size", "SIZE", "of a file, such as 500MB; default 5GB"},
    {0, "tokenizer", "WHICH", "a tokenizer.json, a folder with one, bytes, or none"},
    END,
};
static const struct option cost_options[] = {
    {0, "by", "job|user|account|stage|queue|node|category|month",
     "what a line stands for; default job"},
    {0, "from", "TIME", "from 2026-11-01, 2026-11-01T12:00, an RFC 3339 time, or 7d (ago)"},
    {0, "to", "TIME", "until then; default now"},
    END,
};
static const struct option event_options[] = {
    {0, "since", "SEQ", "those after this sequence number"},
    {'j', "job", "ID", "only this job's"},
    END,
};

const struct command commands[] = {
    {
        .noun = "job",
        .verb = "submit",
        .alias = "submit",
        .arguments = "FILE",
        .argument = ARGUMENT_FILE,
        .arguments_min = 1,
        .arguments_max = 1,
        .options = submit_options,
        .summary = "Submit a YAML job; '-' is standard input",
        .details = "The file and the model it names are checked here first, so that mistakes are "
                   "shown with their\n"
                   "line even without a coordinator. Relative paths in the file start at its "
                   "folder; the job\n"
                   "runs in the current folder. Prints 'submitted job 12 (name)'.\n"
                   "\n"
                   "Without an answer the same request is sent again, with the same key, until "
                   "--timeout (30s):\n"
                   "it cannot become two jobs.\n"
                   "\n"
                   "  dsctl submit etc/demo.yaml --set train.steps=100 --follow\n"
                   "  id=$(dsctl submit job.yaml --parsable)",
        .run = cmd_job_submit,
    },
    {
        .noun = "job",
        .verb = "list",
        .alias = "jobs",
        .arguments = "",
        .options = list_options,
        .summary = "List live jobs, newest first",
        .details = "--all lists those that ended, too; --state looks among them. The newest 1000, "
                   "unless --limit\n"
                   "says otherwise.\n"
                   "\n"
                   "  dsctl jobs --state RUNNING --sort -gpus\n"
                   "  dsctl jobs -u $USER -o name | xargs dsctl cancel",
        .view = cmd_job_list,
    },
    {
        .noun = "job",
        .verb = "show",
        .arguments = "ID",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "All about one job: attempts, checkpoints, cost",
        .view = cmd_job_show,
    },
    {
        .noun = "job",
        .verb = "why",
        .arguments = "ID",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "The one reason a job waits, with counts",
        .view = cmd_job_why,
    },
    {
        .noun = "job",
        .verb = "plan",
        .arguments = "FILE",
        .argument = ARGUMENT_FILE,
        .arguments_min = 1,
        .arguments_max = 1,
        .options = plan_options,
        .summary = "What submitting a job would do now; submits nothing",
        .details = "Exit status 0 if it would start at once, 1 if it would wait (until when, "
                   "behind whom), 2 if\n"
                   "it would make others stop (whom). What would be refused is an error, with a "
                   "line on stderr\n"
                   "and the exit status of job submit.\n"
                   "\n"
                   "  dsctl job plan job.yaml --set nodes=32",
        .view = cmd_job_plan,
    },
    {
        .noun = "job",
        .verb = "cancel",
        .alias = "cancel",
        .arguments = "ID...",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .options = reason_options,
        .summary = "End jobs",
        .details = "A job that runs may save a checkpoint first. Asks before it cancels several, "
                   "on a terminal\n"
                   "and without --yes.",
        .run = cmd_job_cancel,
    },
    {
        .noun = "job",
        .verb = "hold",
        .arguments = "ID...",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .options = reason_options,
        .summary = "Keep jobs from starting until released",
        .run = cmd_job_hold,
    },
    {
        .noun = "job",
        .verb = "release",
        .arguments = "ID...",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .summary = "Let held jobs start again",
        .run = cmd_job_release,
    },
    {
        .noun = "job",
        .verb = "suspend",
        .arguments = "ID...",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .options = reason_options,
        .summary = "Stop jobs with a checkpoint, until resumed",
        .details = "A job that runs saves first, and gives its nodes back. Asks before it suspends "
                   "several, on a\n"
                   "terminal and without --yes.",
        .run = cmd_job_suspend,
    },
    {
        .noun = "job",
        .verb = "resume",
        .arguments = "ID...",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .options = reason_options,
        .summary = "Let suspended jobs go on from their checkpoints",
        .run = cmd_job_resume,
    },
    {
        .noun = "job",
        .verb = "requeue",
        .arguments = "ID...",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .options = reason_options,
        .summary = "Stop running jobs with a checkpoint, and queue them again",
        .run = cmd_job_requeue,
    },
    {
        .noun = "job",
        .verb = "resize",
        .arguments = "ID...",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .options = resize_options,
        .summary = "Give jobs another number of nodes (--nodes required)",
        .details = "A job that runs with another number saves, stops, and starts again from its "
                   "checkpoint.\n"
                   "\n"
                   "  dsctl job resize 12 --nodes 4\n"
                   "  dsctl job resize 12 --nodes 2-8",
        .run = cmd_job_resize,
    },
    {
        .noun = "job",
        .verb = "update",
        .arguments = "ID...",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .options = update_options,
        .summary = "Change priority, queue, limits or times of jobs",
        .details = "  dsctl job update 12 13 --priority 10 --deadline '2026-12-01 08:00'",
        .run = cmd_job_update,
    },
    {
        .noun = "job",
        .verb = "wait",
        .arguments = "ID",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "Wait until a job ended",
        .details = "Exit status 0 if it completed, 1 if it failed or was cancelled. Outlives a "
                   "restart of the\n"
                   "coordinator. With --timeout it exits with 7 when the job has not ended by\n"
                   "then; the job goes on.",
        .run = cmd_job_wait,
    },
    {
        .noun = "job",
        .verb = "logs",
        .alias = "logs",
        .arguments = "ID",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = 1,
        .options = logs_options,
        .summary = "What the ranks of a job printed",
        .details = "Without -f, first all of a rank's stdout, then its stderr. Lines of several "
                   "ranks start with\n"
                   "[RANK], those on stderr with [RANK!]. Everything goes to stdout.\n"
                   "\n"
                   "  dsctl logs 12 -f\n"
                   "  dsctl logs 12 --rank all --stderr --tail 20",
        .run = cmd_job_logs,
    },
    {
        .noun = "job",
        .verb = "metrics",
        .arguments = "ID",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = 1,
        .options = metrics_options,
        .summary = "Loss, gradient norm, tokens a second, step by step",
        .details = "A table shows the newest 20 steps unless --limit says otherwise; csv, json and "
                   "yaml all.\n"
                   "\n"
                   "  dsctl job metrics 12 --plot --watch",
        .view = cmd_job_metrics,
    },
    {
        .noun = "node",
        .verb = "list",
        .alias = "nodes",
        .arguments = "",
        .options = node_list_options,
        .summary = "List nodes and what runs on them",
        .view = cmd_node_list,
    },
    {
        .noun = "node",
        .verb = "show",
        .arguments = "NODE",
        .argument = ARGUMENT_NODE,
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "One node, accelerator by accelerator",
        .view = cmd_node_show,
    },
    {
        .noun = "node",
        .verb = "drain",
        .arguments = "NODE...",
        .argument = ARGUMENT_NODE,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .options = reason_options,
        .summary = "Start nothing new on nodes (--reason required)",
        .details = "Takes host lists. What runs there goes on; the node is DRAINED when the last "
                   "job left.\n"
                   "Asks before it drains several, on a terminal and without --yes.\n"
                   "\n"
                   "  dsctl node drain 'gpu[001-032,040]' --reason 'switch firmware'",
        .run = cmd_node_drain,
    },
    {
        .noun = "node",
        .verb = "resume",
        .arguments = "NODE...",
        .argument = ARGUMENT_NODE,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .summary = "Let jobs start on drained nodes again",
        .run = cmd_node_resume,
    },
    {
        .noun = "maint",
        .verb = "create",
        .arguments = "",
        .options = maint_options,
        .summary = "Plan maintenance of nodes, or keep them for somebody",
        .details = "Jobs that would not be over by the start are not placed there; what still runs "
                   "then saves and\n"
                   "goes back into the queue, and the nodes are in MAINT until the end. With "
                   "--user or --account\n"
                   "the nodes are kept for their jobs instead. Prints 'planned maintenance 3'.\n"
                   "\n"
                   "  dsctl maint create --nodes 'gpu[001-032]' --start '2026-12-01 08:00' "
                   "--duration 2h \\\n"
                   "      --reason 'switch firmware'",
        .run = cmd_maint_create,
    },
    {
        .noun = "maint",
        .verb = "list",
        .arguments = "",
        .options = all_options,
        .summary = "List maintenance windows and reservations",
        .view = cmd_maint_list,
    },
    {
        .noun = "maint",
        .verb = "cancel",
        .arguments = "ID...",
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .summary = "Cancel windows and reservations, also begun ones",
        .run = cmd_maint_cancel,
    },
    {
        .noun = "queue",
        .verb = "list",
        .arguments = "",
        .summary = "List queues, their limits and what is in them",
        .view = cmd_queue_list,
    },
    {
        .noun = "queue",
        .verb = "show",
        .arguments = "QUEUE",
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "All about one queue",
        .view = cmd_queue_show,
    },
    {
        .noun = "queue",
        .verb = "set",
        .arguments = "QUEUE",
        .arguments_min = 1,
        .arguments_max = 1,
        .options = queue_options,
        .summary = "Change a queue, or make it",
        .details = "  dsctl queue set batch --nodes 16 --user-jobs 4 --time-limit 1d\n"
                   "  dsctl queue set batch --nodes none",
        .run = cmd_queue_set,
    },
    {
        .noun = "account",
        .verb = "list",
        .arguments = "",
        .summary = "List accounts, their shares and what they used",
        .view = cmd_account_list,
    },
    {
        .noun = "account",
        .verb = "show",
        .arguments = "ACCOUNT",
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "All about one account, user by user",
        .view = cmd_account_show,
    },
    {
        .noun = "account",
        .verb = "set",
        .arguments = "ACCOUNT",
        .arguments_min = 1,
        .arguments_max = 1,
        .options = account_options,
        .summary = "Change an account, or make it",
        .run = cmd_account_set,
    },
    {
        .noun = "quota",
        .verb = "list",
        .arguments = "",
        .options = all_options,
        .summary = "List quotas: who may have how many nodes",
        .view = cmd_quota_list,
    },
    {
        .noun = "quota",
        .verb = "set",
        .arguments = "",
        .options = quota_options,
        .summary = "Limit the nodes of a user, account or class",
        .details = "Replaces the quota for the same user, account and class. Each change is an "
                   "event with who made it.\n"
                   "\n"
                   "  dsctl quota set --user ada --nodes 8 --expires +7d --reason 'deadline'\n"
                   "  dsctl quota set --user '*' --account nlp --nodes 4\n"
                   "  dsctl quota set --user ada --nodes none",
        .run = cmd_quota_set,
    },
    {
        .noun = "ckpt",
        .verb = "list",
        .arguments = "[JOB]",
        .argument = ARGUMENT_JOB,
        .arguments_min = 0,
        .arguments_max = 1,
        .summary = "List checkpoints, of one job or of all",
        .view = cmd_ckpt_list,
    },
    {
        .noun = "ckpt",
        .verb = "show",
        .arguments = "ID",
        .argument = ARGUMENT_CKPT,
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "One checkpoint with its shards and digests",
        .view = cmd_ckpt_show,
    },
    {
        .noun = "ckpt",
        .verb = "verify",
        .arguments = "ID...",
        .argument = ARGUMENT_CKPT,
        .arguments_min = 1,
        .arguments_max = ARGUMENTS_ANY,
        .summary = "Read checkpoints back and compare every digest",
        .details =
            "Exit status 0 if all are as they were written, 1 if one is not, 8 if only some are.",
        .run = cmd_ckpt_verify,
    },
    {
        .noun = "ckpt",
        .verb = "export",
        .arguments = "ID",
        .argument = ARGUMENT_CKPT,
        .arguments_min = 1,
        .arguments_max = 1,
        .options = export_options,
        .summary = "Write a checkpoint as a Hugging Face folder (-o DIR required)",
        .details = "Runs dstrain export here, so the checkpoint's folder must be in reach. The "
                   "model card gets\n"
                   "what the coordinator knows of the job: losses, GPU-hours, cost.\n"
                   "\n"
                   "  dsctl ckpt export 7 --format hf --dtype fp8 -o my-model",
        .run = cmd_ckpt_export,
    },
    {
        .noun = "cost",
        .verb = "report",
        .arguments = "",
        .options = cost_options,
        .summary = "Where the GPU-hours and the dollars went",
        .details = "The last line is the capacity identity: allocated + down + planned_down + idle "
                   "= reported.\n"
                   "\n"
                   "  dsctl cost report --by user --from 30d --sort -cost",
        .view = cmd_cost_report,
    },
    {
        .noun = "cost",
        .verb = "verify",
        .arguments = "",
        .summary = "Recompute the ledger's hash chain and sums",
        .details = "Exit status 1 if the chain is broken, or allocated + down + planned_down + "
                   "idle is not what\n"
                   "was reported.",
        .view = cmd_cost_verify,
    },
    {
        .noun = "event",
        .verb = "list",
        .arguments = "",
        .options = event_options,
        .summary = "What happened, oldest first",
        .details = "The newest 100, or all from --since on, unless --limit says otherwise.",
        .view = cmd_event_list,
    },
    {
        .noun = "event",
        .verb = "tail",
        .arguments = "",
        .options = event_options,
        .summary = "Events as they happen",
        .details = "Starts with the newest 10, or after --since. Each event is shown exactly once, "
                   "also over a\n"
                   "restart of the coordinator. -o json prints one object a line.",
        .run = cmd_event_tail,
    },
    {
        .noun = "cluster",
        .verb = "status",
        .arguments = "",
        .summary = "The cluster at a glance",
        .view = cmd_cluster_status,
    },
    {.noun = NULL},
};
