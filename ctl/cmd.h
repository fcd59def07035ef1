/* The commands' handlers, for the command tree. */
#ifndef CTL_CMD_H
#define CTL_CMD_H

#include "ctl/ctl.h"

/* View: reads, fills a page. Run: does something, prints as it goes. */
#define VIEW(name) int name(struct ctl *ctl, struct buf *out, struct err *err)
#define RUN(name)  int name(struct ctl *ctl, struct err *err)

RUN(cmd_job_submit);
VIEW(cmd_job_plan);
VIEW(cmd_job_list);
VIEW(cmd_job_show);
VIEW(cmd_job_why);
RUN(cmd_job_cancel);
RUN(cmd_job_hold);
RUN(cmd_job_release);
RUN(cmd_job_wait);
RUN(cmd_job_logs);
VIEW(cmd_job_metrics);
VIEW(cmd_job_report);
RUN(cmd_job_update);
RUN(cmd_job_resize);
RUN(cmd_job_suspend);
RUN(cmd_job_resume);
RUN(cmd_job_requeue);

VIEW(cmd_queue_list);
VIEW(cmd_queue_show);
RUN(cmd_queue_set);
VIEW(cmd_account_list);
VIEW(cmd_account_show);
RUN(cmd_account_set);
VIEW(cmd_quota_list);
RUN(cmd_quota_set);
RUN(cmd_maint_create);
VIEW(cmd_maint_list);
RUN(cmd_maint_cancel);

VIEW(cmd_node_list);
VIEW(cmd_node_show);
RUN(cmd_node_drain);
RUN(cmd_node_resume);

VIEW(cmd_ckpt_list);
VIEW(cmd_ckpt_show);
RUN(cmd_ckpt_verify);
RUN(cmd_ckpt_export);

VIEW(cmd_cost_report);
VIEW(cmd_cost_verify);

VIEW(cmd_event_list);
RUN(cmd_event_tail);
VIEW(cmd_cluster_status);
VIEW(cmd_plan);

#endif
