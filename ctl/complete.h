/* Shell completion. The scripts in ctl/completion only pass words in and candidates out, so that
 * they never lag behind. */
#ifndef CTL_COMPLETE_H
#define CTL_COMPLETE_H

#include <stddef.h>
#include <stdio.h>

#define COMPLETE_WORD "__complete"

/* words: those after "dsctl", the last being the one the cursor is on (may be ""). Writes one
 * candidate a line, "candidate" or "candidate TAB description"; a line ":file" asks the shell for
 * file names. Live ids are asked of the coordinator for a second at most; failures are silent. */
void complete(FILE *out, const char *const *words, size_t count);

#endif
