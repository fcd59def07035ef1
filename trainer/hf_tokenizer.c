#include "trainer/hf_tokenizer.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/buf_json.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/tokenizer_bytes.h"

#define MAIN_FILE      "tokenizer.json"
#define CONFIG_FILE    "tokenizer_config.json"
#define PACKED         ".tokenizer.json" /* dstrain pack leaves it beside the text */
#define FILE_BYTES_MAX (256u << 20)
#define END_OF_TEXT    "<|endoftext|>"
/* A larger vocabulary is there for something. */
#define BYTES_VOCAB_MAX 512

/* ---- which one */

/* The files beside a tokenizer.json belong to it, and PREFIX.tokenizer_config.json to
 * PREFIX.tokenizer.json; those beside a file of another name may not. */
static void take_file(struct hf_tokenizer *t, const char *file)
{
    const char *slash = strrchr(file, '/');
    size_t len = strlen(file);
    t->kind = HF_TOKENIZER_FILES;
    t->file = mem_strdup(file);
    if (slash != NULL && strcmp(slash + 1, MAIN_FILE) == 0) {
        t->folder = mem_printf("%.*s", (int)(slash - file), file);
        t->config = mem_printf("%s/" CONFIG_FILE, t->folder);
    } else if (len > strlen(PACKED) && strcmp(file + len - strlen(PACKED), PACKED) == 0) {
        t->config = mem_printf("%.*s." CONFIG_FILE, (int)(len - strlen(PACKED)), file);
    }
}

static int take_path(struct hf_tokenizer *t, const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return err_set_errno(err, "cannot open the tokenizer %s", path);
    }
    if (!S_ISDIR(st.st_mode)) {
        take_file(t, path);
        return 0;
    }
    char *file = mem_printf("%s/" MAIN_FILE, path);
    bool there = access(file, F_OK) == 0;
    if (there) {
        take_file(t, file);
    }
    free(file);
    return there ? 0 : err_set(err, ERR_NOT_FOUND, "%s has no " MAIN_FILE, path);
}

int hf_tokenizer_choose(struct hf_tokenizer *t, const char *choice, const char *const *files,
                        size_t count, bool began_here, const struct model_config *config,
                        struct err *err)
{
    bool fits = config->vocab_size >= TOKENIZER_BYTES_VOCAB;
    *t = (struct hf_tokenizer){0};
    if (choice != NULL && strcmp(choice, "none") == 0) {
        return 0;
    }
    if (choice != NULL && strcmp(choice, "bytes") == 0) {
        t->kind = HF_TOKENIZER_BYTES;
        return fits ? 0
                    : err_set(err, ERR_CONFIG,
                              "the byte-level tokenizer has %d ids, the model's vocabulary %u",
                              TOKENIZER_BYTES_VOCAB, config->vocab_size);
    }
    if (choice != NULL) {
        return take_path(t, choice, err);
    }
    for (size_t i = 0; i < count; i++) {
        if (files[i] != NULL && access(files[i], F_OK) == 0) {
            take_file(t, files[i]);
            return 0;
        }
    }
    if (began_here && fits && config->vocab_size <= BYTES_VOCAB_MAX) {
        t->kind = HF_TOKENIZER_BYTES;
    }
    return 0;
}

void hf_tokenizer_fini(struct hf_tokenizer *t)
{
    free(t->file);
    free(t->config);
    free(t->folder);
    *t = (struct hf_tokenizer){0};
}

