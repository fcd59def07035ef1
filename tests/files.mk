# What `make check` runs besides compiling. Each part has a target of its own: `make check-e2e`, `make check-mutants` ...
# A folder of tests adds its target to CHECKS and what that needs compiled to CHECK_PROGRAMS, in its own files.mk. A target prints one closing line per runner, which
# tests/check.py counts: cmocka's, pytest's, or `name: N passed, N failed`.
CHECKS :=
CHECK_PROGRAMS :=
-include tests/gpu/files.mk tests/reference/files.mk tests/sim/files.mk tests/fuzz/files.mk tests/trainer/files.mk tests/bench/files.mk tests/experiments/files.mk

JOBS := $(shell nproc)
# A make of its own, whatever -j the caller gave.
MAKE_AGAIN = $(MAKE) --no-print-directory -s DEPS=no
LINT := $(PYTHON) tests/lint
C_FILES = $(shell git ls-files '*.c' '*.h' '*.cu' '*.cuh' 2>/dev/null || find . \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) -not -path './build*')

.PHONY: check compile check-asan check-clang check-e2e check-chaos check-mutants
check: deps
	@$(MAKE_AGAIN) -j$(JOBS) compile
	@$(PYTHON) tests/check.py --make '$(MAKE)' \
	    format-check check-headers check-layers check-unit $(CHECKS) check-e2e check-mutants check-clang check-asan
compile: all $(unit_test_bins) $(CHECK_PROGRAMS)

# ---- end to end, on the programs in $(BUILD)/bin
PYTEST = DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) -m pytest -p no:cacheprovider -q --tb=short
E2E ?=
fulldisk_so := $(BUILD)/tests/fulldisk.so
$(fulldisk_so): tests/e2e/fulldisk.c
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) -std=c11 -O2 -D_GNU_SOURCE $(WARN_BOTH) -shared -fPIC -o $@ $< -ldl
nvml_so := $(BUILD)/tests/libnvidia-ml.so.1
$(nvml_so): tests/e2e/nvml_standin.c
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) -std=c11 -O2 -D_GNU_SOURCE $(WARN_BOTH) -shared -fPIC -o $@ $<
CHECK_PROGRAMS += $(fulldisk_so) $(nvml_so)
check-e2e: all $(fulldisk_so) $(nvml_so)
	@$(PYTEST) tests/e2e $(if $(E2E),-k '$(E2E)')
# One of them alone, with as many random kills as you like: make check-chaos CHAOS_KILLS=500
check-chaos: all
	@$(PYTEST) tests/e2e/test_chaos.py

# ---- deliberate bugs: each must make the test that watches for it fail
# One unit test with one deliberate bug: the files that know it are compiled with it, and come before the archives. When it is in a
# header, these are all that depend on it, and the test.
BUG ?=
TEST ?=
mutant_folder = $(BUILD)/mutants/$(BUG)
mutant_headers = $(shell grep -lrw --include=*.h 'MUTANT_$(BUG)' lib proto daemon worker trainer)
mutant_test = $(if $(mutant_headers),tests/unit/$(TEST).c)
mutant_all = $(filter %.c,$(LIB_SRC) $(PROTO_SRC) $(CORE_SRC) $(DAEMON_SRC) $(WORKER_SRC) $(TRAINER_SRC) $(CTL_SRC))
mutant_src = $(mutant_test) $(if $(mutant_headers),$(patsubst $(BUILD)/obj/%.d,%,$(shell grep -lw $(mutant_headers) $(wildcard $(mutant_all:%=$(BUILD)/obj/%.d)))),$(shell grep -lw 'MUTANT_$(BUG)' $(mutant_all)))
mutant_part = $(patsubst %/,%,$(dir $(TEST)))
.PHONY: mutant-test
mutant-test: $(if $(TEST),$(BUILD)/tests/$(TEST))
	@mkdir -p $(mutant_folder)
	@$(foreach f,$(mutant_src),$(CC) $(CFLAGS_ALL) $(WARN_C) $(FLAGS_$(f)) -Wno-error -DMUTANT_$(BUG)=1 -c -o $(mutant_folder)/$(subst /,-,$(f)).o $(f) &&) true
	@$(if $(filter trainer,$(mutant_part)),$(CXX),$(CC)) $(LDFLAGS_ALL) -o $(mutant_folder)/$(notdir $(TEST)) $(if $(mutant_test),,$(BUILD)/obj/tests/unit/$(TEST).c.o) \
	    $(patsubst %,$(mutant_folder)/%.o,$(subst /,-,$(mutant_src))) $(filter %.a,$(archives_$(mutant_part))) -lcmocka $(LIBS_$(mutant_part))
check-mutants:
	@$(PYTHON) tests/mutants.py --make '$(MAKE)' --jobs $(JOBS) --build $(BUILD)

# ---- the same with another compiler, and under the sanitizers
check-clang:
	@$(MAKE_AGAIN) -j$(JOBS) CC=clang CXX=clang++ BUILD=build-clang NVCC= compile
	@$(MAKE_AGAIN) CC=clang CXX=clang++ BUILD=build-clang NVCC= check-unit
check-asan:
	@$(MAKE_AGAIN) -j$(JOBS) FLAVOUR=asan NVCC= compile
	@$(MAKE_AGAIN) FLAVOUR=asan NVCC= check-unit
	@CHAOS_KILLS=10 $(MAKE_AGAIN) FLAVOUR=asan NVCC= check-e2e
	@$(MAKE_AGAIN) FLAVOUR=asan NVCC= check-trainer TRAINER='overlap or killed or reshard'

# ---- format and structure
.PHONY: format format-check check-headers check-layers
CLANG_FORMAT := $(firstword $(shell command -v clang-format-14 clang-format))
format:
	@$(CLANG_FORMAT) -i $(C_FILES)
format-check:
	@$(LINT)/format.py $(CLANG_FORMAT) $(C_FILES)
check-headers: $(BUILD)/gen/proto/ds.pb-c.h $(GENERATED_HEADERS)
	@$(LINT)/headers.py $(filter %.h,$(C_FILES)) -- $(CC) -std=c11 $(DEFS) $(INCLUDES) $(WARN_C) -fsyntax-only
check-layers: $(core_a) $(proto_a) $(lib_a)
	@$(LINT)/layers.py --core $(core_a) --libs $(proto_a) $(lib_a) --sources $(LIB_SRC) $(PROTO_SRC) $(REPORT_SRC) $(CORE_SRC) $(DAEMON_SRC) $(SIM_SRC) \
	    $(WORKER_SRC) $(TRAINER_SRC) $(CUDA_C) $(CTL_SRC) $(LIB_TESTS) $(PROTO_TESTS) $(REPORT_TESTS) $(CORE_TESTS) $(DAEMON_TESTS) $(WORKER_TESTS) \
	    $(TRAINER_TESTS) $(CTL_TESTS)

# ---- the show, and a cluster to play with
.PHONY: demo dev dev-stop bench
demo: deps
	@$(MAKE_AGAIN) -j$(JOBS) all
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/demo/demo.py
dev: deps
	@$(MAKE_AGAIN) -j$(JOBS) all
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/demo/dev.py start
dev-stop:
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/demo/dev.py stop
