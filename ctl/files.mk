CTL_SRC := ctl/args.c ctl/cells.c ctl/ckpts.c ctl/cmd_ckpt.c ctl/cmd_ckpt_export.c ctl/cmd_change.c ctl/cmd_cluster.c ctl/cmd_cost.c \
    ctl/cmd_event.c ctl/cmd_job.c ctl/cmd_logs.c ctl/cmd_maint.c ctl/cmd_metrics.c ctl/cmd_node.c ctl/cmd_report.c ctl/metric_pages.c ctl/cmd_plan.c ctl/cmd_share.c ctl/cmd_submit.c \
    ctl/commands.c ctl/complete.c ctl/ctl.c ctl/encode.c ctl/events.c ctl/help.c ctl/hint.c \
    ctl/interrupt.c ctl/jobs.c ctl/logs.c ctl/nodes.c ctl/options.c ctl/outcome.c ctl/output.c ctl/page.c \
    ctl/plot.c ctl/ranks.c ctl/session.c ctl/table.c ctl/table_text.c ctl/terminal.c ctl/text.c ctl/wait.c ctl/watch.c \
    ctl/when.c
CTL_TESTS := tests/unit/ctl/test_args.c tests/unit/ctl/test_format.c tests/unit/ctl/test_table.c \
    tests/unit/ctl/test_screen.c tests/unit/ctl/test_commands.c tests/unit/ctl/test_ckpt_export.c \
    tests/unit/ctl/test_sched.c
$(BUILD)/tests/ctl/test_commands $(BUILD)/tests/ctl/test_ckpt_export: $(BUILD)/obj/tests/unit/ctl/fake_server.c.o \
    $(BUILD)/obj/tests/unit/ctl/fake_cluster.c.o
$(BUILD)/tests/ctl/test_sched: $(BUILD)/obj/tests/unit/ctl/fake_server.c.o
