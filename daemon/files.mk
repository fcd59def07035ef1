# One line a file.
CORE_SRC := \
  daemon/core/attempt.c \
  daemon/core/attempt_time.c \
  daemon/core/census.c \
  daemon/core/check.c \
  daemon/core/checkpoint.c \
  daemon/core/core.c \
  daemon/core/digest.c \
  daemon/core/effect_list.c \
  daemon/core/guard.c \
  daemon/core/job.c \
  daemon/core/job_change.c \
  daemon/core/job_wait.c \
  daemon/core/keys.c \
  daemon/core/ledger.c \
  daemon/core/load.c \
  daemon/core/map.c \
  daemon/core/node.c \
  daemon/core/policy.c \
  daemon/core/price.c \
  daemon/core/progress.c \
  daemon/core/pump.c \
  daemon/core/quarantine.c \
  daemon/core/reason.c \
  daemon/core/recover.c \
  daemon/core/register.c \
  daemon/core/reservation.c \
  daemon/core/retention.c \
  daemon/core/rows.c \
  daemon/core/sched.c \
  daemon/core/sched_claim.c \
  daemon/core/sched_limit.c \
  daemon/core/sched_order.c \
  daemon/core/sched_place.c \
  daemon/core/sched_predict.c \
  daemon/core/sched_preempt.c \
  daemon/core/share.c \
  daemon/core/share_set.c \
  daemon/core/submit.c \
  daemon/core/timeline.c \
  daemon/core/timers.c \
  daemon/core/topology.c
CORE_TESTS := \
  tests/unit/core/test_attempt.c \
  tests/unit/core/test_checkpoint.c \
  tests/unit/core/test_containers.c \
  tests/unit/core/test_guard.c \
  tests/unit/core/test_job.c \
  tests/unit/core/test_ledger.c \
  tests/unit/core/test_node.c \
  tests/unit/core/test_progress.c \
  tests/unit/core/test_pump.c \
  tests/unit/core/test_reason.c \
  tests/unit/core/test_recover.c \
  tests/unit/core/test_job_wait.c \
  tests/unit/core/test_sched.c \
  tests/unit/core/test_sched_order.c \
  tests/unit/core/test_submit.c
DAEMON_SRC := \
  daemon/call.c \
  daemon/config.c \
  daemon/config_sched.c \
  daemon/conn.c \
  daemon/effect_run.c \
  daemon/listener.c \
  daemon/loop.c \
  daemon/many.c \
  daemon/notify.c \
  daemon/rendezvous.c \
  daemon/rpc.c \
  daemon/rpc_ckpt.c \
  daemon/rpc_cost.c \
  daemon/rpc_event.c \
  daemon/rpc_job.c \
  daemon/rpc_job_change.c \
  daemon/rpc_maint.c \
  daemon/rpc_node.c \
  daemon/rpc_share.c \
  daemon/rpc_store.c \
  daemon/rpc_submit.c \
  daemon/rpc_worker.c \
  daemon/session.c \
  daemon/slotmap.c \
  daemon/ledger_verify.c \
  daemon/prices.c \
  daemon/store.c \
  daemon/store_check.c \
  daemon/store_load.c \
  daemon/store_row.c \
  daemon/transport.c \
  daemon/usage.c \
  daemon/views.c \
  daemon/views_ckpt.c \
  daemon/views_cost.c \
  daemon/views_event.c \
  daemon/views_job.c \
  daemon/views_lost.c \
  daemon/views_maint.c \
  daemon/views_metric.c \
  daemon/views_node.c \
  daemon/views_share.c \
  daemon/work.c
DAEMON_TESTS := \
  tests/unit/daemon/test_config.c \
  tests/unit/daemon/test_conn.c \
  tests/unit/daemon/test_cost.c \
  tests/unit/daemon/test_ledger_verify.c \
  tests/unit/daemon/test_listener.c \
  tests/unit/daemon/test_rendezvous.c \
  tests/unit/daemon/test_serve.c \
  tests/unit/daemon/test_slotmap.c \
  tests/unit/daemon/test_store.c \
  tests/unit/daemon/test_store_random.c \
  tests/unit/daemon/test_views.c
GENERATED_HEADERS += $(BUILD)/gen/daemon/schema.sql.h $(BUILD)/gen/daemon/schema_2.sql.h $(BUILD)/gen/daemon/schema_3.sql.h \
  $(BUILD)/gen/daemon/schema_4.sql.h \
  $(BUILD)/gen/tests/unit/daemon/data/schema_1.sql.h
