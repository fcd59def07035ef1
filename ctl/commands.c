#include "ctl/cmd.h"
#include "ctl/options.h"

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
        .noun = "job",
        .verb = "report",
        .arguments = "ID",
        .argument = ARGUMENT_JOB,
        .arguments_min = 1,
        .arguments_max = 1,
        .options = report_options,
        .summary = "The report of a run: curves, restarts, data seen, cost",
        .details = "Also while it runs. HTML is one file that needs no other and no network; "
                   "Markdown on standard\n"
                   "output has sparklines instead of pictures; json has the facts and the figures "
                   "of each curve.\n"
                   "\n"
                   "  dsctl job report 12 --out run12.html\n"
                   "  dsctl job report 12 | less",
        .view = cmd_job_report,
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
        .argument = ARGUMENT_MAINT,
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
        .argument = ARGUMENT_QUEUE,
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "All about one queue",
        .view = cmd_queue_show,
    },
    {
        .noun = "queue",
        .verb = "set",
        .arguments = "QUEUE",
        .argument = ARGUMENT_QUEUE,
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
        .argument = ARGUMENT_ACCOUNT,
        .arguments_min = 1,
        .arguments_max = 1,
        .summary = "All about one account, user by user",
        .view = cmd_account_show,
    },
    {
        .noun = "account",
        .verb = "set",
        .arguments = "ACCOUNT",
        .argument = ARGUMENT_ACCOUNT,
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
        .verb = "plan",
        .alias = "plan",
        .arguments = "",
        .options = run_plan_options,
        .summary = "What a run that does not exist yet would take",
        .details = "Arithmetic alone: asks no coordinator. Of --gpus, --tokens and --days two give "
                   "the third; the share\n"
                   "of the peak is assumed. The memory table has a line for each pipeline index: "
                   "docs/plan.md.\n"
                   "\n"
                   "  dsctl plan --pipeline 16 --expert 64\n"
                   "  dsctl plan --model config.json --tokens 2T --days 10 --price 1.5 -o json",
        .view = cmd_plan,
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
