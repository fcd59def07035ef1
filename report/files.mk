REPORT_SRC := report/axis.c report/chart.c report/chart_time.c report/curve.c report/doc.c report/escape.c report/lines.c report/metrics.c \
    report/parts_attempts.c report/parts_curves.c report/parts_setup.c report/run_report.c
REPORT_TESTS := tests/unit/report/test_curve.c tests/unit/report/test_metrics.c
