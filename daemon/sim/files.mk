# dssim, the simulator: the core archive as it is, on a virtual clock.
SIM_SRC := \
  daemon/sim/chaos.c \
  daemon/sim/check.c \
  daemon/sim/cmd_run.c \
  daemon/sim/cmd_swarm.c \
  daemon/sim/coord.c \
  daemon/sim/gang.c \
  daemon/sim/net.c \
  daemon/sim/sim.c \
  daemon/sim/swarm.c \
  daemon/sim/users.c \
  daemon/sim/worker.c
