#!/usr/bin/env bash
# A run of RayZero as a Slurm job: a Ray cluster on the job's nodes, `rayzero train` on it, and everything ended with the job.
#
#   sbatch --nodes=2 --gpus-per-node=8 deploy/slurm/rayzero.sh /data/runs/gsm8k gsm8k model.path=/data/models/qwen
#
# First the folder of the run, which every node must see, then what `rayzero train` takes. The same command again, or the
# end of the job's time, continues the run. Of the environment:
#
#   RAYZERO_BIN   folder with `rayzero`, `ray` and `python` on every node (else .venv/bin where sbatch was called)
#   HEAD_IP       address of the first node by which the others reach it (else the one that Ray finds)
#   RESTARTS      how often a job whose time is over is put in the queue again (else 20)
#SBATCH --job-name=rayzero
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
# Exit codes: those of the run; 1 where there is no Ray cluster, 2 where something is missing, 143 when told to end.
set -euo pipefail

say() { printf 'slurm: %s\n' "$*" >&2; }
refuse() {
  say "$@"
  exit 2
}

[ -n "${SLURM_JOB_ID:-}" ] || refuse "this is a job: sbatch $0 RUN RECIPE [KEY=VALUE]…"
[ $# -ge 2 ] || refuse "sbatch $0 RUN RECIPE [KEY=VALUE]…: a folder that every node sees, and what to train"
run=$1
shift
case $run in /*) ;; *) refuse "RUN $run: give an absolute folder that every node sees" ;; esac
export RAYZERO_BIN=${RAYZERO_BIN:-$SLURM_SUBMIT_DIR/.venv/bin}
[ -x "$RAYZERO_BIN/rayzero" ] || refuse "$RAYZERO_BIN/rayzero is not there: set RAYZERO_BIN to the bin of RayZero's .venv"
run=${run%/}
mkdir -p "$(dirname "$run")"

# ---- the cluster -----------------------------------------------------------------------------------------------------

# A token of this job's, in the home directory, which nodes share: only its owner can read it, and it goes with the job.
# A file of an earlier start of the same job is replaced.
token=$HOME/.rayzero-token.$SLURM_JOB_ID
unset RAY_AUTH_TOKEN
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0
# At its end a node would ask the head, which ends at the same time, to let it go, for half a minute.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
rm -f "$token"
(umask 077 && "$RAYZERO_BIN/python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token")

HEAD_IP=${HEAD_IP:-$("$RAYZERO_BIN/python" -c 'import ray; print(ray.util.get_node_ip_address())')}
# Of the job, so that two jobs on one node do not meet.
HEAD_PORT=$((20000 + SLURM_JOB_ID % 10000))
RAY_FOLDER=/tmp/ray-$SLURM_JOB_ID
export HEAD_IP HEAD_PORT RAY_FOLDER

# What runs on each node until the job ends: Ray, with the cores that Slurm gave. GPUs are those that Slurm shows.
node() {
  local ray='' deadline=$((SECONDS + 300))
  end_node() {
    [ -z "$ray" ] || kill -TERM "$ray" 2>/dev/null || true
    [ -z "$ray" ] || wait "$ray" 2>/dev/null || true
    rm -rf "$RAY_FOLDER"
  }
  trap end_node EXIT
  trap 'exit 143' TERM INT
  local start=(start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_ON_NODE")
  if [ "$SLURM_PROCID" -eq 0 ]; then
    start+=(--head --node-ip-address="$HEAD_IP" --port="$HEAD_PORT" --temp-dir="$RAY_FOLDER" --include-dashboard=false)
  else
    until (: <"/dev/tcp/$HEAD_IP/$HEAD_PORT") 2>/dev/null; do
      [ "$SECONDS" -lt "$deadline" ] || { echo "slurm: $(hostname) found no head at $HEAD_IP:$HEAD_PORT in 300 s" >&2; exit 1; }
      sleep 1
    done
    start+=(--address="$HEAD_IP:$HEAD_PORT")
  fi
  "$RAYZERO_BIN/ray" "${start[@]}" &
  ray=$!
  wait "$ray"
}
export -f node

nodes='' train='' time_is_over=false
end_job() {
  trap '' TERM INT USR1
  [ -z "$train" ] || kill -TERM "$train" 2>/dev/null || true
  [ -z "$train" ] || wait "$train" 2>/dev/null || true
  # Not by a signal to srun, which kills its tasks before they have cleared up. The nodes' step is the job's first.
  [ -z "$nodes" ] || scancel --signal=TERM "$SLURM_JOB_ID.0" 2>/dev/null || true
  [ -z "$nodes" ] || wait "$nodes" 2>/dev/null || true
  rm -f "$token"
}
trap end_job EXIT
trap 'exit 143' TERM INT
trap time_is_over=true USR1

# All cores of the job are each task's, bound to none: Ray's processes share them out.
srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpu-bind=none --export=ALL --kill-on-bad-exit=1 bash -c node \
  >"$run.ray-$SLURM_JOB_ID.log" 2>&1 &
nodes=$!

# All nodes, or none: with some of them the run would be placed as on a smaller cluster.
"$RAYZERO_BIN/python" - "$HEAD_IP:$HEAD_PORT" "$SLURM_JOB_NUM_NODES" <<'PYTHON' &
import logging, sys, time
import ray

address, wanted, deadline, alive = sys.argv[1], int(sys.argv[2]), time.monotonic() + 300, 0
while time.monotonic() < deadline:
    try:
        ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False)
        alive = sum(node["Alive"] for node in ray.nodes())
        ray.shutdown()
    except Exception:  # not there yet, and Ray has many words for it
        pass
    if alive == wanted:
        sys.exit()
    time.sleep(1)
sys.exit(f"slurm: {alive} of {wanted} nodes joined the Ray cluster in 300 s")
PYTHON
joined=$!
wait -n "$joined" "$nodes" || {
  say "no Ray cluster; what its nodes said: $run.ray-$SLURM_JOB_ID.log"
  exit 1
}

# ---- the run ---------------------------------------------------------------------------------------------------------

# On the first node, outside of srun's step, so that the step's resources are Ray's.
"$RAYZERO_BIN/rayzero" train "$@" --address "$HEAD_IP:$HEAD_PORT" --run "$run" &
train=$!
status=0
wait "$train" || status=$?
if $time_is_over; then
  # The signal interrupted the wait. The run ends as after Ctrl-C, with what the next start continues from.
  kill -TERM "$train" 2>/dev/null || true
  status=0
  wait "$train" || status=$?
  train=
  if [ "$status" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${RESTARTS:-20}" ]; then
    say "the job's time is over; in the queue again, where the run continues"
    end_job
    trap - EXIT
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
train=
exit "$status"
