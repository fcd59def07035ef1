# Whole-program tests of dstrain, without a coordinator.
.PHONY: check-trainer
CHECKS += check-trainer
TRAINER ?=
check-trainer: all
	@$(PYTEST) tests/trainer $(if $(TRAINER),-k '$(TRAINER)')
