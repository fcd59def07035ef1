#!/bin/bash
# On a machine with a GPU: builds, checks and times the CUDA back end, within minutes. Needs the CUDA toolkit, a C compiler and make,
# nothing else. Logs go to $OUT (default build-gpu/out); the last lines are a short table. Exit status: 0 when every check passed.
#   GPU_SANITIZER=no   leaves compute-sanitizer out
set -u
cd "$(dirname "$0")/../.."
build=build-gpu
out=${OUT:-$build/out}
mkdir -p "$out"
command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
export PATH

# What the toolkit lacks may lie in Python's packages: headers and libraries of cuBLAS and NCCL.
toolkit=$(dirname "$(dirname "$(realpath "$(command -v nvcc)")")")
includes="-isystem $toolkit/include"
libs="-L$toolkit/lib64 -L$toolkit/lib -Wl,-rpath,$toolkit/lib64"
if [ ! -e "$toolkit/include/cublasLt.h" ] || [ -z "$(find "$toolkit"/lib* -name 'libcublasLt.so*' 2>/dev/null)" ]; then
    for folder in $(python3 -c 'import nvidia; print(*nvidia.__path__)' 2>/dev/null); do
        for lt in "$folder"/*/lib/libcublasLt.so.*; do
            [ -e "$lt" ] || continue
            here=$(dirname "$lt")
            mkdir -p "$build/links"
            ln -sf "$lt" "$build/links/libcublasLt.so"
            includes="$includes -isystem $here/../include"
            libs="$libs -L$PWD/$build/links -Wl,-rpath,$here"
        done
    done
fi
for nccl in $(python3 -c 'import nvidia; print(*nvidia.__path__)' 2>/dev/null); do
    [ -d "$nccl/nccl/lib" ] || continue
    [ -e "$toolkit/include/nccl.h" ] || includes="$includes -isystem $nccl/nccl/include"
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$nccl/nccl/lib"
done

step() { # name, seconds, command...
    local name=$1 limit=$2 began=$SECONDS rc
    shift 2
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    rc=$?
    echo "$name: status $rc, $((SECONDS - began)) s" | tee -a "$out/steps.log"
    return $rc
}

: >"$out/steps.log"
nvidia-smi >"$out/nvidia-smi.log" 2>&1
worst=0
if ! step build 120 make -j"$(nproc)" DEPS=no BUILD=$build CUDA_INCLUDES="$includes" CUDA_LIBS="$libs" gpu; then
    tail -20 "$out/build.log"
    exit 1
fi
step check 200 $build/tests/check_gpu || worst=1
step nccl 60 $build/tests/check_nccl || worst=1
if [ "${GPU_SANITIZER:-yes}" = yes ] && command -v compute-sanitizer >/dev/null; then
    step memcheck 80 compute-sanitizer --error-exitcode 9 $build/tests/check_gpu small || worst=1
fi
step bench 110 $build/tests/bench_gpu || worst=1
echo
tail -20 "$out/check.log"
tail -5 "$out/nccl.log"
[ ! -e "$out/memcheck.log" ] || tail -3 "$out/memcheck.log"
cat "$out/bench.log"
cat "$out/steps.log"
exit $worst
