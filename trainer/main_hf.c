/* dstrain export, dstrain import: command lines. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/jobspec.h"
#include "trainer/hf_export.h"
#include "trainer/hf_import.h"
#include "trainer/main.h"
#include "trainer/run.h"

#define SHARD_BYTES 5000000000u /* as most published folders have */
#define MTP_MAX     16

static const char help_export[] =
    "dstrain export CKPT DIR [options]: a checkpoint as a Hugging Face folder, laid out as\n"
    "DeepSeek-V3's release, which transformers loads: model-00001-of-0000N.safetensors and\n"
    "their index, config.json, generation_config.json, tokenizer files, and README.md, a\n"
    "model card with what the checkpoint knows of its run. Every digest is checked on the\n"
    "way. DIR appears when it is whole.\n"
    "\n"
    "  --format hf          the only one\n"
    "  --dtype TYPE         fp32; bf16 (default); or fp8: E4M3 codes with an FP32\n"
    "                       weight_scale_inv for each 128x128 block, all but the matrices of\n"
    "                       attention and experts BF16. Balancing biases are FP32 always\n"
    "  --shard-size SIZE    of a file's data, such as 500MB; default 5GB\n"
    "  --tokenizer WHICH    a tokenizer.json, a folder with one, bytes, or none; default:\n"
    "                       the one beside the checkpoint, the text (PREFIX.tokenizer.json),\n"
    "                       or the weights it began with; else bytes, when the model began\n"
    "                       with random weights and has at most 512 tokens\n"
    "  --facts FILE         what `dsctl job show ID -o json` printed: GPU-hours and cost for\n"
    "                       the card\n"
    "  --metrics FILE       metrics.jsonl: losses for the card; default: the run's own\n"
    "  --ema                the weights' moving average (train.ema), not the weights\n"
    "  --model FILE         config.json, for a checkpoint from before they held their own\n";

static const char help_import[] =
    "dstrain import HF_DIR CKPT [options]: a Hugging Face folder of a DeepSeek-V3-shaped\n"
    "model (FP32, BF16, F16, or FP8 with weight_scale_inv; one file or many with an index)\n"
    "as a checkpoint of weights alone. A run starts from it, with fresh optimiser moments,\n"
    "when its job file says train.init_from: CKPT (or by dstrain run --resume CKPT);\n"
    "CKPT/config.json is its model. CKPT appears when it is whole.\n"
    "\n"
    "  --mtp N              multi-token prediction layers; default: as config.json says.\n"
    "                       Those that the folder lacks are initialised\n"
    "  --seed S             of these; default 1\n"
    "  --init-std X         of these; default 0.006\n"
    "  --shard-size SIZE    of a shard's data, such as 500MB; default 5GB\n";

/* 5GB, 500MB, 1000: powers of a thousand. */
static bool parse_size(const char *text, uint64_t *bytes)
{
    char plain[32];
    size_t len = strlen(text);
    if (len == 0 || len >= sizeof plain) {
        return false;
    }
    memcpy(plain, text, len + 1);
    if (plain[len - 1] == 'B') {
        plain[len - 1] = 0;
    }
    return count_parse(plain, bytes, NULL) == 0 && *bytes > 0;
}

static bool parse_std(const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == 0 && *value > 0 && *value <= 10;
}