int hf_tokenizer_of(struct hf_tokenizer *t, const char *choice, const char *ckpt_dir,
                    const struct ckpt_facts *facts, const struct model_config *config,
                    struct err *err)
{
    json_t *run = facts->run != NULL ? json_loads(facts->run, 0, NULL) : NULL;
    const json_t *train = json_object_get(run, "train");
    /* one corpus, or a list: the sources share a tokenizer */
    const json_t *corpus = json_object_get(json_object_get(train, "data"), "train");
    corpus = json_is_array(corpus) ? json_object_get(json_array_get(corpus, 0), "prefix") : corpus;
    const char *text = json_string_value(corpus);
    const char *begun = json_string_value(json_object_get(train, "init_from"));
    char *files[] = {mem_printf("%s/" MAIN_FILE, ckpt_dir),
                     text != NULL ? mem_printf("%s" PACKED, text) : NULL,
                     begun != NULL ? mem_printf("%s/" MAIN_FILE, begun) : NULL};
    size_t count = sizeof files / sizeof files[0];
    int rc = hf_tokenizer_choose(t, choice, (const char *const *)files, count,
                                 facts->origin == NULL, config, err);
    for (size_t i = 0; i < count; i++) {
        free(files[i]);
    }
    json_decref(run);
    return rc;
}

/* Beside PREFIX.tokenizer.json: dstrain pack's. */
static int read_eod(const struct hf_tokenizer *t, struct tokenizer *tokenizer, struct err *err)
{
    json_error_t where;
    uint32_t id;
    if (access(t->config, F_OK) != 0) {
        return 0;
    }
    json_t *root = json_load_file(t->config, 0, &where);
    json_t *eos = json_object_get(root, "eos_token");
    const char *token =
        json_string_value(json_is_object(eos) ? json_object_get(eos, "content") : eos);
    int rc = 0;
    if (root == NULL) {
        rc = err_set(err, ERR_CONFIG, "%s:%d: %s", t->config, where.line, where.text);
    } else if (token != NULL && tokenizer_find(tokenizer, token, &id)) {
        tokenizer->eod = id;
    }
    json_decref(root);
    return rc;
}

int hf_tokenizer_open(const struct hf_tokenizer *t, struct tokenizer **out, struct err *err)
{
    if (t->kind == HF_TOKENIZER_BYTES) {
        *out = tokenizer_bytes_create();
        return 0;
    }
    TRY(tokenizer_open(out, t->file, err));
    int rc = t->config != NULL && t->folder == NULL ? read_eod(t, *out, err) : 0;
    if (rc != 0) {
        tokenizer_close(*out);
        *out = NULL;
    }
    return rc;
}

/* ---- bytes */

/* The character that stands for a byte in byte-level BPE files (GPT-2's table): itself when it is
 * printable Latin-1, else one from U+0100 on. */
static unsigned character_of(unsigned byte)
{
    bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    if (printable) {
        return byte;
    }
    return byte <= 32 ? 256 + byte : byte <= 160 ? 256 + 33 + (byte - 127) : 256 + 67;
}

static void put_vocabulary(struct buf *out)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        unsigned c = character_of(byte);
        char text[3] = {(char)c, 0, 0};
        if (c >= 0x80) {
            text[0] = (char)(0xC0 | c >> 6);
            text[1] = (char)(0x80 | (c & 0x3F));
        }
        buf_append_str(out, byte > 0 ? ", " : "");
        buf_json_text(out, text);
        buf_printf(out, ": %u", byte);
    }
}

void hf_tokenizer_bytes_json(struct buf *out)
{
    buf_printf(out,
               "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
               "  \"added_tokens\": [{\"id\": %d, \"content\": \"" END_OF_TEXT
               "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": "
               "false, \"special\": true}],\n"
               "  \"normalizer\": null,\n"
               "  \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
               "\"trim_offsets\": true, \"use_regex\": false},\n"
               "  \"post_processor\": null,\n"
               "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
               "\"trim_offsets\": true, \"use_regex\": false},\n"
               "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
               "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": "
               "false, \"byte_fallback\": false, \"ignore_merges\": false,\n    \"vocab\": {",
               TOKENIZER_BYTES_EOD);
    put_vocabulary(out);
    buf_append_str(out, "},\n    \"merges\": []}\n}\n");
}

static void put_config(struct buf *out, bool bytes, const struct model_config *config)
{
    buf_append_str(out, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                        "  \"clean_up_tokenization_spaces\": false,\n");
    if (bytes) {
        buf_append_str(out, "  \"eos_token\": \"" END_OF_TEXT "\",\n");
    }
    buf_printf(out, "  \"model_max_length\": %u\n}\n", config->max_position_embeddings);
}

