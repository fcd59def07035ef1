# The CUDA back end, lib/dsop_cuda.so: built where nvcc is, left out with a word where it is not, or when told so with `make NVCC=`.
#   NVCC=path           the compiler, CUDA 12.9 or later; its toolkit is the folder above it
#   CUDA_INCLUDES= CUDA_LIBS=   where cuDNN's and cuBLAS's headers and libraries are, if not in the toolkit
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(if $(NVCC),$(shell realpath $(NVCC))))
CUDA_INCLUDES ?= -isystem $(CUDA_HOME)/include
CUDA_LIBS ?= -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/lib

CUDA_C :=
CUDA_C += trainer/cuda/plugin.c
CUDA_C += trainer/cuda/driver.c
CUDA_C += trainer/cuda/state.c
CUDA_C += trainer/cuda/no_memory.c
CUDA_C += trainer/cuda/ops.c
CUDA_C += trainer/cuda/tensor_map.c
CUDA_C += trainer/cuda/gemm.c
CUDA_C += trainer/cuda/linear.c
CUDA_C += trainer/cuda/attention.c
CUDA_C += trainer/cuda/comm_nccl.c
CUDA_CU :=
CUDA_CU += trainer/cuda/memory.cu
CUDA_CU += trainer/cuda/optimiser.cu
CUDA_CU += trainer/cuda/grids.cu
CUDA_CU += trainer/cuda/quantise.cu
CUDA_CU += trainer/cuda/embed.cu
CUDA_CU += trainer/cuda/norm.cu
CUDA_CU += trainer/cuda/rotary.cu
CUDA_CU += trainer/cuda/softmax.cu
CUDA_CU += trainer/cuda/swiglu.cu
CUDA_CU += trainer/cuda/router.cu
CUDA_CU += trainer/cuda/permute.cu
CUDA_CU += trainer/cuda/loss.cu
CUDA_CU += trainer/cuda/grouped.cu

# Nothing here needs what the rest of the tree does: these rules stand alone, so that a GPU machine with no more than the toolkit, a C
# compiler and make builds the back end and its checks.
CUDA_FLAGS := -O2 -g -ffunction-sections -D_GNU_SOURCE -I. $(CUDA_INCLUDES)
cuda_obj = $(patsubst %,$(BUILD)/cuda/%.o,$(1))
$(BUILD)/cuda/%.c.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) -std=c11 $(CUDA_FLAGS) -fPIC -fvisibility=hidden -ffp-contract=off -MMD -MP $(WARN_C) $(FLAGS_$<) -c -o $@ $<
# sm_90a, in this form: wgmma and setmaxnreg exist for no other target.
$(BUILD)/cuda/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC,$<)$(NVCC) -std=c++17 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a -D_GNU_SOURCE -I. -MMD -MP -Xcompiler -fPIC,-fvisibility=hidden,-Wall -Werror all-warnings -c -o $@ $<

cuda_release := $(if $(NVCC),$(shell $(NVCC) --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\.\([0-9]\).*/\1\2/p'))
cuda_missing := $(if $(NVCC),$(if $(shell [ 0$(cuda_release) -ge 129 ] && echo yes),,$(NVCC) is not of CUDA 12.9 or later),no nvcc)
ifeq ($(cuda_missing),)
cuda_plugin := $(BUILD)/lib/dsop_cuda.so
$(cuda_plugin): $(call cuda_obj,$(CUDA_C) $(CUDA_CU) lib/err.c)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) -shared -Wl,-Bsymbolic -Wl,--exclude-libs,ALL -o $@ $^ $(CUDA_LIBS) -lcublasLt -lcudart_static -lpthread -lrt -ldl
all: $(cuda_plugin)
-include $(shell find $(BUILD)/cuda -name '*.d' 2>/dev/null)
else ifneq ($(origin NVCC),command line)
.PHONY: cuda-left-out
cuda-left-out:
	@printf '  %-7s %s\n' SKIP 'the CUDA back end, dsop_cuda.so: $(cuda_missing)'
all: cuda-left-out
endif
