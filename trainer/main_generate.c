/* dstrain generate: command line. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "trainer/generate.h"
#include "trainer/main.h"
#include "trainer/run.h"

#define TOKENS_DEFAULT 256

static const char help[] =
    "dstrain generate CKPT --prompt TEXT [options]: goes on with a text. What is new goes to\n"
    "stdout as it comes, tokens/s to stderr. It ends with the document, with the model's\n"
    "max_position_embeddings, or as told. In FP32 whatever the precision of training; a\n"
    "checkpoint of any layout, on one process.\n"
    "\n"
    "  --prompt TEXT        '' begins a document\n"
    "  --prompt-ids IDS     instead: token ids, such as '5 17 3'; ids come out as well\n"
    "  --tokenizer WHICH    a tokenizer.json, a folder with one, or bytes; default: the one\n"
    "                       beside the checkpoint, the text it was trained on, or the\n"
    "                       weights it began with; else bytes, as of dstrain export\n"
    "  --max-new-tokens N   default 256\n"
    "  --temperature X      0 (default): the likeliest token always; else sampled, the more\n"
    "                       evenly the higher\n"
    "  --top-p P            sampled from the likeliest tokens that have this share together;\n"
    "                       default 1: from all\n"
    "  --seed S             of the sampling; default 1. The same seed gives the same text\n"
    "  --speculate          guesses a token ahead with the MTP module: the same text in fewer\n"
    "                       passes; also says how many guesses were right. Where\n"
    "                       they do not pay it makes none for a while\n"
    "  --ema                with the weights' moving average (train.ema), not the weights\n"
    "  --model FILE         config.json, for a checkpoint from before they held their own\n"
    "\n"
    "OMP_NUM_THREADS: threads; default: all cores. The text does not depend on it.\n";

static bool parse_real(const char *text, double min, double max, double *value)
{
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == 0 && *value >= min && *value <= max;
}

/* -1: go on, else the exit status. */
static int parse(struct generate_options *o, int argc, char **argv)
{
    static const struct option options[] = {{"prompt", required_argument, NULL, 'p'},
                                            {"prompt-ids", required_argument, NULL, 'i'},
                                            {"tokenizer", required_argument, NULL, 'T'},
                                            {"max-new-tokens", required_argument, NULL, 'n'},
                                            {"temperature", required_argument, NULL, 't'},
                                            {"top-p", required_argument, NULL, 'P'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"speculate", no_argument, NULL, 'S'},
                                            {"model", required_argument, NULL, 'm'},
                                            {"ema", no_argument, NULL, 'e'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int c;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 'p':
            o->prompt = optarg;
            break;
        case 'i':
            o->prompt_ids = optarg;
            break;
        case 'T':
            o->tokenizer = optarg;
            break;
        case 'n':
            if (!main_parse_u64(optarg, INT32_MAX, &o->tokens)) {
                return main_usage("generate", "--max-new-tokens wants a number");
            }
            break;
        case 't':
            if (!parse_real(optarg, 0, 1000, &o->chooser.temperature)) {
                return main_usage("generate", "--temperature wants a number from 0 to 1000");
            }
            break;
        case 'P':
            if (!parse_real(optarg, 1e-9, 1, &o->chooser.top_p)) {
                return main_usage("generate", "--top-p wants a share above 0, up to 1");
            }
            break;
        case 's':
            if (!main_parse_u64(optarg, UINT64_MAX, &o->chooser.seed)) {
                return main_usage("generate", "--seed wants a number");
            }
            break;
        case 'S':
            o->speculate = true;
            break;
        case 'm':
            o->model = optarg;
            break;
        case 'e':
            o->ema = true;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return main_usage("generate", "wrong option");
        }
    }
    if (optind != argc - 1 || (o->prompt == NULL) == (o->prompt_ids == NULL)) {
        return main_usage("generate", "generate wants one checkpoint folder and --prompt TEXT"
                                      " (or --prompt-ids)");
    }
    o->ckpt = argv[optind];
    return -1;
}

int main_generate(int argc, char **argv)
{
    struct generate_options o = {.tokens = TOKENS_DEFAULT, .chooser = {.top_p = 1, .seed = 1}};
    struct err err = {0};
    int status = parse(&o, argc, argv);
    if (status >= 0) {
        return status;
    }
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error with a text */
    int rc = generate(&o, &err);
    return rc == 0 ? 0 : main_complain(&err, run_exit_status(rc));
}
