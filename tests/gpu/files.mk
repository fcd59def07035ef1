# The CUDA back end's checks (docs/gpu.md). check-emulated runs its kernels on the CPU and is part of `make check`; check-gpu and bench-gpu
# want a GPU.
.PHONY: check-emulated
CHECKS += check-emulated
CHECK_SHARED := tests/gpu/check.c tests/gpu/check_ops.c tests/gpu/check_mixture.c tests/gpu/check_quantise.c tests/gpu/check_rows.c \
    tests/gpu/check_grouped.c tests/gpu/plain_gemm.c

# Emulated: the kernels by the C++ compiler, over tests/gpu/emulate.hh.
emulated := $(BUILD)/tests/check_emulated
EMULATED_CU := $(CUDA_CU)
EMULATED_C := $(CHECK_SHARED) tests/gpu/emulated_main.c trainer/cuda/ops.c trainer/cuda/linear.c trainer/cuda/attention.c
emulated_obj := $(patsubst %,$(BUILD)/emulated/%.o,$(EMULATED_CU) tests/gpu/emulate.cc)
$(emulated_obj): $(BUILD)/emulated/%.o: % $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(CXX) $(CXXFLAGS_ALL) -O2 -fno-strict-aliasing -Wall -Wextra -Wno-unknown-pragmas -Wno-uninitialized -Wno-maybe-uninitialized -Wno-psabi -Werror -DDEVICE_EMULATION='"tests/gpu/emulate.hh"' -x c++ -c -o $@ $<
$(emulated): $(call obj,$(EMULATED_C)) $(emulated_obj) $(trainer_a) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_lib) -ldl
CHECK_PROGRAMS += $(emulated)
check-emulated: $(emulated)
	@$(emulated)
-include $(shell find $(BUILD)/emulated -name '*.d' 2>/dev/null)
