# Comparisons with what others compute. They need torch and transformers, gigabytes, so they are no part of `make check`: that compares with the vectors in
# tests/reference/vectors (test_reference*). The Python they run in is made under $(BUILD) from pinned versions, once; PYTHON_VENV=dir takes a virtual
# environment that exists, REFERENCE_PYTHON=program any Python that has what requirements.txt lists.
reference_venv := $(BUILD)/reference-venv
PYTHON_VENV ?= $(reference_venv)
REFERENCE_PYTHON ?= $(PYTHON_VENV)/bin/python
reference_ready := $(if $(filter $(reference_venv)/bin/python,$(REFERENCE_PYTHON)),$(reference_venv)/made)
$(reference_venv)/made: tests/reference/requirements.txt
	$(call say,VENV,$(@D))rm -rf $(@D) && $(PYTHON) -m venv $(@D) && $(@D)/bin/pip install -q --disable-pip-version-check -r $< && touch $@

# Models, grids of low precision and the optimiser: `make check-reference SEED=7 CASES=100`. The seed is printed, any one when none is given; CASES is the
# number of random models.
.PHONY: check-reference reference-vectors
CASES ?=
reference_tests := $(addprefix $(BUILD)/tests/trainer/,test_reference test_reference_grid test_reference_optim)
check-reference: $(reference_ready) $(reference_tests)
	@$(REFERENCE_PYTHON) tests/reference/reference.py check --tests $(abspath $(BUILD))/tests/trainer $(if $(filter command environment,$(firstword $(origin SEED))),--seed $(SEED)) $(if $(CASES),--cases $(CASES))
# Writes tests/reference/vectors anew.
reference-vectors: $(reference_ready)
	@$(REFERENCE_PYTHON) tests/reference/reference.py write
