#include "ctl/outcome.h"

#include "ctl/encode.h"
#include "ctl/text.h"
#include "proto/pick.h"

static void append_target(struct buf *out, const struct deed *deed, const json_t *item)
{
    const json_t *name = pick(item, deed->name);
    if (json_is_string(name)) {
        text_append_clean(out, json_string_value(name));
    } else {
        encode_json(out, name, false);
    }
}

static int tell(struct ctl *ctl, const struct deed *deed, const json_t *item)
{
    int code = (int)pick_int(item, "code");
    const char *text = pick_text(item, "text");
    struct buf line = {0};
    if (code == 0 && ctl->output.format == OUTPUT_NAME) {
        buf_printf(&line, "%s/", deed->kind);
        append_target(&line, deed, item);
    } else if (code == 0) {
        buf_printf(&line, "%s %s ", deed->done, deed->kind);
        append_target(&line, deed, item);
        buf_append_str(&line, text[0] != 0 ? ": " : "");
        text_append_clean(&line, text);
    } else {
        buf_printf(&line, "cannot %s %s ", deed->verb, deed->kind);
        append_target(&line, deed, item);
        buf_append_str(&line, ": ");
        text_append_clean(&line, text[0] != 0 ? text : err_text(code));
    }
    if (code != 0) {
        ctl_note(ctl, "%s", buf_cstr(&line));
    } else if (output_for_people(&ctl->output) || ctl->output.format == OUTPUT_NAME) {
        fprintf(ctl->out, "%s\n", buf_cstr(&line));
    }
    buf_fini(&line);
    return code;
}

static int print_all(struct ctl *ctl, const struct deed *deed, const json_t *outcomes,
                     struct err *err)
{
    const struct column columns[] = {
        {deed->name, deed->name, 0, NULL, NULL},
        {"code", "code", 0, NULL, NULL},
        {"text", "text", 0, NULL, NULL},
    };
    struct buf text = {0};
    if (!output_object(&ctl->output, &text, outcomes) && ctl->output.format == OUTPUT_CSV) {
        table_csv(&text, json_object_get(outcomes, "items"), columns, 3, ctl->output.no_header);
    }
    return ctl_write(ctl, &text, err);
}

int outcome_report(struct ctl *ctl, const struct deed *deed, json_t *outcomes, struct err *err)
{
    const json_t *items = json_object_get(outcomes, "items");
    struct tally tally = {0};
    for (size_t i = 0; i < json_array_size(items); i++) {
        tally_add(&tally, tell(ctl, deed, json_array_get(items, i)));
    }
    int rc = print_all(ctl, deed, outcomes, err);
    json_decref(outcomes);
    return rc != 0 ? rc : tally_result(&tally, err);
}

void tally_add(struct tally *t, int code)
{
    t->count++;
    if (code != 0) {
        t->code = t->failed == 0 || t->code == code ? code : ERR_FAILED;
        t->failed++;
    }
}

int tally_result(const struct tally *t, struct err *err)
{
    return t->failed == 0 ? 0 : err_set(err, t->failed < t->count ? ERR_PARTLY : t->code, "%s", "");
}
