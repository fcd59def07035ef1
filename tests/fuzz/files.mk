# The parsers of what comes from outside, under libFuzzer: `make fuzz FUZZ_SECONDS=60` (each target; FUZZ=frame for one). New inputs
# gather in build-fuzz/corpus, crashes in build-fuzz/crash-*. `make check` replays the committed corpus with the normal build.
FUZZ_TARGETS := frame jobspec model_config manifest safetensors corpus_index hf_index tokenizer report
FUZZ ?= $(FUZZ_TARGETS)
FUZZ_SECONDS ?= 60
FUZZ_FLAGS := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all

fuzz_replayers := $(FUZZ_TARGETS:%=$(BUILD)/fuzz/replay-%)
CHECK_PROGRAMS += $(fuzz_replayers)
CHECKS += check-fuzz

$(fuzz_replayers): $(BUILD)/fuzz/replay-%: $(BUILD)/obj/tests/fuzz/fuzz_%.c.o $(BUILD)/obj/tests/fuzz/replay.c.o $(BUILD)/proto.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_fuzz) $(LIBS_proto)
$(FUZZ_TARGETS:%=$(BUILD)/fuzz/fuzz-%): $(BUILD)/fuzz/fuzz-%: $(BUILD)/obj/tests/fuzz/fuzz_%.c.o $(BUILD)/proto.a $(BUILD)/lib.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_fuzz) $(LIBS_proto)

# The trainer's readers, without the rest of the trainer.
$(BUILD)/fuzz/replay-safetensors $(BUILD)/fuzz/fuzz-safetensors: $(call obj,trainer/safetensors.c trainer/json_error.c)
$(BUILD)/fuzz/replay-hf_index $(BUILD)/fuzz/fuzz-hf_index: $(call obj,trainer/hf_index.c trainer/json_error.c)
$(BUILD)/fuzz/replay-corpus_index $(BUILD)/fuzz/fuzz-corpus_index: $(call obj,trainer/data.c)
$(BUILD)/fuzz/replay-report $(BUILD)/fuzz/fuzz-report: $(call obj,$(REPORT_SRC))
$(BUILD)/fuzz/replay-tokenizer $(BUILD)/fuzz/fuzz-tokenizer: $(call obj,$(TOKENIZER_SRC))
$(BUILD)/fuzz/replay-tokenizer $(BUILD)/fuzz/fuzz-tokenizer: LIBS_fuzz = $(LIBS_tokenizer)

.PHONY: check-fuzz fuzz
check-fuzz: $(fuzz_replayers)
	@set -e; for t in $(FUZZ_TARGETS); do $(BUILD)/fuzz/replay-$$t $$t tests/fuzz/corpus/$$t 2>$(BUILD)/fuzz/last || { cat $(BUILD)/fuzz/last; exit 1; }; done
fuzz:
	@$(MAKE) --no-print-directory CC=clang FLAVOUR=debug BUILD=build-fuzz CFLAGS='$(FUZZ_FLAGS) -fsanitize=fuzzer-no-link' \
	    LDFLAGS='$(FUZZ_FLAGS)' $(FUZZ:%=build-fuzz/fuzz/fuzz-%)
	@set -e; for t in $(FUZZ); do mkdir -p build-fuzz/corpus/$$t; echo "== fuzz $$t"; \
	    build-fuzz/fuzz/fuzz-$$t -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
	    -verbosity=0 -artifact_prefix=build-fuzz/crash-$$t- build-fuzz/corpus/$$t tests/fuzz/corpus/$$t; done
	@echo 'fuzz: $(words $(FUZZ)) passed, 0 failed'
