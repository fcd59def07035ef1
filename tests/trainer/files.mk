# Whole-program tests of dstrain, without a coordinator.
.PHONY: check-trainer
CHECKS += check-trainer
TRAINER ?=
check-trainer: all
	@$(PYTEST) tests/trainer $(if $(TRAINER),-k '$(TRAINER)')

# For comparing with what others compute: logits of a checkpoint.
logits_tool := $(BUILD)/tests/tools/logits
CHECK_PROGRAMS += $(logits_tool)
$(logits_tool): $(BUILD)/obj/tests/tools/logits.c.o $(trainer_a) $(proto_a) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_trainer)

# Exports and imports against transformers (tests/reference/files.mk says in which Python).
.PHONY: check-export
check-export: $(reference_ready) all $(logits_tool)
	@$(REFERENCE_PYTHON) tests/reference/check_export.py --bin $(BUILD)/bin --logits $(logits_tool) $(if $(SEED),--seed $(SEED))

# The tokenizer against the package `tokenizers`: tokenizers of every kind, trained on random text, and
# those of TOKENIZERS='a/tokenizer.json b/tokenizer.json'.
tokenize_tool := $(BUILD)/tests/tools/tokenize
CHECK_PROGRAMS += $(tokenize_tool)
$(tokenize_tool): $(BUILD)/obj/tests/tools/tokenize.c.o $(call obj,$(TOKENIZER_SRC)) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_tokenizer) $(LIBS_lib)
# Tokens of a packed corpus, for comparing with what others read.
corpus_tool := $(BUILD)/tests/tools/corpus
CHECK_PROGRAMS += $(corpus_tool)
$(corpus_tool): $(BUILD)/obj/tests/tools/corpus.c.o $(call obj,trainer/data.c) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_lib)
# Packed corpora against Megatron-LM's reader and writer.
.PHONY: check-megatron
check-megatron: $(reference_ready) all $(corpus_tool)
	@$(REFERENCE_PYTHON) tests/reference/check_megatron.py --bin $(BUILD)/bin --tool $(corpus_tool) $(if $(SEED),--seed $(SEED))

.PHONY: check-tokenizer
check-tokenizer: $(reference_ready) $(tokenize_tool)
	@$(REFERENCE_PYTHON) tests/reference/check_tokenizer.py --tool $(tokenize_tool) $(if $(SEED),--seed $(SEED)) $(TOKENIZERS)
# Its text and its scores, likewise.
.PHONY: check-generate
check-generate: all
	@$(REFERENCE_PYTHON) tests/reference/check_generate.py --bin $(BUILD)/bin $(if $(SEED),--seed $(SEED)) $(if $(MODELS),--models $(MODELS))

# Every mesh up to 8 ranks against one rank, and checkpoints from mesh to mesh: minutes. SEED=n repeats one.
.PHONY: check-mesh
check-mesh: all
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/trainer/mesh_matrix.py $(if $(SEED),--seed $(SEED))
