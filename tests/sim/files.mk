# The random simulation. SEED= the first seed, SEEDS= how many, TRACE=1 what happens in the first.
SEED ?= 1
SEEDS ?= 25
dssim := $(BUILD)/bin/dssim
CHECKS += check-sim

.PHONY: check-sim
check-sim: $(dssim)
ifdef TRACE
	@$(dssim) run --seed $(SEED) --verbose
else
	@$(dssim) swarm --seed $(SEED) --seeds $(SEEDS)
	@$(dssim) swarm --from tests/sim/seeds.txt --quiet
endif
