/* dstrain: command line -> one of its sub-commands -> exit status. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/jobspec.h"
#include "trainer/inspect.h"
#include "trainer/main.h"
#include "trainer/run.h"
#include "proto/plan_run.h"
#include "trainer/schedule.h"
#include "trainer/spec_file.h"

static const char help[] =
    "dstrain: trains DeepSeek-V3-shaped models.\n"
    "\n"
    "  dstrain run SPEC [--ranks N] [--out DIR] [--resume auto|CKPT] [--set KEY=VALUE]...\n"
    "              [--backend cpu|cuda] [--dry-run] [--profile]\n"
    "  dstrain pack FILE... -o PREFIX [--tokenizer T] [--split-valid SHARE] ...\n"
    "  dstrain report RUN [--out DIR|-] [--format md|html|both|json] ...\n"
    "  dstrain inspect CKPT [--verify]\n"
    "  dstrain export CKPT DIR [--dtype fp32|bf16|fp8] [--shard-size SIZE]\n"
    "  dstrain import HF_DIR CKPT [--mtp N] [--seed S] [--init-std X] [--shard-size SIZE]\n"
    "  dstrain eval CKPT --data PREFIX|FILE.jsonl [--batches N] [--json]\n"
    "  dstrain generate CKPT --prompt TEXT [--temperature X] [--speculate]\n"
    "\n"
    "`dstrain COMMAND --help` explains one command.\n"
    "\n"
    "Exit status: 0 done; 64-78 wrong use, configuration or data; 75 transient;\n"
    "80 stopped and saved; 82 loss not finite; 83 checkpoint damaged;\n"
    "84 another attempt took over; 85 lost a peer; 86 storage.\n";

static const char help_run[] =
    "dstrain run SPEC [options]: trains the job of a job file (its `train:` section).\n"
    "\n"
    "Started by a worker (DS_REPORT_SOCKET is set) it is one rank. Started by you it runs\n"
    "all ranks on this machine; no coordinator is needed. Ctrl-C finishes the step, saves,\n"
    "and leaves.\n"
    "\n"
    "  --ranks N            ranks to start; default: nodes x gpus_per_node of the job file.\n"
    "                       Ranks beyond pipeline x expert share the batch\n"
    "  --out DIR            checkpoints, metrics.jsonl, TensorBoard events (tb/), and at\n"
    "                       the end report.html and report.md; default runs/NAME\n"
    "  --resume auto|CKPT   go on from the newest whole checkpoint in DIR (from the start\n"
    "                       when there is none), or from this one; on any number of ranks\n"
    "  --set KEY=VALUE      override a value of the job file, such as train.steps=10;\n"
    "                       repeatable\n"
    "  --backend cpu|cuda   what computes; the same as --set train.backend=...\n"
    "  --profile            in the end, a table of where the time of a step went; the same\n"
    "                       as DS_PROFILE=1 in the environment\n"
    "  --dry-run            checks the job file and the model, prints the run's schedule as a\n"
    "                       table (a line where something begins or ends), its precision\n"
    "                       recipe and what it would hold on a GPU; trains nothing\n"
    "\n"
    "OMP_NUM_THREADS: threads of a rank; default: the cores shared out among the ranks.\n"
    "Results are reproducible to the bit for one number of ranks and threads.\n"
    "\n"
    "Prints a line a step: step= tokens= loss= mtp_loss= balance_maxvio= grad_norm= lr=\n"
    "tok_s= step_ms= and, when it validated, valid_loss= valid_maxvio= (losses in nats a\n"
    "token), and maxvio_layers=, balance_maxvio of each layer.\n";

static const char help_inspect[] =
    "dstrain inspect CKPT [--verify]: what is in a checkpoint folder, a Hugging Face folder,\n"
    "or one .safetensors file: where the run stood, what it was made with, shards, tensors.\n"
    "\n"
    "dstrain inspect DIR/flight: the last collectives of the ranks of a run, and where they\n"
    "differ: who waited, in which call, for whom.\n"
    "\n"
    "  --verify             also reads every shard and checks its size and digests\n"
    "                       against the manifest; of a Hugging Face folder every tensor, as\n"
    "                       an import would\n";

int main_complain(const struct err *err, int status)
{
    fprintf(stderr, "dstrain: %s\n", err->text);
    return status;
}

int main_usage(const char *command, const char *what)
{
    fprintf(stderr, "dstrain: %s (see dstrain %s%s--help)\n", what, command,
            command[0] != 0 ? " " : "");
    return 64;
}

bool main_parse_u64(const char *text, uint64_t max, uint64_t *value)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || text[0] == '-' || v > max) {
        return false;
    }
    *value = v;
    return true;
}

/* Fills *run; set has room for argc items. -1: go on, else the exit status. */
static int parse_run(struct run_options *run, const char **set, int argc, char **argv)
{
    static const struct option options[] = {{"ranks", required_argument, NULL, 'r'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"resume", required_argument, NULL, 'R'},
                                            {"set", required_argument, NULL, 's'},
                                            {"profile", no_argument, NULL, 'p'},
                                            {"dry-run", no_argument, NULL, 'd'},
                                            {"backend", required_argument, NULL, 'b'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    uint64_t ranks = 0;
    int c;
    *run = (struct run_options){.set = set};
    while ((c = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        switch (c) {
        case 'r':
            if (!main_parse_u64(optarg, JOBSPEC_GPUS_MAX, &ranks) || ranks == 0) {
                return main_usage("run", "--ranks wants a number from 1 to 64");
            }
            run->ranks = (uint32_t)ranks;
            break;
        case 'o':
            run->out = optarg;
            break;
        case 'R':
            run->resume = optarg;
            break;
        case 's':
            set[run->set_count++] = optarg;
            break;
        case 'b':
            if (strcmp(optarg, "cpu") != 0 && strcmp(optarg, "cuda") != 0) {
                return main_usage("run", "--backend wants cpu or cuda");
            }
            set[run->set_count++] =
                strcmp(optarg, "cuda") == 0 ? "train.backend=cuda" : "train.backend=cpu";
            break;
        case 'p':
            setenv("DS_PROFILE", "1", 1); /* for the ranks */
            break;
        case 'd':
            run->dry_run = true;
            break;
        case 'h':
            fputs(help_run, stdout);
            return 0;
        default:
            return main_usage("run", "wrong option");
        }
    }
    if (optind != argc - 1) {
        return main_usage("run",
                          optind >= argc ? "run wants a job file" : "run wants one job file only");
    }
    run->spec_path = argv[optind];
    return -1;
}

/* What it would take of GPUs; the CPU back end keeps FP32 numbers and takes more. */
static int print_memory(const struct run_options *run, const struct jobspec *spec,
                        const struct model_config *config, struct err *err)
{
    uint32_t ranks = run->ranks > 0 ? run->ranks : jobspec_world_size(spec, spec->nodes_min);
    struct plan_run plan = plan_run_of(&spec->train, config, ranks);
    struct plan_memory most;
    TRY(plan_memory_most(&plan, &most, err));
    printf(
        "on GPUs a rank would take %.3f GB at most: weights %.3f, gradients %.3f, optimizer %.3f, "
        "activations %.3f, workspace %.3f, reserved %.3f\n",
        (double)most.total / 1e9, (double)most.weights / 1e9, (double)most.gradients / 1e9,
        (double)most.optimizer / 1e9, (double)most.activations / 1e9, (double)most.workspace / 1e9,
        (double)most.reserved / 1e9);
    return 0;
}

static void print_recipe(const struct recipe *recipe)
{
    struct buf text = {0};
    recipe_json(&text, recipe);
    printf("recipe: %s\n", buf_cstr(&text));
    buf_fini(&text);
}

/* What the job file comes to, without running it. */
static int dry_run(const struct run_options *run, struct err *err)
{
    struct jobspec spec = {0};
    struct model_config config;
    TRY(spec_file_load(&spec, &config, run->spec_path, run->set, run->set_count, err));
    char *table = schedule_table(&spec.train);
    printf("%s: %" PRIu64 " parameters, %" PRIu64 " active, and %" PRIu64
           " of MTP modules; %" PRIu64 " steps, %" PRIu64 " tokens\n%s",
           spec.name, model_config_params_total(&config), model_config_params_active(&config),
           model_config_params_mtp(&config), spec.train.steps, spec.train.tokens, table);
    free(table);
    print_recipe(&spec.train.recipe);
    int rc = print_memory(run, &spec, &config, err);
    jobspec_fini(&spec);
    return rc;
}

static int main_run(int argc, char **argv)
{
    struct run_options run;
    struct err err = {0};
    const char **set = mem_alloc_array((size_t)argc, sizeof *set);
    int status = parse_run(&run, set, argc, argv);
    int rc = 0;
    if (status < 0 && run.dry_run) {
        rc = dry_run(&run, &err);
        status = rc == 0 ? 0 : run_exit_status(rc);
    } else if (status < 0 && run_is_rank()) {
        rc = run_rank(&run, &err);
        status = run_exit_status(rc);
    } else if (status < 0) {
        rc = launch(&run, &status, &err);
    }
    free(set);
    return rc == 0 ? status : main_complain(&err, status);
}

static int main_inspect(int argc, char **argv)
{
    static const struct option options[] = {
        {"verify", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool verify = false;
    int c;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 'v':
            verify = true;
            break;
        case 'h':
            fputs(help_inspect, stdout);
            return 0;
        default:
            return main_usage("inspect", "wrong option");
        }
    }
    if (optind != argc - 1) {
        return main_usage("inspect", "inspect wants one checkpoint folder or .safetensors file");
    }
    struct err err = {0};
    int rc = inspect(argv[optind], verify, &err);
    return rc == 0 ? 0 : main_complain(&err, run_exit_status(rc));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*main)(int argc, char **argv);
    } commands[] = {{"run", main_run},           {"pack", main_pack},     {"inspect", main_inspect},
                    {"export", main_export},     {"import", main_import}, {"eval", main_eval},
                    {"generate", main_generate}, {"report", main_report}};
    log_init("dstrain", LOG_INFO);
    if (argc < 2) {
        fputs(help, stderr);
        return 64;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        fputs(help, stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].main(argc - 1, argv + 1);
        }
    }
    return main_usage("", "no such command");
}
