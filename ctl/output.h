/* The six formats of -o. Everything shown starts as one json_t, so that the formats cannot
 * disagree. */
#ifndef CTL_OUTPUT_H
#define CTL_OUTPUT_H

#include <stdint.h>

#include "ctl/args.h"
#include "ctl/table.h"
#include "ctl/terminal.h"

enum output_format { OUTPUT_TABLE, OUTPUT_WIDE, OUTPUT_JSON, OUTPUT_YAML, OUTPUT_CSV, OUTPUT_NAME };

struct output {
    enum output_format format;
    bool no_header;
    const char *sort; /* or NULL; borrowed */
    bool limited;     /* --limit was given */
    uint64_t limit;   /* 0: no limit */
    struct terminal terminal;
};

/* A kind of object: its columns, and what -o name prints. */
struct listing {
    const char *kind; /* "job" -> job/12; NULL: its objects have no names */
    const char *name; /* key of the name: "id" */
    const struct column *columns;
    size_t column_count;
    /* Top-level fields that cells read beside their own, up to a NULL; only for output_rows. */
    const char *const *also;
};
#define LISTING_ALSO(kind, name, columns, also)                                                    \
    {                                                                                              \
        kind, name, columns, sizeof(columns) / sizeof(columns)[0], also                            \
    }
#define LISTING(kind, name, columns) LISTING_ALSO(kind, name, columns, NULL)

int output_init(struct output *o, const struct args *args, FILE *out, struct err *err);

/* message -> object with "schema". The message is freed. */
json_t *output_json(void *message, const char *schema);
/* The same of a list of rows. For a table only the fields that its columns show are made of each:
 * by the ten thousand that counts. */
json_t *output_rows(const struct output *o, void *message, const char *schema,
                    const struct listing *listing);

/* -o table and wide: lines are printed as things happen, and not one document at the end. */
bool output_for_people(const struct output *o);
/* For -o json and yaml: appends the object and returns true. */
bool output_object(const struct output *o, struct buf *out, const json_t *object);
/* Applies --sort and --limit. */
int output_arrange(const struct output *o, json_t *items, const struct listing *listing,
                   struct err *err);
/* object: has "items", which --sort and --limit are applied to. Steals the reference. */
int output_list(const struct output *o, struct buf *out, json_t *object,
                const struct listing *listing, struct err *err);
/* page: for table and wide. Steals the reference. listing NULL: there is no CSV and no name. */
int output_one(const struct output *o, struct buf *out, json_t *object,
               const struct listing *listing,
               void (*page)(const struct output *o, struct buf *out, const json_t *object),
               struct err *err);

#endif
