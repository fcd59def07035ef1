WORKER_SRC := worker/agent.c worker/attempt_dir.c worker/attempt_env.c worker/attempt_run.c worker/attempt_shim.c worker/cgroup.c \
    worker/ckpt_order.c worker/config.c worker/conn.c worker/inventory.c worker/gpu_facts.c worker/gpu_watch.c worker/nvml.c worker/link.c worker/log_file.c \
    worker/log_keep.c worker/log_list.c worker/log_read.c worker/nursery.c worker/orders.c worker/proctree.c worker/rank_server.c worker/report.c \
    worker/session.c worker/shim_nursery.c worker/shim_rank.c worker/shim_serve.c worker/store_keep.c worker/user.c worker/worker.c
WORKER_TESTS := tests/unit/worker/test_agent.c tests/unit/worker/test_agent_random.c tests/unit/worker/test_attempt_dir.c \
    tests/unit/worker/test_attempt_env.c tests/unit/worker/test_ckpt_order.c tests/unit/worker/test_config.c \
    tests/unit/worker/test_gpu_facts.c tests/unit/worker/test_log.c tests/unit/worker/test_proctree.c
