#include "trainer/tokenizer_frame.h"

#include <string.h>

void frame_fini(struct frame *f)
{
    token_ids_fini(&f->before);
    token_ids_fini(&f->after);
}

static void add_all(struct token_ids *to, const struct token_ids *from)
{
    for (size_t i = 0; i < from->count; i++) {
        token_ids_add(to, from->ids[i]);
    }
}

/* One special token of the template, which may be several ids. */
static int load_special(struct token_ids *out, const struct json_at *at,
                        const struct json_at *specials, uint32_t vocab, struct err *err)
{
    struct json_at name = json_at_key(at, "id");
    const char *text;
    size_t bytes;
    size_t count;
    TRY(json_at_text(&name, &text, &bytes, err));
    struct json_at special = json_at_key(specials, text);
    if (json_at_none(&special)) {
        return json_at_refuse(&name, err, "special_tokens has no such");
    }
    struct json_at ids = json_at_key(&special, "ids");
    TRY(json_at_array(&ids, &count, err));
    for (size_t i = 0; i < count; i++) {
        struct json_at item = json_at_item(&ids, i);
        uint32_t id;
        TRY(json_at_u32(&item, vocab - 1, &id, err));
        token_ids_add(out, id);
    }
    return 0;
}

static int load_template(struct frame *f, const struct json_at *at, uint32_t vocab, struct err *err)
{
    struct json_at single = json_at_key(at, "single");
    struct json_at specials = json_at_key(at, "special_tokens");
    size_t count;
    bool inside = false; /* past the text's place */
    TRY(json_at_only(at, "type single pair special_tokens", err));
    TRY(json_at_array(&single, &count, err));
    TRY(json_at_object(&specials, err));
    for (size_t i = 0; i < count; i++) {
        struct json_at piece = json_at_item(&single, i);
        struct json_at special = json_at_key(&piece, "SpecialToken");
        struct json_at sequence = json_at_key(&piece, "Sequence");
        struct json_at name = json_at_key(&sequence, "id");
        if (!json_at_none(&special)) {
            TRY(load_special(inside ? &f->after : &f->before, &special, &specials, vocab, err));
        } else if (!inside && json_is_string(name.value) &&
                   strcmp(json_string_value(name.value), "A") == 0) {
            inside = true;
        } else {
            return json_at_refuse(&piece, err, "a SpecialToken, or once the Sequence A, is needed");
        }
    }
    return inside ? 0 : json_at_refuse(&single, err, "the Sequence A is not in it");
}

/* What it puts goes around what `f` has already. */
static int load_any(struct frame *f, const struct json_at *at, uint32_t vocab, struct err *err)
{
    const char *type;
    TRY(json_at_type(at, &type, err));
    if (strcmp(type, "ByteLevel") == 0) {
        return json_at_only(at, "type add_prefix_space trim_offsets use_regex", err);
    } else if (strcmp(type, "TemplateProcessing") == 0) {
        struct frame outer = {0};
        int rc = load_template(&outer, at, vocab, err);
        add_all(&outer.before, &f->before);
        add_all(&f->after, &outer.after);
        struct token_ids swap = f->before;
        f->before = outer.before;
        outer.before = swap;
        frame_fini(&outer);
        return rc;
    } else if (strcmp(type, "Sequence") == 0) {
        struct json_at list = json_at_key(at, "processors");
        size_t count;
        TRY(json_at_only(at, "type processors", err));
        TRY(json_at_array(&list, &count, err));
        for (size_t i = 0; i < count; i++) {
            struct json_at item = json_at_item(&list, i);
            TRY(load_any(f, &item, vocab, err));
        }
        return 0;
    }
    struct json_at key = json_at_key(at, "type");
    return json_at_refuse(&key, err,
                          "not supported (post-processors that are: ByteLevel, "
                          "TemplateProcessing, Sequence)");
}

int frame_load(struct frame *f, const struct json_at *at, uint32_t vocab, struct err *err)
{
    *f = (struct frame){0};
    int rc = json_at_none(at) ? 0 : load_any(f, at, vocab, err);
    if (rc != 0) {
        frame_fini(f);
    }
    return rc;
}
