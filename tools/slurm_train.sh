#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [flags of train.py]
# Environment: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS; PYTHON (default: python).
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 PARTITION JOB_NAME CONFIG [flags of train.py]" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
# SRUN_ARGS is a list of words.
# shellcheck disable=SC2086
PYTHONPATH="$root:${PYTHONPATH:-}" exec srun -p "$1" --job-name="$2" \
    --gres="gpu:${GPUS_PER_NODE:-4}" --ntasks="${GPUS:-4}" --ntasks-per-node="${GPUS_PER_NODE:-4}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$root/tools/train.py" "$3" --launcher slurm "${@:4}"
