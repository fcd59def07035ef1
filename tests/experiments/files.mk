# The experiments of docs/recipe.md: an hour or so. make experiments GROUP='main ablation' SEED=2
.PHONY: experiments
GROUP ?=
experiments: all
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/experiments/experiments.py --out $(BUILD)/experiments $(if $(SEED),--seed $(SEED)) $(GROUP)
