#include "worker/attempt_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "worker/shim.h"

char *attempt_dir_path(const char *state_dir, uint64_t job, uint64_t epoch)
{
    return mem_printf("%s/attempts/%" PRIu64 "-%" PRIu64, state_dir, job, epoch);
}

char *attempt_log_path(const char *state_dir, uint64_t job, uint64_t epoch)
{
    return mem_printf("%s/logs/%" PRIu64 "/%" PRIu64, state_dir, job, epoch);
}

int attempt_dir_accept(const char *dir, const struct buf *order, struct err *err)
{
    char path[PATH_MAX];
    char parent[PATH_MAX];
    if (mkdir(dir, 0711) != 0 && errno != EEXIST) {
        return err_set_errno(err, "cannot create %s", dir);
    }
    snprintf(path, sizeof path, "%s/" ATTEMPT_ORDER_FILE, dir);
    snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(dir, '/') - dir), dir);
    TRY(file_write_durable(path, order->data, order->len, 0600, err));
    return file_fsync_dir(parent, err);
}

/* A file that holds one frame of the given method. */
static int read_frame_file(const char *dir, const char *name, uint16_t method,
                           ProtobufCMessage **message, struct err *err)
{
    char path[PATH_MAX];
    struct buf data = {0};
    struct frame f;
    size_t used;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int rc = file_read(path, FRAME_HEADER_BYTES + FRAME_PAYLOAD_MAX, &data, err);
    if (rc == 0) {
        rc = frame_decode(data.data, data.len, FRAME_PAYLOAD_MAX, &f, &used, err);
        if (rc == ERR_AGAIN || (rc == 0 && f.method != method)) {
            rc = err_set(err, ERR_CORRUPT, "cut short or of another kind");
        }
        if (rc == 0) {
            rc = rpc_unpack(&f, message, err);
        }
        if (rc != 0) {
            err_wrap(err, "%s", path);
            rc = ERR_CORRUPT;
        }
    }
    buf_fini(&data);
    return rc;
}

int attempt_dir_read_order(const char *dir, Ds__AttemptStart **order, struct err *err)
{
    ProtobufCMessage *message = NULL;
    int rc = read_frame_file(dir, ATTEMPT_ORDER_FILE, RPC_ATTEMPT_START, &message, err);
    *order = (Ds__AttemptStart *)message;
    return rc;
}

int attempt_dir_read_status(const char *dir, Ds__ShimStatus **status, struct err *err)
{
    ProtobufCMessage *message = NULL;
    int rc = read_frame_file(dir, SHIM_STATUS_FILE, RPC_SHIM_STATUS, &message, err);
    *status = (Ds__ShimStatus *)message;
    return rc;
}

uid_t attempt_dir_uid(const char *dir)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/" ATTEMPT_SPEC_FILE, dir);
    return lstat(path, &st) == 0 ? st.st_uid : geteuid();
}

int attempt_dir_write(const char *dir, const char *name, const void *data, size_t len,
                      struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_set_errno(err, "cannot create %s", path);
    }
    int rc = file_write_all(fd, data, len, err);
    if (close(fd) != 0 && rc == 0) {
        rc = err_set_errno(err, "cannot close");
    }
    return rc == 0 ? 0 : err_wrap(err, "%s", path);
}

/* ---- the shim's socket */

/* A socket address holds some hundred bytes and state folders are deep, so the folder is named by a
 * descriptor. Returns it. */
static int address_of(const char *dir, struct sockaddr_un *at)
{
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(at->sun_path, sizeof at->sun_path, "/proc/self/fd/%d/" SHIM_SOCKET_FILE, fd);
    return fd;
}

int attempt_dir_listen(const char *dir, struct err *err)
{
    struct sockaddr_un at;
    int folder = address_of(dir, &at);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (folder < 0 || fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(fd, 8) != 0) {
        err_set_errno(err, "cannot listen on %s/" SHIM_SOCKET_FILE, dir);
        if (fd >= 0) {
            close(fd);
        }
        fd = -1;
    }
    if (folder >= 0) {
        close(folder);
    }
    return fd;
}

int attempt_dir_connect(const char *dir)
{
    struct sockaddr_un at;
    int folder = address_of(dir, &at);
    int fd = folder < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        close(fd);
        fd = -1;
    }
    if (folder >= 0) {
        close(folder);
    }
    return fd;
}

/* ---- all of them */

static int parse_name(const char *name, uint64_t *job, uint64_t *epoch)
{
    char again[64];
    if (sscanf(name, "%" SCNu64 "-%" SCNu64, job, epoch) != 2) {
        return -1;
    }
    snprintf(again, sizeof again, "%" PRIu64 "-%" PRIu64, *job, *epoch);
    return strcmp(name, again) == 0 ? 0 : -1;
}

int attempt_dir_each(const char *state_dir, attempt_dir_cb cb, void *ctx, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/attempts", state_dir);
    DIR *d = opendir(path);
    if (d == NULL) {
        return err_set_errno(err, "cannot read %s", path);
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        uint64_t job;
        uint64_t epoch;
        if (parse_name(e->d_name, &job, &epoch) == 0) {
            cb(ctx, job, epoch);
        }
    }
    closedir(d);
    return 0;
}
