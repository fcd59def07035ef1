#include "report/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/file.h"

int lines_read(const char *path, void (*take)(void *ctx, const char *line, size_t len), void *ctx,
               bool *torn, struct err *err)
{
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    if (file == NULL) {
        return errno == ENOENT ? 0 : err_set_errno(err, "cannot open %s", path);
    }
    for (ssize_t len; (len = getline(&line, &room, file)) > 0;) {
        if (line[len - 1] == '\n') {
            take(ctx, line, (size_t)len - 1);
        } else if (torn != NULL) {
            *torn = true;
        }
    }
    int rc = ferror(file) ? err_set_errno(err, "cannot read %s", path) : 0;
    free(line);
    fclose(file);
    return rc;
}

static void take_json(void *list, const char *line, size_t len)
{
    json_t *object = json_loadb(line, len, 0, NULL);
    if (json_is_object(object)) {
        json_array_append(list, object);
    }
    json_decref(object);
}

int lines_read_json(const char *path, json_t **list, struct err *err)
{
    *list = json_array();
    int rc = lines_read(path, take_json, *list, NULL, err);
    if (rc != 0) {
        json_decref(*list);
        *list = NULL;
    }
    return rc;
}

int lines_open(const char *path, int *fd, struct err *err)
{
    char last = '\n';
    *fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (*fd < 0) {
        return err_set_errno(err, "cannot open %s", path);
    }
    off_t end = lseek(*fd, 0, SEEK_END);
    bool cut = end > 0 && pread(*fd, &last, 1, end - 1) == 1 && last != '\n';
    int rc = cut ? file_write_all(*fd, "\n", 1, err) : 0;
    if (rc != 0) {
        close(*fd);
        *fd = -1;
        return err_wrap(err, "%s", path);
    }
    return 0;
}
