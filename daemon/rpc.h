/* From frames to handlers. Each handler of rpc_*.c serves one method of proto/rpc.def: it
 * validates, and answers the call at once or hands it on (call.h). */
#ifndef DAEMON_RPC_H
#define DAEMON_RPC_H

#include "daemon/call.h"

extern const struct conn_handler rpc_conn_handler;

/* request is of the method's type, its strings are UTF-8, its integers fit into int64_t. */
typedef void rpc_handler(struct call *call, const ProtobufCMessage *request);

/* NULL when this program does not serve the method. */
rpc_handler *rpc_handler_of(uint16_t method);

rpc_handler rpc_job_submit, rpc_job_list, rpc_job_show, rpc_job_why, rpc_job_cancel, rpc_job_wait,
    rpc_job_logs, rpc_job_metrics, rpc_job_hold, rpc_job_release;
rpc_handler rpc_job_update, rpc_job_resize, rpc_job_suspend, rpc_job_resume, rpc_job_requeue,
    rpc_job_plan;
rpc_handler rpc_queue_list, rpc_queue_show, rpc_queue_set;
rpc_handler rpc_account_list, rpc_account_show, rpc_account_set;
rpc_handler rpc_quota_list, rpc_quota_set;
rpc_handler rpc_maint_create, rpc_maint_list, rpc_maint_cancel;
rpc_handler rpc_node_list, rpc_node_show, rpc_node_drain, rpc_node_resume;
rpc_handler rpc_ckpt_list, rpc_ckpt_show, rpc_ckpt_verify;
rpc_handler rpc_cost_report, rpc_cost_verify;
rpc_handler rpc_event_list, rpc_cluster_status;
rpc_handler rpc_worker_register, rpc_heartbeat, rpc_attempt_report, rpc_shard_report,
    rpc_step_report, rpc_guard_report;
rpc_handler rpc_store_set, rpc_store_get;

/* For the rendezvous: a value came, or the epoch is over. */
void rpc_store_answer(void *dsd, uint64_t waiter, int code, const void *value, size_t len);
/* Of effects: something happened to this job (0: to none); then, once all effects of a turn are
 * out: answers JobWait and EventList that came true, logs what happened. */
void rpc_event_happened(struct dsd *d, uint64_t seq, uint64_t job);
void rpc_events_flow(struct dsd *d);
void rpc_job_wait_check(struct call *call);

/* For the views: what only the process knows (struct views_live). */
bool rpc_node_live(void *dsd, uint64_t node_id, int64_t *seen_ms);
bool rpc_job_why_live(void *dsd, uint64_t job, char *code, size_t code_bytes, char *text,
                      size_t text_bytes);

int64_t rpc_planned_start(void *dsd, uint64_t job);
double rpc_used_gpu_ms(void *dsd, const char *account, const char *user);

/* The time of the last scheduling pass, into an optional field. */
void rpc_scheduled(const struct dsd *d, protobuf_c_boolean *has, int64_t *at_ms);

/* Of a name that comes from outside and is shown, stored or compared: 1 to max bytes of
 * [A-Za-z0-9._-], not starting with '-' or '.'. what: for the message. */
int rpc_check_name(const char *name, size_t max, const char *what, struct err *err);

#endif
