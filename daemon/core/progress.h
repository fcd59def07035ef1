/* Steps as the trainer reports them: the job's progress, the metric rows, and when an attempt
 * became productive. */
#ifndef DAEMON_CORE_PROGRESS_H
#define DAEMON_CORE_PROGRESS_H

#include "daemon/core/state.h"

void progress_report(struct core *core, const struct input *in);

#endif
