# dssim, the simulator: the core archive as it is, on a virtual clock.
SIM_SRC := \
  daemon/sim/audit.c \
  daemon/sim/chaos.c \
  daemon/sim/check.c \
  daemon/sim/cmd_plot.c \
  daemon/sim/cmd_replay.c \
  daemon/sim/cmd_run.c \
  daemon/sim/cmd_swarm.c \
  daemon/sim/coord.c \
  daemon/sim/coord_store.c \
  daemon/sim/fleet.c \
  daemon/sim/fleet_fault.c \
  daemon/sim/fleet_gang.c \
  daemon/sim/fleet_node.c \
  daemon/sim/gang.c \
  daemon/sim/heap.c \
  daemon/sim/net.c \
  daemon/sim/plot.c \
  daemon/sim/plot_text.c \
  daemon/sim/replay.c \
  daemon/sim/report.c \
  daemon/sim/rng.c \
  daemon/sim/scenario.c \
  daemon/sim/schedule.c \
  daemon/sim/sim.c \
  daemon/sim/store_mem.c \
  daemon/sim/summary.c \
  daemon/sim/swarm.c \
  daemon/sim/trace.c \
  daemon/sim/trace_csv.c \
  daemon/sim/trace_swf.c \
  daemon/sim/trace_time.c \
  daemon/sim/users.c \
  daemon/sim/vfs.c \
  daemon/sim/worker.c \
  daemon/sim/yard.c
