/* replay NAME FOLDER...: every file of the folders through one fuzz target, without libFuzzer. A
 * property that does not hold ends the process with the file's name as the last line. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "tests/fuzz/fuzz.h"

static int replay_file(const char *path)
{
    struct buf file = {0};
    struct err err;
    if (file_read(path, 1 << 20, &file, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    fprintf(stderr, "%s\r", path);
    uint8_t *exact =
        mem_alloc(file.len); /* of just this size, so that a sanitizer sees a read past it */
    memcpy(exact, buf_cstr(&file), file.len);
    LLVMFuzzerTestOneInput(exact, file.len);
    free(exact);
    buf_fini(&file);
    return 0;
}

static int replay_folder(const char *folder, int *failed)
{
    int replayed = 0;
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        perror(folder);
        *failed += 1;
        return 0;
    }
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[PATH_MAX];
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            *failed += replay_file(path);
            replayed++;
        }
    }
    closedir(dir);
    return replayed;
}

int main(int argc, char **argv)
{
    int replayed = 0;
    int failed = argc < 3;
    for (int i = 2; i < argc; i++) {
        replayed += replay_folder(argv[i], &failed);
    }
    failed += replayed == 0;
    printf("fuzz corpus %s: %d passed, %d failed\n", argc > 1 ? argv[1] : "", replayed, failed);
    return failed > 0;
}
