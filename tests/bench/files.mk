# Programs that `make bench` needs beside the real ones.
define bench_rule
$(BUILD)/tests/bench/$(1): $(call obj,tests/bench/$(1).c) $(2)
	@mkdir -p $$(@D)
	$$(call say,LINK,$$@)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) $$(filter %.a,$$^) $(3)
bench_tools += $(BUILD)/tests/bench/$(1)
endef
$(foreach t,submit ask workers orders,$(eval $(call bench_rule,$(t),$(proto_a) $(lib_a),$(LIBS_proto))))
$(eval $(call bench_rule,sched,$(core_a) $(proto_a) $(lib_a),$(LIBS_core)))
$(eval $(call bench_rule,fill,$(daemon_a) $(core_a) $(proto_a) $(lib_a),$(LIBS_daemon)))
$(eval $(call bench_rule,products,$(trainer_a) $(proto_a) $(lib_a),$(LIBS_trainer)))
CHECK_PROGRAMS += $(bench_tools)

# Prints figures beside their targets; asserts nothing about time. PART="drain history": only these (docs/performance.md has them all).
pack_python = $(or $(shell command -v $(REFERENCE_PYTHON)),$(PYTHON))
PART ?=
bench: deps
	@$(MAKE_AGAIN) -j$(JOBS) all $(bench_tools)
	@DS_BIN=$(abspath $(BUILD)/bin) BENCH_PYTHON=$(pack_python) NODES=$(NODES) WAITING=$(WAITING) $(PYTHON) tests/bench/bench.py $(PART)
.PHONY: bench-sched
bench-sched: # NODES=16384 WAITING=50000
	@$(MAKE_AGAIN) bench PART=sched

# A training step beside that of transformers on torch, where there is a Python that has them; knobs are in torch_bench.py.
.PHONY: bench-torch
bench-torch: all $(BUILD)/tests/bench/products
	@DS_BIN=$(abspath $(BUILD)/bin) BENCH_PYTHON=$(pack_python) $(PYTHON) tests/bench/torch_bench.py

# dstrain pack beside the package tokenizers, where there is a Python that has it: make bench-pack PYTHON_VENV=dir TOKENIZER=file
.PHONY: bench-pack
bench-pack: all
	@$(pack_python) tests/bench/pack.py --bin $(BUILD)/bin $(if $(TOKENIZER),--tokenizer $(TOKENIZER))

# The workers alone, under a coordinator that only gives orders.
.PHONY: bench-workers
bench-workers: deps
	@$(MAKE_AGAIN) -j$(JOBS) $(BUILD)/bin/dsworkerd $(BUILD)/bin/dsshim $(BUILD)/tests/bench/orders
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/bench/workers.py
