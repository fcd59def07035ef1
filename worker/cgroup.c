#include "worker/cgroup.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/file.h"

/* The path after "0::" in /proc/self/cgroup. */
static bool own_group(char *group, size_t bytes)
{
    struct buf text = {0};
    bool found = false;
    if (file_read("/proc/self/cgroup", 65536, &text, NULL) == 0) {
        char *rest = NULL;
        for (char *line = strtok_r(buf_cstr(&text), "\n", &rest); line != NULL;
             line = strtok_r(NULL, "\n", &rest)) {
            if (strncmp(line, "0::", 3) == 0) {
                snprintf(group, bytes, "%s", line + 3);
                found = true;
            }
        }
    }
    buf_fini(&text);
    return found;
}

/* Where cgroup2 is mounted: the fifth field of the mountinfo line whose type, after " - ", is
 * cgroup2. */
static bool mount_point(char *path, size_t bytes)
{
    struct buf text = {0};
    bool found = false;
    if (file_read("/proc/self/mountinfo", 4u << 20, &text, NULL) == 0) {
        char *rest = NULL;
        for (char *line = strtok_r(buf_cstr(&text), "\n", &rest); line != NULL && !found;
             line = strtok_r(NULL, "\n", &rest)) {
            char at[PATH_MAX];
            const char *type = strstr(line, " - ");
            if (type != NULL && strncmp(type + 3, "cgroup2 ", 8) == 0 &&
                sscanf(line, "%*s %*s %*s %*s %4095s", at) == 1) {
                snprintf(path, bytes, "%s", at);
                found = true;
            }
        }
    }
    buf_fini(&text);
    return found;
}

bool cgroup_find_own(char *path, size_t bytes)
{
    char group[PATH_MAX];
    char mount[PATH_MAX];
    char control[3 * PATH_MAX];
    if (!own_group(group, sizeof group) || !mount_point(mount, sizeof mount)) {
        return false;
    }
    int len = snprintf(path, bytes, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
    /* The root has no cgroup.kill, which keeps us out of it. */
    snprintf(control, sizeof control, "%s/cgroup.kill", path);
    return len > 0 && (size_t)len < bytes && access(control, W_OK) == 0 && access(path, W_OK) == 0;
}

bool cgroup_make(const char *path)
{
    struct stat st;
    return mkdir(path, 0755) == 0 || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

static int open_control(const char *path, const char *name)
{
    char control[PATH_MAX];
    if (snprintf(control, sizeof control, "%s/%s", path, name) >= (int)sizeof control) {
        return -1;
    }
    return open(control, O_WRONLY | O_CLOEXEC);
}

int cgroup_open_procs(const char *path)
{
    return open_control(path, "cgroup.procs");
}

bool cgroup_kill(const char *path)
{
    int fd = open_control(path, "cgroup.kill");
    if (fd < 0) {
        return false;
    }
    bool done = write(fd, "1", 1) == 1;
    close(fd);
    return done;
}

void cgroup_remove(const char *path)
{
    rmdir(path);
}
