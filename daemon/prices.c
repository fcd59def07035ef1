#include "daemon/prices.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/yaml.h"

#define MICRO_PER_USD 1000000
#define USD_MAX       1000000 /* an hour */

struct entry {
    char *model; /* owned */
    int64_t effective_ms;
    int64_t micro_usd;
};

/* "2", "2.5", "0.000001" -> micro-dollars, exactly. */
static int read_usd(const struct yaml_item *item, void *place, struct err *err)
{
    static const char allowed[] =
        "dollars an hour, 0 to 1000000 with at most six decimals, such as 2.50";
    const char *text = item->kind == YAML_ITEM_SCALAR ? item->text : "";
    int64_t value = 0;
    size_t i = 0;
    for (; isdigit((unsigned char)text[i]) && value <= USD_MAX; i++) {
        value = value * 10 + (text[i] - '0');
    }
    bool ok = i > 0 && value <= USD_MAX;
    value *= MICRO_PER_USD;
    if (ok && text[i] == '.') {
        int64_t unit = MICRO_PER_USD / 10;
        for (i++; isdigit((unsigned char)text[i]); i++, unit /= 10) {
            ok = ok && unit > 0;
            value += (text[i] - '0') * unit;
        }
    }
    if (!ok || text[i] != 0 || value > (int64_t)USD_MAX * MICRO_PER_USD) {
        return yaml_refuse(item, err, "not a price (allowed: %s)", allowed);
    }
    *(int64_t *)place = value;
    return 0;
}

static int read_date(const struct yaml_item *item, void *place, struct err *err)
{
    const char *text = item->kind == YAML_ITEM_SCALAR ? item->text : "";
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%d", &tm);
    if (end != NULL && *end == 'T') {
        end = strptime(end, "T%H:%M:%SZ", &tm);
    }
    int day = tm.tm_mday;
    time_t seconds = timegm(&tm); /* makes March 3 of February 31 */
    if (end == NULL || *end != 0 || seconds < 0 || tm.tm_mday != day) {
        return yaml_refuse(item, err, "not a date (allowed: 2026-01-31 or 2026-01-31T06:00:00Z)");
    }
    *(int64_t *)place = (int64_t)seconds * 1000;
    return 0;
}

static const struct yaml_field entry_fields[] = {
    {.key = "model", .type = YAML_TEXT, .offset = offsetof(struct entry, model), .required = true},
    {.key = "effective",
     .type = YAML_CUSTOM,
     .offset = offsetof(struct entry, effective_ms),
     .read = read_date},
    {.key = "usd",
     .type = YAML_CUSTOM,
     .offset = offsetof(struct entry, micro_usd),
     .required = true,
     .read = read_usd},
    {0},
};

static int read_entry(struct store *store, const struct yaml_item *item, struct err *err)
{
    struct entry entry = {0};
    struct err why = {0};
    int rc = yaml_read(item, entry_fields, &entry, err);
    if (rc == 0 && store != NULL) {
        rc = store_set_price(store, entry.model, entry.effective_ms, entry.micro_usd, &why);
        if (rc != 0) {
            yaml_refuse(item, err, "%s", why.text);
            if (err != NULL) {
                err->code = rc;
            }
        }
    }
    free(entry.model);
    return rc;
}

static int read_prices(struct store *store, const struct yaml_item *root, struct err *err)
{
    bool is_map = root->kind == YAML_ITEM_MAP && root->count == 1;
    const struct yaml_item *list = is_map ? yaml_get(root, "prices") : NULL;
    if (list == NULL || list->kind != YAML_ITEM_LIST) {
        return yaml_refuse(
            root, err, "the file holds one key, `prices`, with a list of {model, effective, usd}");
    }
    for (size_t i = 0; i < list->count; i++) {
        TRY(read_entry(store, list->items[i], err));
    }
    return 0;
}

int prices_load(struct store *store, const char *path, struct err *err)
{
    struct buf text = {0};
    struct yaml_tree tree = {0};
    int rc;
    TRY_GOTO(file_read(path, YAML_BYTES_MAX, &text, err), out);
    TRY_GOTO(yaml_load(&tree, (const char *)text.data, text.len, path, err), out);
    rc = read_prices(store, tree.root, err);
out:
    yaml_fini(&tree);
    buf_fini(&text);
    return rc;
}
