#!/usr/bin/env bash
# Trains with several processes on one machine or several: torchrun with the flags that srkit needs.
#
#   scripts/dist_train.sh PROCESSES -opt FILE [FILE ...] [flags of srkit/train.py]
#
# PROCESSES is the number on this machine, one for each GPU (with num_gpu: 0 any number, on the CPU). Every flag after
# it goes to srkit/train.py. Environment, all optional:
#
#   NNODES          machines (1). Run the same line on each of them.
#   MASTER_ADDR     name of the machine where all of them meet; needed when NNODES is above 1.
#   MASTER_PORT     free port there (29500). One machine alone takes a free port by itself.
#   RUN_ID          any word; two trainings at one address and port need different ones (srkit).
#   MAX_RESTARTS    how often all processes are started again when one dies (0). Above 0, --auto_resume is added, so
#                   that they go on from the newest checkpoint; without it, an experiment would begin anew.
#   PYTHON          the Python to use (python3, or python where there is no python3).
#   OMP_NUM_THREADS threads of each process on the CPU (1, as torchrun's default).
set -euo pipefail

if [[ ! "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  echo "dist_train.sh: found '${1:-}', expected the number of processes on this machine, e.g. dist_train.sh 4 -opt x.yml" >&2
  exit 2
fi
processes=$1
shift
nodes=${NNODES:-1}
restarts=${MAX_RESTARTS:-0}
port=${MASTER_PORT:-29500}
train=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/srkit/train.py
python=${PYTHON:-$(command -v python3 || echo python)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

if [[ $nodes == 1 ]]; then
  meeting=(--standalone)
elif [[ -n "${MASTER_ADDR:-}" ]]; then
  meeting=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$MASTER_ADDR:$port" --rdzv-id "${RUN_ID:-srkit}")
else
  echo "dist_train.sh: NNODES is $nodes and MASTER_ADDR is not set; set it to the name of one of the machines" >&2
  exit 2
fi
if [[ $restarts != 0 && " $* " != *" --auto_resume "* ]]; then
  set -- "$@" --auto_resume
fi
exec "$python" -m torch.distributed.run --nproc-per-node "$processes" --max-restarts "$restarts" "${meeting[@]}" \
  "$train" "$@" --launcher pytorch
