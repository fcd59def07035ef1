#include "worker/user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#define GROUPS_MAX 65536

static void find_groups(struct user *user)
{
    int count = 64;
    gid_t *groups = mem_alloc_array((size_t)count, sizeof *groups);
    while (getgrouplist(user->name, user->gid, groups, &count) < 0 && count <= GROUPS_MAX) {
        groups = mem_resize(groups, (size_t)count * sizeof *groups);
    }
    user->groups = mem_alloc_array((size_t)count, sizeof *user->groups);
    for (int i = 0; i < count; i++) {
        user->groups[user->group_count++] = groups[i];
    }
    free(groups);
}

int user_find(struct user *user, const char *name, struct err *err)
{
    char text[16384];
    struct passwd entry;
    struct passwd *found = NULL;
    *user = (struct user){0};
    int rc = getpwnam_r(name, &entry, text, sizeof text, &found);
    if (found == NULL && rc == 0) {
        return err_set(err, ERR_NOT_FOUND,
                       "the job's user '%s' is not known on this node (create it here, or run "
                       "dsworkerd as an ordinary user)",
                       name);
    }
    if (found == NULL) {
        errno = rc;
        return err_set_errno(err, "cannot look up the job's user '%s'", name);
    }
    user->uid = entry.pw_uid;
    user->gid = entry.pw_gid;
    user->name = mem_strdup(entry.pw_name);
    user->home = mem_strdup(entry.pw_dir);
    user->shell = mem_strdup(entry.pw_shell);
    if (user->uid != 0) {
        find_groups(user); /* root is not switched to */
    }
    return 0;
}

void user_fini(struct user *user)
{
    free(user->groups);
    free(user->name);
    free(user->home);
    free(user->shell);
    *user = (struct user){0};
}
