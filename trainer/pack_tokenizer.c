#include "trainer/pack_tokenizer.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/tokenizer_json.h"

#define CONFIG "tokenizer_config.json"

static int remove_file(const char *path, struct err *err)
{
    return unlink(path) == 0 || errno == ENOENT ? 0 : err_set_errno(err, "cannot remove %s", path);
}

/* The config that belongs to the tokenizer, or a new one. */
static json_t *config_of(const char *name)
{
    char *path = tokenizer_json_beside(name, CONFIG);
    json_t *config = path != NULL ? json_load_file(path, 0, NULL) : NULL;
    free(path);
    if (!json_is_object(config)) {
        json_decref(config);
        config = json_pack("{s:s,s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                           "clean_up_tokenization_spaces", 0);
    }
    return config;
}

static int write_config(const char *path, const char *name, const struct tokenizer *t, uint32_t eod,
                        struct err *err)
{
    struct buf spelled = {0};
    json_t *config = config_of(name);
    tokenizer_spell(t, eod, &spelled);
    json_object_set_new(config, "eos_token", json_string(buf_cstr(&spelled)));
    json_object_set_new(config, "vocab_size", json_integer((json_int_t)t->vocab));
    char *text = json_dumps(config, JSON_INDENT(2));
    int rc = file_write_durable(path, text, strlen(text), 0666, err);
    free(text);
    json_decref(config);
    buf_fini(&spelled);
    return rc;
}

int pack_tokenizer_keep(const char *prefix, const char *name, const struct tokenizer *t,
                        uint32_t eod, struct err *err)
{
    struct buf text = {0};
    char *file = mem_printf("%s.tokenizer.json", prefix);
    char *config = mem_printf("%s." CONFIG, prefix);
    int rc;
    if (t->is_bytes) {
        TRY_GOTO(remove_file(file, err), out);
        TRY_GOTO(remove_file(config, err), out);
    } else { /* the name may be that very file */
        TRY_GOTO(tokenizer_json_read(name, &text, err), out);
        TRY_GOTO(file_write_durable(file, text.data, text.len, 0666, err), out);
        TRY_GOTO(write_config(config, name, t, eod, err), out);
    }
out:
    buf_fini(&text);
    free(file);
    free(config);
    return rc;
}

int pack_tokenizer_check(const char *prefix, uint32_t vocab_size, struct err *err)
{
    char *path = mem_printf("%s." CONFIG, prefix);
    json_t *config = json_load_file(path, 0, NULL);
    json_int_t vocab = json_integer_value(json_object_get(config, "vocab_size"));
    json_decref(config);
    free(path);
    return vocab <= (json_int_t)vocab_size
               ? 0
               : err_set(err, ERR_CONFIG,
                         "the tokens of %s go up to %" JSON_INTEGER_FORMAT
                         ", the model's vocab_size is %u (a larger vocab_size, or text packed with "
                         "another tokenizer)",
                         prefix, vocab - 1, vocab_size);
}
