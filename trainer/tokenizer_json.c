/* A text goes through the parts in the order of the reference: the added tokens that are looked for
 * in plain text cut it; what lies between is normalised, and cut by those that are looked for in
 * normal form; what then lies between is cut into pieces, and each piece becomes tokens. */
#include "trainer/tokenizer_json.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/tokenizer_added.h"
#include "trainer/tokenizer_at.h"
#include "trainer/tokenizer_bpe.h"
#include "trainer/tokenizer_decode.h"
#include "trainer/tokenizer_frame.h"
#include "trainer/tokenizer_norm.h"
#include "trainer/tokenizer_split.h"
#include "trainer/tokenizer_unicode.h"

#define MAIN_FILE      "tokenizer.json"
#define FILE_BYTES_MAX (256u << 20)

struct tokenizer_json {
    struct tokenizer head;
    struct normaliser *normaliser;
    struct splitter *splitter;
    struct bpe *bpe;
    struct added *added;
    struct token_decoder *decoder; /* NULL: none */
    struct frame frame;
};

struct encoder {
    struct tokenizer_encoder head;
    const struct tokenizer_json *tokenizer;
    struct regex_scratch *regex;
    struct splitter_scratch *splitter;
    struct bpe_scratch *bpe;
    struct buf replaced, normal;
    struct token_ids *out; /* borrowed, during a call */
};

/* ---- encoding */

static struct tokenizer_encoder *encoder_create(const struct tokenizer *t)
{
    struct encoder *e = mem_alloc(sizeof *e);
    e->head.tokenizer = t;
    e->tokenizer = (const struct tokenizer_json *)t;
    e->regex = regex_scratch_create();
    e->splitter = splitter_scratch_create();
    e->bpe = bpe_scratch_create();
    return &e->head;
}

static void encoder_destroy(struct tokenizer_encoder *head)
{
    struct encoder *e = (struct encoder *)head;
    regex_scratch_destroy(e->regex);
    splitter_scratch_destroy(e->splitter);
    bpe_scratch_destroy(e->bpe);
    buf_fini(&e->replaced);
    buf_fini(&e->normal);
    free(e);
}

static int encode_piece(void *ctx, const uint8_t *piece, size_t bytes, struct err *err)
{
    struct encoder *e = ctx;
    (void)err;
    bpe_encode(e->tokenizer->bpe, e->bpe, piece, bytes, e->out);
    return 0;
}

/* Between added tokens, in normal form. */
static int encode_normal(struct encoder *e, const uint8_t *text, size_t bytes, struct err *err)
{
    return splitter_run(e->tokenizer->splitter, e->splitter, text, bytes, encode_piece, e, err);
}

/* Between the added tokens that are looked for in plain text. */
static int encode_plain(struct encoder *e, const uint8_t *text, size_t bytes, struct err *err)
{
    const struct tokenizer_json *t = e->tokenizer;
    if (bytes == 0) {
        return 0;
    }
    struct added_walk walk = {.text = text, .bytes = bytes};
    if (!normaliser_is_none(t->normaliser)) {
        buf_reset(&e->normal);
        TRY(normaliser_run(t->normaliser, e->regex, text, bytes, &e->normal, err));
        walk.text = e->normal.data;
        walk.bytes = e->normal.len;
    }
    while (added_next(t->added, ADDED_NORMALISED, e->regex, &walk)) {
        TRY(encode_normal(e, walk.text + walk.before, walk.start - walk.before, err));
        token_ids_add(e->out, walk.id);
    }
    return encode_normal(e, walk.text + walk.before, walk.bytes - walk.before, err);
}

static void add_all(struct token_ids *to, const struct token_ids *from)
{
    for (size_t i = 0; i < from->count; i++) {
        token_ids_add(to, from->ids[i]);
    }
}

static int encode(struct tokenizer_encoder *head, const void *text, size_t bytes, bool frame,
                  struct token_ids *out, struct err *err)
{
    struct encoder *e = (struct encoder *)head;
    const struct tokenizer_json *t = e->tokenizer;
    struct added_walk walk = {.text = text, .bytes = bytes};
    bool ascii;
    e->out = out;
    if (unicode_valid_bytes(text, bytes, &ascii) < bytes) {
        buf_reset(&e->replaced);
        unicode_append_replaced(text, bytes, &e->replaced);
        walk.text = e->replaced.data;
        walk.bytes = e->replaced.len;
    }
    if (frame) {
        add_all(out, &t->frame.before);
    }
    while (added_next(t->added, ADDED_PLAIN, e->regex, &walk)) {
        TRY(encode_plain(e, walk.text + walk.before, walk.start - walk.before, err));
        token_ids_add(out, walk.id);
    }
    TRY(encode_plain(e, walk.text + walk.before, walk.bytes - walk.before, err));
    if (frame) {
        add_all(out, &t->frame.after);
    }
    return 0;
}

