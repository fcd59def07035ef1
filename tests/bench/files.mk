bench_submit := $(BUILD)/tests/bench/submit
$(bench_submit): $(call obj,tests/bench/submit.c) $(proto_a) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_proto)
CHECK_PROGRAMS += $(bench_submit)

# The scheduler alone, on the pure core: make bench-sched NODES=16384 WAITING=50000
bench_sched := $(BUILD)/tests/bench/sched
$(bench_sched): $(call obj,tests/bench/sched.c) $(core_a) $(proto_a) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_core)
CHECK_PROGRAMS += $(bench_sched)
.PHONY: bench-sched
bench-sched: $(bench_sched)
	@$(bench_sched) $(NODES) $(WAITING)

# Prints figures beside their targets; asserts nothing about time.
bench: deps
	@$(MAKE_AGAIN) -j$(JOBS) all $(bench_submit) $(bench_sched)
	@$(bench_sched)
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/bench/bench.py
	@$(PYTHON) tests/sim/scenarios.py $(BUILD)/bin/dssim --bench
	@$(pack_python) tests/bench/pack.py --bin $(BUILD)/bin
	@DS_BIN=$(abspath $(BUILD)/bin) BENCH_PYTHON=$(pack_python) $(PYTHON) tests/bench/torch_bench.py

# A training step beside that of transformers on torch, where there is a Python that has them; knobs are in torch_bench.py.
.PHONY: bench-torch
bench-torch: all
	@DS_BIN=$(abspath $(BUILD)/bin) BENCH_PYTHON=$(pack_python) $(PYTHON) tests/bench/torch_bench.py

# dstrain pack beside the package tokenizers, where there is a Python that has it: make bench-pack PYTHON_VENV=dir TOKENIZER=file
pack_python = $(or $(shell command -v $(REFERENCE_PYTHON)),$(PYTHON))
.PHONY: bench-pack
bench-pack: all
	@$(pack_python) tests/bench/pack.py --bin $(BUILD)/bin $(if $(TOKENIZER),--tokenizer $(TOKENIZER))

# The workers alone, under a coordinator that only gives orders.
bench_orders := $(BUILD)/tests/bench/orders
$(bench_orders): $(call obj,tests/bench/orders.c) $(proto_a) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_proto)
CHECK_PROGRAMS += $(bench_orders)
.PHONY: bench-workers
bench-workers: deps
	@$(MAKE_AGAIN) -j$(JOBS) $(BUILD)/bin/dsworkerd $(BUILD)/bin/dsshim $(bench_orders)
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/bench/workers.py
