/* dstrain's sub-commands, and what they share. argv[0] is the command's name; the result is the
 * process's exit status. */
#ifndef TRAINER_MAIN_H
#define TRAINER_MAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"

int main_pack(int argc, char **argv);
int main_export(int argc, char **argv);
int main_import(int argc, char **argv);
int main_eval(int argc, char **argv);
int main_generate(int argc, char **argv);
int main_report(int argc, char **argv);

/* One line on stderr. Returns status. */
int main_complain(const struct err *err, int status);
/* Wrong use: points at the command's help. Returns 64. */
int main_usage(const char *command, const char *what);
bool main_parse_u64(const char *text, uint64_t max, uint64_t *value);

#endif
