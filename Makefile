# Builds everything. `make` programs into build/bin, `make check` all tests that need no GPU, `make demo` the show.
#
# Knobs:
#   FLAVOUR=release|debug|asan|tsan   asan is AddressSanitizer + UndefinedBehaviorSanitizer, tsan ThreadSanitizer; each has a build folder of its own
#   BUILD=dir                    where everything goes (default build, or build-FLAVOUR)
#   CC=gcc|clang CXX=            compilers
#   V=1                          show the commands
#   PREFIX= DESTDIR=             for install
#   DEPS=no                      check, demo, dev, bench: do not look for missing Debian packages
#   NVCC=                        leaves the CUDA back end out; NVCC=path builds it with that compiler
#   MUTANT=name                  builds one deliberate bug in (see tests/mutants.txt); for `make check-mutants` only

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all FORCE
all:

FLAVOUR ?= release
BUILD ?= $(if $(filter release,$(FLAVOUR)),build,build-$(FLAVOUR))
PREFIX ?= /usr/local
DESTDIR ?=
DEPS ?= yes
PYTHON ?= /usr/bin/python3
MUTANT ?=
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)';)

WARN_BOTH := -Wall -Wextra -Wshadow -Wvla -Wwrite-strings -Wformat=2 -Wundef -Werror
WARN_C := $(WARN_BOTH) -Wconversion -Wmissing-prototypes -Wstrict-prototypes -Wold-style-definition
OPT_release := -O2 -g
OPT_debug := -O0 -g
OPT_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
OPT := $(OPT_$(FLAVOUR))
ifeq ($(OPT),)
$(error FLAVOUR=$(FLAVOUR) is none of release, debug, asan, tsan)
endif
DEFS := -D_GNU_SOURCE $(if $(MUTANT),-DMUTANT_$(MUTANT)=1)
INCLUDES := -I. -I$(BUILD)/gen
CFLAGS_ALL = -std=c11 $(OPT) $(DEFS) $(INCLUDES) -fstack-protector-strong -ffp-contract=off -MMD -MP $(CFLAGS)
CXXFLAGS_ALL = -std=c++17 $(OPT) $(DEFS) $(INCLUDES) -MMD -MP $(CXXFLAGS)
LDFLAGS_ALL = $(OPT) -Wl,--as-needed $(LDFLAGS)

# Each folder lists its sources: X_SRC, and its unit tests: X_TESTS.
include lib/files.mk proto/files.mk report/files.mk daemon/files.mk daemon/sim/files.mk worker/files.mk trainer/files.mk ctl/files.mk

obj = $(patsubst %,$(BUILD)/obj/%.o,$(1))
lib_a := $(BUILD)/lib.a
proto_a := $(BUILD)/proto.a
report_a := $(BUILD)/report.a
core_a := $(BUILD)/core.a
daemon_a := $(BUILD)/daemon.a
sim_a := $(BUILD)/sim.a
worker_a := $(BUILD)/worker.a
trainer_a := $(BUILD)/trainer.a
ctl_a := $(BUILD)/ctl.a

LIBS_lib := -lyaml -ljansson -lxxhash -lcrypto -lpthread -lm
LIBS_proto := -lprotobuf-c $(LIBS_lib)
LIBS_report := $(LIBS_proto)
LIBS_daemon := -luv -lsqlite3 $(LIBS_proto)
LIBS_sim := -lz $(LIBS_daemon)
LIBS_worker := -luv -ldl $(LIBS_proto)
LIBS_trainer := -lgloo -lz $(LIBS_tokenizer) $(LIBS_proto) -ldl
LIBS_ctl := $(LIBS_proto)

$(lib_a): $(call obj,$(LIB_SRC))
$(proto_a): $(call obj,$(PROTO_SRC)) $(BUILD)/obj/gen/proto/ds.pb-c.c.o
$(report_a): $(call obj,$(REPORT_SRC))
$(core_a): $(call obj,$(CORE_SRC))
$(daemon_a): $(call obj,$(DAEMON_SRC))
$(sim_a): $(call obj,$(SIM_SRC))
$(worker_a): $(call obj,$(WORKER_SRC))
$(trainer_a): $(call obj,$(TRAINER_SRC))
$(ctl_a): $(call obj,$(CTL_SRC))

PROGRAMS := dsd dssim dsworkerd dsshim dstrain dsctl
BINS := $(addprefix $(BUILD)/bin/,$(PROGRAMS))
all: $(BINS)

