/* Usage errors that name the nearest right thing. */
#ifndef CTL_HINT_H
#define CTL_HINT_H

#include <stddef.h>

#include "lib/err.h"

/* The words name no command. Always ERR_USAGE. */
int hint_command(const char *const *words, size_t count, struct err *err);
/* word is --name or --name=value. Always ERR_USAGE. */
int hint_option(const char *word, struct err *err);

#endif
