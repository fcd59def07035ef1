# The experiments of docs/recipe.md §5: hours in all on two cores. Some of it: make experiments GROUP='main ablation' SEED=2; a shorter look: STEPS=40
.PHONY: experiments
GROUP ?=
experiments: all
	@DS_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/experiments/experiments.py --out $(BUILD)/experiments \
	    $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS)) $(GROUP)
