/* Help texts from the command tree. */
#ifndef CTL_HELP_H
#define CTL_HELP_H

#include "ctl/args.h"

/* All commands, one noun's, or one command's. */
void help_write(struct buf *out, const struct args *args);

#endif
