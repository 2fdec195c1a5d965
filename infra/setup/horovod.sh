#!/usr/bin/env bash
# Builds the unmodified Horovod 0.28.1 once per user and (Python, torch) pair and prints the wheel's path. 3 to 5 minutes on 2 cores.
. "$(dirname "$0")/common.sh"

torch=$(sed -n 's/^torch==//p' constraints.txt)
kind="py3.11-torch$torch"
operations=(HOROVOD_CPU_OPERATIONS=GLOO)
# With a CUDA toolkit the all-reduce between GPUs goes through NCCL; gloo stays for CPU tensors and the rendezvous.
if command -v nvcc >/dev/null; then
    kind="$kind-nccl"
    operations+=(HOROVOD_GPU_OPERATIONS=NCCL)
fi
home="$CACHE/horovod/$kind"
wheels=("$home"/horovod-0.28.1-*.whl)
if [ -e "${wheels[0]}" ]; then
    echo "${wheels[0]}"
    exit
fi

say "building Horovod 0.28.1 for $kind into $home (3 to 5 minutes, once)" >&2
mkdir -p "$CACHE/horovod"
work=$(mktemp -d "$CACHE/horovod/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "$(python311)" "$work/env" >&2
uv pip install --quiet --python "$work/env/bin/python" --constraints constraints.txt \
    "torch==$torch" 'setuptools<81' wheel pip cmake==3.25.2 cloudpickle cffi pyyaml psutil packaging >&2

# Horovod asks its compiler for C++14; the headers of this torch need C++17. The last -std on the command line wins.
# It also relies on headers that g++ 13 and later no longer include by themselves.
headers=()
if [ "$(g++ -dumpversion | cut -d. -f1)" -ge 13 ]; then
    headers=(string cstdint cstring stdexcept memory functional thread mutex condition_variable array limits algorithm)
fi
printf '#!/bin/sh\nexec g++ %s "$@" -std=gnu++17\n' "${headers[*]/#/-include }" >"$work/cxx17"
chmod +x "$work/cxx17"

if command -v nvcc >/dev/null; then
    # NCCL is the one that torch brings: its wheel has no name for the linker.
    nccl=$("$work/env/bin/python" -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])')
    mkdir -p "$work/nccl/lib"
    ln -s "$nccl/include" "$work/nccl/include"
    ln -s "$nccl/lib/libnccl.so.2" "$work/nccl/lib/libnccl.so"
    operations+=(HOROVOD_CUDA_HOME="$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")"
        HOROVOD_NCCL_HOME="$work/nccl" HOROVOD_NCCL_LINK=SHARED NVCC_APPEND_FLAGS=-std=c++17)
    # Left at its defaults it asks for GPUs that CUDA 13 no longer knows.
    capabilities=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u | paste -sd, || true)
    operations+=(${capabilities:+HOROVOD_BUILD_CUDA_CC_LIST="$capabilities"})
fi

# make's own variables would reach the build's make through the environment and take its parallelism away.
unset MAKEFLAGS MFLAGS MAKELEVEL
if ! env PATH="$work/env/bin:$PATH" CXX="$work/cxx17" "${operations[@]}" \
    HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
    "$work/env/bin/python" -m pip wheel --no-build-isolation --no-deps --no-cache-dir --wheel-dir "$work/wheel" horovod==0.28.1 \
    >"$work/log" 2>&1; then
    cp "$work/log" "$CACHE/horovod/$kind.log"
    tail -n 30 "$work/log" >&2
    fail "Horovod did not build; the whole log is $CACHE/horovod/$kind.log"
fi
# Moved whole: another build that finished first is as good.
mv -T "$work/wheel" "$home" 2>/dev/null || true
wheels=("$home"/horovod-0.28.1-*.whl)
echo "${wheels[0]}"
