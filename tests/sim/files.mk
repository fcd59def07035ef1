# The random simulation. SEED= the first seed, SEEDS= how many, TRACE=1 what happens.
SEED ?= 1
SEEDS ?= 25
SIM_SRC := \
  tests/sim/check.c \
  tests/sim/coord.c \
  tests/sim/gang.c \
  tests/sim/main.c \
  tests/sim/net.c \
  tests/sim/sim.c \
  tests/sim/users.c \
  tests/sim/worker.c
sim_bin := $(BUILD)/tests/sim/sim
CHECKS += check-sim
CHECK_PROGRAMS += $(sim_bin)

$(sim_bin): $(call obj,$(SIM_SRC)) $(daemon_a) $(core_a) $(proto_a) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_daemon)

.PHONY: check-sim
check-sim: $(sim_bin)
	@$(sim_bin) --seed $(SEED) --seeds $(SEEDS) $(if $(TRACE),--verbose)