$(BUILD)/bin/dsd: $(call obj,daemon/main.c) $(daemon_a) $(core_a) $(proto_a) $(lib_a)
$(BUILD)/bin/dsd: LIBS = $(LIBS_daemon)
$(BUILD)/bin/dssim: $(call obj,daemon/sim/main.c) $(sim_a) $(daemon_a) $(core_a) $(proto_a) $(lib_a)
$(BUILD)/bin/dssim: LIBS = $(LIBS_sim)
$(BUILD)/bin/dsworkerd: $(call obj,worker/main.c) $(worker_a) $(proto_a) $(lib_a)
$(BUILD)/bin/dsworkerd: LIBS = $(LIBS_worker)
$(BUILD)/bin/dsshim: $(call obj,worker/shim_main.c) $(worker_a) $(proto_a) $(lib_a)
$(BUILD)/bin/dsshim: LIBS = $(LIBS_worker)
$(BUILD)/bin/dstrain: $(call obj,trainer/main.c) $(trainer_a) $(report_a) $(proto_a) $(lib_a)
$(BUILD)/bin/dstrain: LIBS = $(LIBS_trainer)
$(BUILD)/bin/dsctl: $(call obj,ctl/main.c) $(ctl_a) $(report_a) $(proto_a) $(lib_a)
$(BUILD)/bin/dsctl: LIBS = $(LIBS_ctl)

# ---- rules
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(CXX) $(CFLAGS_ALL) $(CXXFLAGS_ALL) $(WARN_C)' | cmp -s - $@ || echo '$(CC) $(CXX) $(CFLAGS_ALL) $(CXXFLAGS_ALL) $(WARN_C)' > $@

$(BUILD)/gen/proto/%.pb-c.c $(BUILD)/gen/proto/%.pb-c.h &: proto/%.proto
	@mkdir -p $(BUILD)/gen
	$(call say,PROTOC,$<)protoc-c --c_out=$(BUILD)/gen $<
$(BUILD)/obj/gen/%.c.o: $(BUILD)/gen/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CFLAGS_ALL) -w -c -o $@ $<
# A C file as a string: daemon/schema.sql -> gen/daemon/schema.sql.h with schema_sql[].
$(BUILD)/gen/%.sql.h: %.sql
	@mkdir -p $(@D)
	$(call say,EMBED,$<)(printf 'static const char %s_sql[] =\n' $(basename $(notdir $<)); sed 's/\\/\\\\/g; s/"/\\"/g; s/.*/"&\\n"/' $<; echo ';') > $@
# Per-file flags: FLAGS_<source> = ..., in a files.mk.
$(BUILD)/obj/%.c.o: %.c $(BUILD)/flags $(BUILD)/gen/proto/ds.pb-c.h $(GENERATED_HEADERS)
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CFLAGS_ALL) $(WARN_C) $(FLAGS_$<) -c -o $@ $<
$(BUILD)/obj/%.cc.o: %.cc $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(CXX) $(CXXFLAGS_ALL) $(WARN_BOTH) $(FLAGS_$<) -c -o $@ $<
$(BUILD)/%.a:
	@mkdir -p $(@D)
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^
$(BUILD)/bin/%:
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(if $(filter %/dstrain,$@),$(CXX),$(CC)) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS)

# ---- unit tests: tests/unit/<folder>/test_x.c links that folder's archive and those below it
archives_lib := $(lib_a)
archives_proto := $(proto_a) $(lib_a)
archives_report := $(report_a) $(proto_a) $(lib_a)
archives_core := $(core_a) $(proto_a) $(lib_a)
archives_daemon := $(daemon_a) $(core_a) $(proto_a) $(lib_a)
archives_worker := $(worker_a) $(proto_a) $(lib_a)
archives_trainer := $(trainer_a) $(report_a) $(proto_a) $(lib_a)
archives_ctl := $(ctl_a) $(report_a) $(proto_a) $(lib_a)
LIBS_core := $(LIBS_proto)

define unit_rules
$(1)_test_bins := $$(patsubst tests/unit/%.c,$(BUILD)/tests/%,$$($(2)_TESTS))
$$($(1)_test_bins): $(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.c.o $(archives_$(1))
	@mkdir -p $$(@D)
	$$(call say,LINK,$$@)$$(if $$(filter trainer,$(1)),$$(CXX),$$(CC)) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) $$(filter %.a,$$^) -lcmocka $(LIBS_$(1))
.PHONY: check-unit-$(1)
check-unit-$(1): $$($(1)_test_bins)
	@set -e; for t in $$($(1)_test_bins); do echo "== $$$$t"; $$$$t; done
unit_test_bins += $$($(1)_test_bins)
endef
$(foreach pair,lib:LIB proto:PROTO report:REPORT core:CORE daemon:DAEMON worker:WORKER trainer:TRAINER ctl:CTL,\
  $(eval $(call unit_rules,$(firstword $(subst :, ,$(pair))),$(lastword $(subst :, ,$(pair))))))

.PHONY: check-unit clean
check-unit: $(foreach f,lib proto report core daemon worker trainer ctl,check-unit-$(f))
clean:
	rm -rf build build-*

# ---- missing Debian packages; the checks; the show; installation
.PHONY: deps
deps:
	@$(if $(filter no,$(DEPS)),:,sh etc/deps.sh)

include trainer/cuda/files.mk tests/files.mk etc/install.mk

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
