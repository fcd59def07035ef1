#include <malloc.h>

#include "ctl/ctl.h"

int main(int argc, char **argv)
{
    /* A list is freed in the order it was made, which grows one large free block. With glibc's fast
     * bins each of these frees would first sort all bins. */
    mallopt(M_MXFAST, 0);
    return ctl_main(argc, argv, stdout, stderr);
}
