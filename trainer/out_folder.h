/* A folder that appears whole or not at all: made under a temporary name beside its place, and
 * renamed when everything in it is durable. Ctrl-C in between leaves nothing. */
#ifndef TRAINER_OUT_FOLDER_H
#define TRAINER_OUT_FOLDER_H

#include "lib/err.h"

/* The folder that a path is in; owned by the caller. */
char *out_folder_parent(const char *path);

struct out_folder {
    char *path, *tmp; /* owned; write into tmp */
};

/* ERR_USAGE unless there is nothing at path, or an empty folder. From here on SIGINT and SIGTERM
 * are only remembered. */
int out_folder_create(struct out_folder *f, const char *path, struct err *err);
/* ERR_FAILED when a signal came: for loops that take long. */
int out_folder_interrupted(const struct out_folder *f, struct err *err);
/* The files are fsynced by who wrote them; this does the folder, the rename, and the parent. */
int out_folder_commit(struct out_folder *f, struct err *err);
/* Also removes what was not committed. A zeroed one is fine. */
void out_folder_close(struct out_folder *f);

#endif
