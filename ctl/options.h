/* The options of the commands, for the command tree. Each table ends with a NULL name. */
#ifndef CTL_OPTIONS_H
#define CTL_OPTIONS_H

#include "ctl/command.h"

extern const struct option submit_options[];
extern const struct option plan_options[];
extern const struct option run_plan_options[];
extern const struct option update_options[];
extern const struct option resize_options[];
extern const struct option queue_options[];
extern const struct option account_options[];
extern const struct option quota_options[];
extern const struct option all_options[];
extern const struct option maint_options[];
extern const struct option list_options[];
extern const struct option reason_options[];
extern const struct option logs_options[];
extern const struct option metrics_options[];
extern const struct option report_options[];
extern const struct option node_list_options[];
extern const struct option export_options[];
extern const struct option cost_options[];
extern const struct option event_options[];

#endif