/* -1: go on, else the exit status. */
static int parse_export(struct export_options *o, int argc, char **argv)
{
    static const struct option options[] = {{"format", required_argument, NULL, 'f'},
                                            {"dtype", required_argument, NULL, 'd'},
                                            {"shard-size", required_argument, NULL, 's'},
                                            {"tokenizer", required_argument, NULL, 't'},
                                            {"facts", required_argument, NULL, 'F'},
                                            {"metrics", required_argument, NULL, 'm'},
                                            {"model", required_argument, NULL, 'c'},
                                            {"ema", no_argument, NULL, 'e'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    static const char *const dtypes[] = {
        [EXPORT_FP32] = "fp32", [EXPORT_BF16] = "bf16", [EXPORT_FP8] = "fp8"};
    int c;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        bool found = false;
        switch (c) {
        case 'f':
            if (strcmp(optarg, "hf") != 0) {
                return main_usage("export", "--format: hf is the only one");
            }
            break;
        case 'd':
            for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
                if (strcmp(optarg, dtypes[i]) == 0) {
                    o->dtype = (enum export_dtype)i;
                    found = true;
                }
            }
            if (!found) {
                return main_usage("export", "--dtype wants fp32, bf16 or fp8");
            }
            break;
        case 's':
            if (!parse_size(optarg, &o->shard_bytes)) {
                return main_usage("export", "--shard-size wants a size such as 5GB");
            }
            break;
        case 't':
            o->tokenizer = optarg;
            break;
        case 'F':
            o->facts = optarg;
            break;
        case 'm':
            o->metrics = optarg;
            break;
        case 'c':
            o->config = optarg;
            break;
        case 'e':
            o->ema = true;
            break;
        case 'h':
            fputs(help_export, stdout);
            return 0;
        default:
            return main_usage("export", "wrong option");
        }
    }
    if (optind != argc - 2) {
        return main_usage("export", "export wants a checkpoint folder and a folder to write");
    }
    o->ckpt_dir = argv[optind];
    o->hf_dir = argv[optind + 1];
    return -1;
}

int main_export(int argc, char **argv)
{
    struct export_options options = {.dtype = EXPORT_BF16, .shard_bytes = SHARD_BYTES};
    struct export_result result;
    struct err err = {0};
    int status = parse_export(&options, argc, argv);
    if (status >= 0) {
        return status;
    }
    int rc = hf_export(&options, &result, &err);
    if (rc != 0) {
        return main_complain(&err, run_exit_status(rc));
    }
    printf("%s: %llu tensors, %llu bytes in %u file%s\n", options.hf_dir,
           (unsigned long long)result.tensors, (unsigned long long)result.bytes, result.files,
           result.files == 1 ? "" : "s");
    return 0;
}

static int parse_import(struct import_options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"mtp", required_argument, NULL, 'm'},      {"seed", required_argument, NULL, 'S'},
        {"init-std", required_argument, NULL, 'i'}, {"shard-size", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},           {0}};
    uint64_t mtp;
    int c;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 'm':
            if (!main_parse_u64(optarg, MTP_MAX, &mtp)) {
                return main_usage("import", "--mtp wants a number from 0 to 16");
            }
            o->mtp_layers = (int64_t)mtp;
            break;
        case 'S':
            if (!main_parse_u64(optarg, UINT64_MAX, &o->seed)) {
                return main_usage("import", "--seed wants a whole number");
            }
            break;
        case 'i':
            if (!parse_std(optarg, &o->init_std)) {
                return main_usage("import", "--init-std wants a number over 0, such as 0.006");
            }
            break;
        case 's':
            if (!parse_size(optarg, &o->shard_bytes)) {
                return main_usage("import", "--shard-size wants a size such as 5GB");
            }
            break;
        case 'h':
            fputs(help_import, stdout);
            return 0;
        default:
            return main_usage("import", "wrong option");
        }
    }
    if (optind != argc - 2) {
        return main_usage("import", "import wants a Hugging Face folder and a folder to write");
    }
    o->hf_dir = argv[optind];
    o->ckpt_dir = argv[optind + 1];
    return -1;
}

int main_import(int argc, char **argv)
{
    struct import_options options = {
        .mtp_layers = -1, .shard_bytes = SHARD_BYTES, .seed = 1, .init_std = 0.006};
    struct import_result result;
    struct err err = {0};
    int status = parse_import(&options, argc, argv);
    if (status >= 0) {
        return status;
    }
    int rc = hf_import(&options, &result, &err);
    if (rc != 0) {
        return main_complain(&err, run_exit_status(rc));
    }
    printf(
        "%s: %llu tensors, %llu bytes in %u shard%s (start a run from it with train.init_from)\n",
        options.ckpt_dir, (unsigned long long)result.tensors, (unsigned long long)result.bytes,
        result.shards, result.shards == 1 ? "" : "s");
    return 0;
}
