/* dstrain eval: command line. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "trainer/eval.h"
#include "trainer/eval_jsonl.h"
#include "trainer/main.h"
#include "trainer/run.h"

static const char help[] =
    "dstrain eval CKPT --data PREFIX|FILE.jsonl [options]\n"
    "\n"
    "PREFIX: loss (nats a token) and perplexity of a checkpoint over the packed corpus\n"
    "PREFIX.bin, PREFIX.idx, in the precision of training; also bits per byte when the\n"
    "tokenizer is known. A checkpoint of any layout is computed on one process.\n"
    "\n"
    "  --data PREFIX        from dstrain pack\n"
    "  --batches N          only N windows, spread evenly over the corpus; default: all\n"
    "  --sequence-length N  of a window; default: as in training\n"
    "  --model FILE         config.json, for a checkpoint from before they held their own\n"
    "  --tokenizer WHICH    a tokenizer.json, a folder with one, or bytes; default: as of\n"
    "                       dstrain generate\n"
    "  --ema                the weights' moving average (train.ema), not the weights\n"
    "  --json               one JSON object instead of key=value\n"
    "\n"
    "FILE.jsonl: questions, one a line, scored in FP32 by log-likelihood as\n"
    "lm-evaluation-harness does; --batches and --sequence-length do not apply:\n"
    "  {\"context\":TEXT, \"choices\":[TEXT...], \"answer\":INDEX}    acc, acc_norm (likelihood\n"
    "                                       a character), acc_bytes (a byte)\n"
    "  {\"context\":TEXT, \"target\":TEXT}    cloze_acc (is it what greedy decoding gives),\n"
    "                                       cloze_perplexity (of targets)\n"
    "\n"
    "Windows are fixed and each token is a target once; a last part that does not fill one\n"
    "is left out. OMP_NUM_THREADS: threads; default: all cores.\n";

static bool is_jsonl(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL && strcmp(dot, ".jsonl") == 0;
}

/* -1: go on, else the exit status. */
static int parse(struct eval_options *o, int argc, char **argv)
{
    static const struct option options[] = {{"data", required_argument, NULL, 'd'},
                                            {"batches", required_argument, NULL, 'b'},
                                            {"sequence-length", required_argument, NULL, 's'},
                                            {"model", required_argument, NULL, 'm'},
                                            {"tokenizer", required_argument, NULL, 't'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"ema", no_argument, NULL, 'e'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    uint64_t length = 0;
    int c;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 'd':
            o->data = optarg;
            break;
        case 'b':
            if (!main_parse_u64(optarg, INT64_MAX, &o->batches) || o->batches == 0) {
                return main_usage("eval", "--batches wants a number from 1 up");
            }
            break;
        case 's':
            if (!main_parse_u64(optarg, INT_MAX, &length) || length == 0) {
                return main_usage("eval", "--sequence-length wants a number from 1 up");
            }
            o->sequence_length = (uint32_t)length;
            break;
        case 't':
            o->tokenizer = optarg;
            break;
        case 'm':
            o->model = optarg;
            break;
        case 'e':
            o->ema = true;
            break;
        case 'j':
            o->json = true;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return main_usage("eval", "wrong option");
        }
    }
    if (optind != argc - 1 || o->data == NULL) {
        return main_usage("eval", "eval wants one checkpoint folder and --data PREFIX");
    }
    o->ckpt = argv[optind];
    if (is_jsonl(o->data) && (o->batches > 0 || o->sequence_length > 0)) {
        return main_usage("eval", "--batches and --sequence-length are for a packed corpus");
    }
    return -1;
}

int main_eval(int argc, char **argv)
{
    struct eval_options o = {0};
    struct err err = {0};
    int status = parse(&o, argc, argv);
    if (status >= 0) {
        return status;
    }
    int rc = is_jsonl(o.data) ? eval_jsonl(&o, &err) : eval_corpus(&o, &err);
    return rc == 0 ? 0 : main_complain(&err, run_exit_status(rc));
}
