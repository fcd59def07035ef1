#include "trainer/out_folder.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"

static volatile sig_atomic_t stopped;

static void on_stop(int sig)
{
    stopped = sig;
}

static void catch_signals(void)
{
    const struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
}

static bool is_empty(const char *path)
{
    DIR *dir = opendir(path);
    bool empty = dir != NULL;
    for (const struct dirent *e; empty && (e = readdir(dir)) != NULL;) {
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return empty;
}

char *out_folder_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL   ? mem_strdup(".")
           : slash == path ? mem_strdup("/")
                           : mem_printf("%.*s", (int)(slash - path), path);
}

int out_folder_create(struct out_folder *f, const char *path, struct err *err)
{
    struct stat st;
    *f = (struct out_folder){.path = mem_strdup(path)};
    for (size_t n = strlen(path); n > 1 && f->path[n - 1] == '/'; n--) {
        f->path[n - 1] = 0;
    }
    if (lstat(f->path, &st) == 0 && !is_empty(f->path)) {
        return err_set(err, ERR_USAGE, "%s is there already (give a new folder)", path);
    }
    char *parent = out_folder_parent(f->path);
    int rc = file_mkdirs(parent, 0777, err);
    free(parent);
    TRY(rc);
    catch_signals();
    f->tmp = mem_printf("%s.tmp-XXXXXX", f->path);
    if (mkdtemp(f->tmp) == NULL) {
        rc = err_set_errno(err, "cannot create a folder beside %s", f->path);
        free(f->tmp);
        f->tmp = NULL;
        return rc;
    }
    mode_t mask = umask(0);
    umask(mask);
    return chmod(f->tmp, 0777 & ~mask) == 0 ? 0 : err_set_errno(err, "cannot chmod %s", f->tmp);
}

int out_folder_interrupted(const struct out_folder *f, struct err *err)
{
    return stopped == 0 ? 0
                        : err_set(err, ERR_FAILED, "interrupted: nothing was left of %s", f->path);
}

int out_folder_commit(struct out_folder *f, struct err *err)
{
    TRY(file_fsync_dir(f->tmp, err));
    if (rename(f->tmp, f->path) != 0) {
        return err_set_errno(err, "cannot rename %s to %s", f->tmp, f->path);
    }
    free(f->tmp);
    f->tmp = NULL;
    char *parent = out_folder_parent(f->path);
    int rc = file_fsync_dir(parent, err);
    free(parent);
    return rc;
}

void out_folder_close(struct out_folder *f)
{
    if (f->tmp != NULL) {
        file_remove_tree(f->tmp, NULL);
    }
    free(f->path);
    free(f->tmp);
    *f = (struct out_folder){0};
}
