#include "ctl/output.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "ctl/encode.h"
#include "ctl/page.h"
#include "proto/pbjson.h"
#include "proto/pick.h"
#include "proto/rpc.h"

static const char *const format_names[] = {"table", "wide", "json", "yaml", "csv", "name"};

int output_init(struct output *o, const struct args *args, FILE *out, struct err *err)
{
    *o = (struct output){.sort = args_get(args, "sort"), .no_header = args_has(args, "no-header")};
    const struct option *option = args_option(args->command, "output", strlen("output"));
    bool is_format = args_option(NULL, "output", strlen("output")) == option;
    const char *format = is_format ? args_get(args, "output") : NULL; /* else it is a folder */
    for (size_t i = 0; format != NULL && i < sizeof format_names / sizeof format_names[0]; i++) {
        o->format = strcasecmp(format_names[i], format) == 0 ? (enum output_format)i : o->format;
    }
    o->limited = args_has(args, "limit");
    TRY(args_u64(args, "limit", &o->limit, err));
    const char *colour = args_get(args, "color");
    enum colour_mode mode = colour == NULL || strcasecmp(colour, "auto") == 0 ? COLOUR_AUTO
                            : strcasecmp(colour, "always") == 0               ? COLOUR_ALWAYS
                                                                              : COLOUR_NEVER;
    terminal_init(&o->terminal, out, mode);
    return 0;
}

json_t *output_json(void *message, const char *schema)
{
    json_t *object = pbjson_from(message, schema);
    rpc_free(message);
    return object;
}

/* Whether the path (progress.step) begins with the field. */
static bool is_in(const char *path, const char *field)
{
    size_t len = strlen(field);
    return strncmp(path, field, len) == 0 && (path[len] == 0 || path[len] == '.');
}

struct reader {
    const struct listing *listing;
    bool all; /* its columns, not only those of a plain table */
};

static bool reads_field(const void *context, const char *field)
{
    const struct reader *reader = context;
    const struct listing *listing = reader->listing;
    bool reads = listing->name != NULL && is_in(listing->name, field);
    for (size_t i = 0; i < listing->column_count && !reads; i++) {
        const struct column *column = &listing->columns[i];
        bool shown = reader->all || (column->flags & (COLUMN_WIDE | COLUMN_CSV)) == 0;
        reads = shown && is_in(column->key, field);
    }
    for (const char *const *also = listing->also; also != NULL && *also != NULL && !reads; also++) {
        reads = strcmp(*also, field) == 0;
    }
    return reads;
}

json_t *output_rows(const struct output *o, void *message, const char *schema,
                    const struct listing *listing)
{
    if (o->format == OUTPUT_JSON || o->format == OUTPUT_YAML) {
        return output_json(message, schema);
    }
    const struct reader reader = {listing, o->format != OUTPUT_TABLE || o->sort != NULL};
    json_t *object = pbjson_rows(message, reads_field, &reader);
    rpc_free(message);
    return object;
}

bool output_for_people(const struct output *o)
{
    return o->format == OUTPUT_TABLE || o->format == OUTPUT_WIDE;
}

bool output_object(const struct output *o, struct buf *out, const json_t *object)
{
    if (o->format == OUTPUT_JSON) {
        encode_json(out, object, true);
    } else if (o->format == OUTPUT_YAML) {
        encode_yaml(out, object);
    } else {
        return false;
    }
    return true;
}

static void append_names(struct buf *out, const json_t *items, const struct listing *listing)
{
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *name = pick(json_array_get(items, i), listing->name);
        buf_printf(out, "%s/", listing->kind);
        if (json_is_string(name)) {
            buf_append_str(out, json_string_value(name));
        } else {
            encode_json(out, name, false);
        }
        buf_append_str(out, "\n");
    }
}

static int append_rows(const struct output *o, struct buf *out, const json_t *items,
                       const struct listing *listing, struct err *err)
{
    const struct table_view view = {&o->terminal, o->format == OUTPUT_WIDE, o->no_header};
    if (o->format == OUTPUT_CSV) {
        table_csv(out, items, listing->columns, listing->column_count, o->no_header);
    } else if (o->format != OUTPUT_NAME) {
        table_text(out, items, listing->columns, listing->column_count, &view);
    } else if (listing->kind == NULL) {
        return err_set(err, ERR_USAGE, "-o name: these have no names (use json, csv or table)");
    } else {
        append_names(out, items, listing);
    }
    return 0;
}

int output_arrange(const struct output *o, json_t *items, const struct listing *listing,
                   struct err *err)
{
    assert(json_is_array(items));
    if (o->sort != NULL) {
        TRY(table_sort(items, listing->columns, listing->column_count, o->sort, err));
    }
    while (o->limit > 0 && json_array_size(items) > o->limit) {
        json_array_remove(items, json_array_size(items) - 1);
    }
    return 0;
}

int output_list(const struct output *o, struct buf *out, json_t *object,
                const struct listing *listing, struct err *err)
{
    json_t *items = json_object_get(object, "items");
    int rc = output_arrange(o, items, listing, err);
    if (rc == 0 && !output_object(o, out, object)) {
        rc = append_rows(o, out, items, listing, err);
        if (o->terminal.is_tty && output_for_people(o) && !o->no_header) { /* scripts get rows */
            page_time(out, "last pass", object, "scheduled_at");
        }
    }
    json_decref(object);
    return rc;
}

int output_one(const struct output *o, struct buf *out, json_t *object,
               const struct listing *listing,
               void (*page)(const struct output *o, struct buf *out, const json_t *object),
               struct err *err)
{
    int rc = 0;
    if (output_object(o, out, object)) {
        /* done */
    } else if (output_for_people(o)) {
        page(o, out, object);
    } else if (listing == NULL) {
        rc = err_set(err, ERR_USAGE, "-o csv and -o name: not for this command (use json or yaml)");
    } else {
        json_t *items = json_pack("[O]", object);
        rc = append_rows(o, out, items, listing, err);
        json_decref(items);
    }
    json_decref(object);
    return rc;
}
