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
	@$(PYTHON) tests/sim/scenarios.py $(dssim)
endif

# A deliberate bug in the simulated coordinator: the files that know it are compiled with it, and come before the archives.
$(BUILD)/mutants/%/dssim: $(dssim) FORCE
	@rm -rf $(@D) && mkdir -p $(@D)
	@for f in $$(grep -lw MUTANT_$* daemon/*.c daemon/core/*.c); do \
	    $(CC) $(CFLAGS_ALL) $(WARN_C) -Wno-error -DMUTANT_$*=1 -c -o $(@D)/$$(echo $$f | tr / -).o $$f || exit 1; done
	@$(CC) $(LDFLAGS_ALL) -o $@ $(@D)/*.o $(BUILD)/obj/daemon/sim/main.c.o $(sim_a) $(daemon_a) $(core_a) $(proto_a) $(lib_a) $(LIBS_sim)