/* ---- decoding */

static void decode(const struct tokenizer *head, const uint32_t *ids, size_t count,
                   bool skip_special, struct buf *text)
{
    const struct tokenizer_json *t = (const struct tokenizer_json *)head;
    struct texts tokens = {0};
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        bool skipped = false;
        const void *token = added_text(t->added, ids[i], &bytes, &skipped);
        if (token == NULL) {
            token = vocab_text(bpe_vocab(t->bpe), ids[i], &bytes);
        }
        if (token != NULL && !(skipped && skip_special)) {
            texts_add(&tokens, token, bytes);
        }
    }
    token_decoder_run(t->decoder, &tokens, text);
    texts_fini(&tokens);
}

static void spell(const struct tokenizer *head, uint32_t id, struct buf *out)
{
    const struct tokenizer_json *t = (const struct tokenizer_json *)head;
    size_t bytes = 0;
    const uint8_t *text = added_spelling(t->added, id, &bytes);
    if (text == NULL) {
        text = vocab_text(bpe_vocab(t->bpe), id, &bytes);
    }
    if (text != NULL) {
        buf_append(out, text, bytes);
    }
}

static bool find(const struct tokenizer *head, const char *token, uint32_t *id)
{
    const struct tokenizer_json *t = (const struct tokenizer_json *)head;
    return added_find(t->added, token, id) ||
           vocab_find(bpe_vocab(t->bpe), token, strlen(token), id);
}

static void destroy(struct tokenizer *head)
{
    struct tokenizer_json *t = (struct tokenizer_json *)head;
    normaliser_destroy(t->normaliser);
    splitter_destroy(t->splitter);
    bpe_destroy(t->bpe);
    added_destroy(t->added);
    token_decoder_destroy(t->decoder);
    frame_fini(&t->frame);
    free(t);
}

/* ---- loading */

/* What a file may say that concerns several texts, or only a part of one. */
static int check_whole_texts(const struct json_at *root, struct err *err)
{
    struct json_at version = json_at_key(root, "version");
    struct json_at truncation = json_at_key(root, "truncation");
    struct json_at padding = json_at_key(root, "padding");
    struct json_at strategy = json_at_key(&padding, "strategy");
    const char *batch = json_string_value(strategy.value);
    const char *text = json_string_value(version.value);
    if (!json_at_none(&version) && (text == NULL || strcmp(text, "1.0") != 0)) {
        return json_at_refuse(&version, err, "not supported (\"1.0\" is)");
    }
    if (!json_at_none(&truncation)) {
        return json_at_refuse(&truncation, err, "texts are not cut here (make it null)");
    }
    if (!json_at_none(&padding) && (batch == NULL || strcmp(batch, "BatchLongest") != 0)) {
        return json_at_refuse(&padding, err, "texts are not padded here (make it null)");
    }
    return json_at_only(root,
                        "version truncation padding added_tokens normalizer pre_tokenizer "
                        "post_processor decoder model",
                        err);
}

static int load(struct tokenizer_json *t, const struct json_at *root, struct err *err)
{
    struct json_at normaliser = json_at_key(root, "normalizer");
    struct json_at splitter = json_at_key(root, "pre_tokenizer");
    struct json_at model = json_at_key(root, "model");
    struct json_at added = json_at_key(root, "added_tokens");
    struct json_at decoder = json_at_key(root, "decoder");
    struct json_at frame = json_at_key(root, "post_processor");
    TRY(regex_check_library(err));
    TRY(check_whole_texts(root, err));
    TRY(normaliser_load(&t->normaliser, &normaliser, err));
    TRY(splitter_load(&t->splitter, &splitter, err));
    TRY(bpe_load(&t->bpe, &model, splitter_is_byte_level(t->splitter), err));
    TRY(added_load(&t->added, &added, bpe_vocab(t->bpe), t->normaliser, err));
    uint32_t of_model = bpe_vocab(t->bpe)->ids;
    uint32_t of_added = added_ids(t->added);
    t->head.vocab = of_model > of_added ? of_model : of_added;
    if (t->head.vocab == 0) {
        return json_at_refuse(root, err, "there are no tokens");
    }
    TRY(token_decoder_load(&t->decoder, &decoder, err));
    return frame_load(&t->frame, &frame, t->head.vocab, err);
}

