#include "trainer/attempt_log.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "lib/utf8.h"
#include "proto/pick.h"
#include "report/lines.h"

static char *path_of(const char *run_dir)
{
    return mem_printf("%s/attempts.jsonl", run_dir);
}

/* Steals the reference. */
static int append(const char *run_dir, json_t *line, struct err *err)
{
    int fd;
    char *path = path_of(run_dir);
    char *json = json_dumps(line, JSON_COMPACT);
    char *text = mem_printf("%s\n", json);
    int rc = lines_open(path, &fd, err);
    if (rc == 0) {
        rc = file_write_all(fd, text, strlen(text), err);
        if (rc == 0 && fsync(fd) != 0) {
            rc = err_set_errno(err, "cannot fsync %s", path);
        }
        close(fd);
    }
    json_decref(line);
    free(json);
    free(text);
    free(path);
    return rc;
}

static json_t *now(void)
{
    char text[CLOCK_TEXT_BYTES];
    clock_format_utc(clock_wall_ms(), text);
    return json_string(text);
}

static json_t *text_of(const char *text)
{
    if (text == NULL) {
        return json_null();
    }
    char *copy = mem_strdup(text);
    utf8_clean(copy, strlen(copy)); /* paths need not be UTF-8 */
    json_t *value = json_string(copy);
    free(copy);
    return value;
}

int attempt_log_begin(const char *run_dir, uint64_t epoch, uint32_t ranks, const char *resume,
                      struct err *err)
{
    char host[HOST_NAME_MAX + 1] = "";
    gethostname(host, sizeof host - 1);
    return append(run_dir,
                  json_pack("{s:I,s:o,s:[o],s:I,s:o}", "epoch", (json_int_t)epoch, "started_at",
                            now(), "nodes", text_of(host), "ranks", (json_int_t)ranks, "resume",
                            text_of(resume)),
                  err);
}

int attempt_log_end(const char *run_dir, uint64_t epoch, int status, const char *text,
                    struct err *err)
{
    return append(run_dir,
                  json_pack("{s:I,s:o,s:i,s:o}", "epoch", (json_int_t)epoch, "ended_at", now(),
                            "status", status, "cause", text_of(text)),
                  err);
}

/* The second line of an attempt belongs to the last first one of its epoch. */
static void add(json_t *attempts, json_t *line)
{
    size_t count = json_array_size(attempts);
    if (pick(line, "started_at") != NULL) {
        json_array_append(attempts, line);
        return;
    }
    for (size_t i = count; i-- > 0;) {
        json_t *a = json_array_get(attempts, i);
        if (pick_count(a, "epoch") == pick_count(line, "epoch")) {
            json_object_update(a, line);
            return;
        }
    }
}

int attempt_log_read(const char *run_dir, json_t **attempts, struct err *err)
{
    char *path = path_of(run_dir);
    json_t *lines = NULL;
    *attempts = NULL;
    int rc = lines_read_json(path, &lines, err);
    free(path);
    if (rc == 0) {
        *attempts = json_array();
        for (size_t i = 0; i < json_array_size(lines); i++) {
            add(*attempts, json_array_get(lines, i));
        }
    }
    json_decref(lines);
    return rc;
}

uint64_t attempt_log_next(const char *run_dir)
{
    json_t *attempts = NULL;
    uint64_t epoch = 0;
    if (attempt_log_read(run_dir, &attempts, NULL) == 0) {
        for (size_t i = 0; i < json_array_size(attempts); i++) {
            uint64_t e = pick_count(json_array_get(attempts, i), "epoch");
            epoch = e > epoch ? e : epoch;
        }
    }
    json_decref(attempts);
    return epoch + 1;
}
