# One line a file.
CORE_SRC := \
  daemon/core/attempt.c \
  daemon/core/check.c \
  daemon/core/checkpoint.c \
  daemon/core/core.c \
  daemon/core/digest.c \
  daemon/core/effect_list.c \
  daemon/core/job.c \
  daemon/core/keys.c \
  daemon/core/ledger.c \
  daemon/core/load.c \
  daemon/core/map.c \
  daemon/core/node.c \
  daemon/core/price.c \
  daemon/core/progress.c \
  daemon/core/pump.c \
  daemon/core/reason.c \
  daemon/core/recover.c \
  daemon/core/register.c \
  daemon/core/rows.c \
  daemon/core/sched.c \
  daemon/core/submit.c \
  daemon/core/timers.c
CORE_TESTS := \
  tests/unit/core/test_job.c
DAEMON_SRC := \
  daemon/store.c \
  daemon/store_load.c \
  daemon/store_row.c
DAEMON_TESTS := \
  tests/unit/daemon/test_store.c
GENERATED_HEADERS += $(BUILD)/gen/daemon/schema.sql.h
