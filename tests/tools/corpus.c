/* corpus PREFIX: sequences and documents of a packed corpus (two u64), then its tokens (int32). */
#include <stdio.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "trainer/data.h"

int main(int argc, char **argv)
{
    struct dataset d = {.bin_fd = -1};
    struct err err = {0};
    int32_t *tokens = NULL;
    int rc = argc == 2 ? dataset_open(&d, argv[1], &err)
                       : err_set(&err, ERR_USAGE, "usage: corpus PREFIX");
    if (rc == 0) {
        tokens = mem_alloc_array(d.tokens, sizeof *tokens);
        rc = dataset_read(&d, 0, d.tokens, INT32_MAX, tokens, &err);
    }
    if (rc == 0) {
        const uint64_t counts[] = {d.sequences, d.documents};
        fwrite(counts, sizeof counts, 1, stdout);
        fwrite(tokens, sizeof *tokens, d.tokens, stdout);
    } else {
        fprintf(stderr, "%s\n", err.text);
    }
    free(tokens);
    dataset_close(&d);
    return rc == 0 ? 0 : 1;
}
