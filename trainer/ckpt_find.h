/* Which checkpoint a folder stands for. */
#ifndef TRAINER_CKPT_FIND_H
#define TRAINER_CKPT_FIND_H

#include "lib/err.h"

/* *found: the folder itself when it is a checkpoint, else the newest committed one in it, where it
 * is that of a run's checkpoints: FOLDER/e0001/step-0000000050, FOLDER/t00001-e00001/..., or
 * FOLDER/step-.... ERR_NOT_FOUND. The caller frees it. */
int ckpt_find(const char *folder, char **found, struct err *err);

#endif