int tokenizer_json_parse(struct tokenizer **out, const char *text, size_t bytes, const char *name,
                         struct err *err)
{
    static const struct tokenizer_kind kind = {.destroy = destroy,
                                               .encoder_create = encoder_create,
                                               .encoder_destroy = encoder_destroy,
                                               .encode = encode,
                                               .decode = decode,
                                               .spell = spell,
                                               .find = find};
    json_error_t why;
    *out = NULL;
    json_t *value = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!json_is_object(value)) {
        json_decref(value);
        return err_set(err, ERR_DATA, "%s: no tokenizer.json: line %d: %s", name,
                       value == NULL ? why.line : 1, value == NULL ? why.text : "no object");
    }
    struct tokenizer_json *t = mem_alloc(sizeof *t);
    struct json_at root = json_at_file(name, value);
    t->head.kind = &kind;
    t->head.eod = -1;
    int rc = load(t, &root, err);
    json_decref(value);
    if (rc != 0) {
        destroy(&t->head);
        return rc;
    }
    *out = &t->head;
    return 0;
}

/* The eos_token of a tokenizer_config.json: text, or an object with it as `content`. Without the
 * file or the key the tokenizer has none. */
static int read_eod(struct tokenizer *t, const char *path, struct err *err)
{
    json_error_t why;
    if (access(path, F_OK) != 0) {
        return 0;
    }
    json_t *value = json_load_file(path, 0, &why);
    if (value == NULL) {
        return err_set(err, ERR_DATA, "%s: line %d: %s", path, why.line, why.text);
    }
    struct json_at root = json_at_file(path, value);
    struct json_at eos = json_at_key(&root, "eos_token");
    struct json_at content = json_at_key(&eos, "content");
    if (json_is_object(eos.value)) {
        eos = content;
    }
    const char *token = json_string_value(eos.value);
    uint32_t id;
    int rc = 0;
    if (token != NULL && find(t, token, &id)) {
        t->eod = id;
    } else if (token != NULL) {
        rc = json_at_refuse(&eos, err, "the tokenizer.json beside it has no such token");
    }
    json_decref(value);
    return rc;
}

int tokenizer_json_read(const char *path, struct buf *text, struct err *err)
{
    struct stat st;
    bool is_folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    char *file = is_folder ? mem_printf("%s/" MAIN_FILE, path) : mem_strdup(path);
    int rc = access(file, F_OK) == 0
                 ? file_read(file, FILE_BYTES_MAX, text, err)
                 : err_set_errno(err,
                                 "cannot open the tokenizer %s (a tokenizer is `bytes`, a "
                                 "tokenizer.json, or a folder with one)",
                                 file);
    free(file);
    return rc;
}

/* The files beside one of another name may belong to another. */
char *tokenizer_json_beside(const char *path, const char *name)
{
    struct stat st;
    const char *slash = strrchr(path, '/');
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        return mem_printf("%s/%s", path, name);
    }
    if (strcmp(slash != NULL ? slash + 1 : path, MAIN_FILE) != 0) {
        return NULL;
    }
    return slash != NULL ? mem_printf("%.*s/%s", (int)(slash - path), path, name)
                         : mem_strdup(name);
}

int tokenizer_json_open(struct tokenizer **t, const char *path, struct err *err)
{
    struct buf text = {0};
    char *config = tokenizer_json_beside(path, "tokenizer_config.json");
    *t = NULL;
    int rc = tokenizer_json_read(path, &text, err);
    rc = rc == 0 ? tokenizer_json_parse(t, buf_cstr(&text), text.len, path, err) : rc;
    if (rc == 0 && config != NULL) {
        rc = read_eod(*t, config, err);
    }
    if (rc != 0) {
        tokenizer_close(*t);
        *t = NULL;
    }
    buf_fini(&text);
    free(config);
    return rc;
}
