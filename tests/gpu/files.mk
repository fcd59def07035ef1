# The CUDA back end's checks (docs/gpu.md). check-emulated runs its kernels on the CPU and is part of `make check`; check-gpu and bench-gpu
# want a GPU.
.PHONY: check-emulated
CHECKS += check-emulated
CHECK_SHARED := tests/gpu/check.c tests/gpu/check_ops.c tests/gpu/check_mixture.c tests/gpu/check_quantise.c tests/gpu/check_rows.c \
    tests/gpu/check_grouped.c tests/gpu/check_train.c tests/gpu/trained.c tests/gpu/plain_blas.c

FLAGS_tests/gpu/plain_blas.c := -O3

# Emulated: the kernels by the C++ compiler, over tests/gpu/emulate.hh.
emulated := $(BUILD)/tests/check_emulated
EMULATED_CU := $(CUDA_CU)
EMULATED_C := $(CHECK_SHARED) tests/gpu/emulated_main.c tests/gpu/emulated_gemm.c trainer/cuda/ops.c trainer/cuda/linear.c trainer/cuda/attention.c \
    trainer/cuda/no_memory.c
emulated_obj := $(patsubst %,$(BUILD)/emulated/%.o,$(EMULATED_CU) tests/gpu/emulate.cc)
$(emulated_obj): $(BUILD)/emulated/%.o: % $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(CXX) $(CXXFLAGS_ALL) -O2 -fno-strict-aliasing -Wall -Wextra -Wno-unknown-pragmas -Wno-unknown-warning-option -Wno-uninitialized -Wno-maybe-uninitialized -Wno-psabi -Werror -fPIC -DDEVICE_EMULATION='"tests/gpu/emulate.hh"' -x c++ -c -o $@ $<
$(emulated): $(call obj,$(EMULATED_C)) $(emulated_obj) $(trainer_a) $(proto_a) $(lib_a)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS_proto) $(LIBS_lib) -ldl
CHECK_PROGRAMS += $(emulated)
# The same as a plug-in, for tests/trainer/test_backend.py: dstrain runs on it.
emulated_plugin := $(BUILD)/tests/emulated/dsop_cuda.so
$(emulated_plugin): $(call cuda_obj,tests/gpu/emulated_plugin.c tests/gpu/emulated_gemm.c trainer/cuda/ops.c trainer/cuda/linear.c trainer/cuda/attention.c trainer/cuda/no_memory.c lib/err.c) $(emulated_obj)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) -shared -Wl,-Bsymbolic -o $@ $^ -lm
CHECK_PROGRAMS += $(emulated_plugin)
check-trainer: $(emulated_plugin)
check-emulated: $(emulated)
	@$(emulated)
-include $(shell find $(BUILD)/emulated -name '*.d' 2>/dev/null)

# On a GPU; compiled wherever nvcc is. `make gpu` builds all of it with the toolkit, a C compiler and make alone.
ifneq ($(cuda_plugin),)
gpu_check := $(BUILD)/tests/check_gpu
gpu_bench := $(BUILD)/tests/bench_gpu
gpu_nccl := $(BUILD)/tests/check_nccl
GPU_LIB := $(filter-out trainer/cuda/plugin.c trainer/cuda/comm_nccl.c,$(CUDA_C)) $(CUDA_CU) lib/err.c lib/mem.c
# A model and its optimiser, without data, files and coordinator; of what these refer to the linker takes what a training step needs.
GPU_MODEL := $(addprefix trainer/,model.c model_pass.c model_check.c param.c optim.c mesh.c comm_self.c overlap.c later.c rng.c rope.c route.c) \
    $(filter trainer/layer_%,$(TRAINER_SRC)) proto/recipe.c proto/plan_run.c proto/model_params.c lib/buf.c
GPU_CPU := $(filter-out trainer/cpu/blas.c,$(filter trainer/cpu/%,$(TRAINER_SRC)))
$(gpu_check): $(call cuda_obj,$(CHECK_SHARED) tests/gpu/check_gemm.c tests/gpu/gpu_main.c $(GPU_CPU) $(GPU_MODEL) $(GPU_LIB))
$(gpu_bench): $(call cuda_obj,tests/gpu/bench.c tests/gpu/bench_model.c tests/gpu/trained.c $(GPU_MODEL) $(GPU_LIB))
$(gpu_nccl): $(call cuda_obj,tests/gpu/check_nccl.c trainer/cuda/comm_nccl.c $(GPU_LIB))
$(gpu_check) $(gpu_bench) $(gpu_nccl):
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) -Wl,--gc-sections -o $@ $^ $(CUDA_LIBS) -lcublasLt -lcudart_static -lpthread -lrt -ldl -lm
CHECK_PROGRAMS += $(gpu_check) $(gpu_bench) $(gpu_nccl)
gpu: $(cuda_plugin) $(gpu_check) $(gpu_bench) $(gpu_nccl)
check-gpu: $(gpu_check) $(gpu_nccl)
	@$(gpu_check)
	@$(gpu_nccl)
bench-gpu: $(gpu_bench)
	@$(gpu_bench)
else
gpu check-gpu bench-gpu:
	@echo '$@: wants nvcc of CUDA 12.9 or later: $(cuda_missing)' >&2; exit 1
endif
.PHONY: gpu check-gpu bench-gpu