/* ---- files */

static int write_text(const char *folder, const char *name, const struct buf *text, struct err *err)
{
    char *path = mem_printf("%s/%s", folder, name);
    int rc = file_write_durable(path, text->data, text->len, 0666, err);
    free(path);
    return rc;
}

static int64_t largest_id(const json_t *root)
{
    int64_t largest = -1;
    const char *key;
    json_t *value;
    size_t i;
    json_object_foreach(json_object_get(json_object_get(root, "model"), "vocab"), key, value)
    {
        largest = json_integer_value(value) > largest ? json_integer_value(value) : largest;
    }
    json_array_foreach(json_object_get(root, "added_tokens"), i, value)
    {
        int64_t id = json_integer_value(json_object_get(value, "id"));
        largest = id > largest ? id : largest;
    }
    return largest;
}

static int check_ids(const char *path, const struct buf *text, const struct model_config *config,
                     struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb((const char *)text->data, text->len, JSON_ALLOW_NUL, &where);
    int64_t largest = root != NULL ? largest_id(root) : -1;
    json_decref(root);
    if (root == NULL) {
        return err_set(err, ERR_CONFIG, "%s:%d: no tokenizer: %s", path, where.line, where.text);
    }
    return largest < (int64_t)config->vocab_size
               ? 0
               : err_set(err, ERR_CONFIG,
                         "%s has the id %" PRId64 ", the model's vocabulary ends at %u (it is "
                         "another model's)",
                         path, largest, config->vocab_size - 1);
}

/* A file that may be absent: *there. */
static int copy_file(const char *path, const char *folder, const char *name, bool *there,
                     struct err *err)
{
    struct buf text = {0};
    struct err why = {0};
    *there = false;
    int rc = file_read(path, FILE_BYTES_MAX, &text, &why);
    if (rc == 0) {
        *there = true;
        rc = write_text(folder, name, &text, err);
    } else {
        rc = rc == ERR_NOT_FOUND ? 0 : err_set(err, rc, "%s", why.text);
    }
    buf_fini(&text);
    return rc;
}

static int copy_beside(const struct hf_tokenizer *t, const char *folder, const char *name,
                       struct err *err)
{
    bool there;
    if (t->folder == NULL) {
        return 0;
    }
    char *path = mem_printf("%s/%s", t->folder, name);
    int rc = copy_file(path, folder, name, &there, err);
    free(path);
    return rc;
}

static int write_config(const char *folder, bool bytes, const struct model_config *config,
                        struct err *err)
{
    struct buf text = {0};
    put_config(&text, bytes, config);
    int rc = write_text(folder, CONFIG_FILE, &text, err);
    buf_fini(&text);
    return rc;
}

static int copy_files(const struct hf_tokenizer *t, const char *folder,
                      const struct model_config *config, struct err *err)
{
    struct buf text = {0};
    bool there = false;
    int rc = file_read(t->file, FILE_BYTES_MAX, &text, err);
    rc = rc == 0 ? check_ids(t->file, &text, config, err) : rc;
    rc = rc == 0 ? write_text(folder, MAIN_FILE, &text, err) : rc;
    buf_fini(&text);
    TRY(rc);
    TRY(copy_beside(t, folder, "special_tokens_map.json", err));
    TRY(copy_beside(t, folder, "chat_template.jinja", err));
    if (t->config != NULL) {
        TRY(copy_file(t->config, folder, CONFIG_FILE, &there, err));
    }
    return there ? 0 : write_config(folder, false, config, err);
}

int hf_tokenizer_write(const struct hf_tokenizer *t, const char *folder,
                       const struct model_config *config, struct err *err)
{
    if (t->kind == HF_TOKENIZER_FILES) {
        return copy_files(t, folder, config, err);
    }
    if (t->kind == HF_TOKENIZER_NONE) {
        return 0;
    }
    struct buf text = {0};
    hf_tokenizer_bytes_json(&text);
    int rc = write_text(folder, MAIN_FILE, &text, err);
    buf_fini(&text);
    return rc == 0 ? write_config(folder, true, config, err) : rc;
}
