/* dstrain pack: command line. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "trainer/main.h"
#include "trainer/pack.h"
#include "trainer/run.h"
#include "trainer/tokenizer.h"

static const char help[] =
    "dstrain pack FILE... -o PREFIX [options]: text into PREFIX.bin and PREFIX.idx, the\n"
    "corpus that train.data names (Megatron-LM's indexed format). Gzipped files are\n"
    "unpacked on the way. A tokenizer.json stays beside it: PREFIX.tokenizer.json\n"
    "\n"
    "  -o PREFIX            where to write\n"
    "  --tokenizer T        bytes: a byte is a token (ids 0-255), and 256 ends a document;\n"
    "                       the default. Or a Hugging Face tokenizer.json (byte-pair\n"
    "                       encoding), or the folder it lies in. The model needs a\n"
    "                       vocab_size of at least the vocabulary that is printed\n"
    "  --eod TOKEN          the token that ends a document, as id or text; default: the\n"
    "                       eos_token of the tokenizer_config.json beside the tokenizer\n"
    "  --add-special        also put around each document what the tokenizer's\n"
    "                       post-processor puts around a text (a begin-of-text token)\n"
    "  --threads N          default: all cores; the output is the same\n"
    "  --split-valid SHARE  keeps this share of the text (0.05) apart, spread evenly over\n"
    "                       it, as the validation corpus PREFIX-valid\n"
    "  --document-bytes N   a file is one document; a longer one is cut at the first blank\n"
    "                       line after N bytes; default 16384, 0 never\n";

/* What the command line of pack says beside the options of pack_run. */
struct pack_names {
    const char *tokenizer, *eod;
};

/* -1: go on, else the exit status. */
static int parse_pack(struct pack_options *pack, struct pack_names *names, int argc, char **argv)
{
    static const struct option options[] = {{"output", required_argument, NULL, 'o'},
                                            {"tokenizer", required_argument, NULL, 't'},
                                            {"eod", required_argument, NULL, 'e'},
                                            {"add-special", no_argument, NULL, 's'},
                                            {"threads", required_argument, NULL, 'T'},
                                            {"split-valid", required_argument, NULL, 'v'},
                                            {"document-bytes", required_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    uint64_t threads;
    char *end;
    int c;
    *pack = (struct pack_options){.document_bytes = PACK_DOCUMENT_BYTES};
    *names = (struct pack_names){.tokenizer = "bytes"};
    while ((c = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        switch (c) {
        case 'o':
            pack->prefix = optarg;
            break;
        case 't':
            names->tokenizer = optarg;
            break;
        case 'e':
            names->eod = optarg;
            break;
        case 's':
            pack->frame = true;
            break;
        case 'T':
            if (!main_parse_u64(optarg, PACK_THREADS_MAX, &threads) || threads == 0) {
                return main_usage("pack", "--threads wants a number from 1 to 1024");
            }
            pack->threads = (unsigned)threads;
            break;
        case 'v':
            pack->valid_share = strtod(optarg, &end);
            if (end == optarg || *end != 0 || !(pack->valid_share > 0 && pack->valid_share < 1)) {
                return main_usage("pack", "--split-valid wants a share between 0 and 1");
            }
            break;
        case 'd':
            if (!main_parse_u64(optarg, (uint64_t)1 << 28, &pack->document_bytes)) {
                return main_usage("pack", "--document-bytes wants a number of bytes up to 2^28");
            }
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return main_usage("pack", "wrong option");
        }
    }
    if (pack->prefix == NULL || optind == argc) {
        return main_usage("pack", "pack wants input files and -o PREFIX");
    }
    pack->inputs = (const char *const *)argv + optind;
    pack->input_count = (size_t)(argc - optind);
    return -1;
}

/* name: an id, or a token's text; NULL: what the tokenizer says itself. */
static int find_eod(const struct tokenizer *t, const char *name, uint32_t *eod, struct err *err)
{
    uint64_t id;
    if (name == NULL) {
        *eod = (uint32_t)t->eod;
        return t->eod >= 0 ? 0
                           : err_set(err, ERR_USAGE,
                                     "which token ends a document? There is no eos_token in a "
                                     "tokenizer_config.json beside the tokenizer (give --eod "
                                     "TOKEN, such as '<|endoftext|>')");
    }
    if (main_parse_u64(name, t->vocab - 1, &id)) {
        *eod = (uint32_t)id;
        return 0;
    }
    return tokenizer_find(t, name, eod)
               ? 0
               : err_set(err, ERR_USAGE,
                         "--eod: the tokenizer has no token \"%s\" (nor is it an id below %u)",
                         name, t->vocab);
}

static int pack_and_print(struct pack_options *pack, const struct pack_names *names,
                          struct err *err)
{
    struct tokenizer *t = NULL;
    struct pack_counts train;
    struct pack_counts valid;
    int rc;
    TRY_GOTO(tokenizer_open(&t, names->tokenizer, err), out);
    TRY_GOTO(find_eod(t, names->eod, &pack->eod, err), out);
    pack->tokenizer = t;
    pack->tokenizer_name = names->tokenizer;
    TRY_GOTO(pack_run(pack, &train, &valid, err), out);
    printf("%s: %llu tokens in %llu documents, vocabulary %u\n", pack->prefix,
           (unsigned long long)train.tokens, (unsigned long long)train.documents, t->vocab);
    if (pack->valid_share > 0) {
        printf("%s-valid: %llu tokens in %llu documents\n", pack->prefix,
               (unsigned long long)valid.tokens, (unsigned long long)valid.documents);
    }
out:
    tokenizer_close(t);
    return rc;
}

int main_pack(int argc, char **argv)
{
    struct pack_options pack;
    struct pack_names names;
    struct err err = {0};
    int status = parse_pack(&pack, &names, argc, argv);
    if (status >= 0) {
        return status;
    }
    int rc = pack_and_print(&pack, &names, &err);
    return rc == 0 ? 0 : main_complain(&err, run_exit_status(rc));
}
