#!/usr/bin/env bash
# Evaluate in several processes: tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of test.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT; PYTHON (default: python).
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 CONFIG CHECKPOINT GPUS [flags of test.py]" >&2; exit 2; }
# As torchrun itself would set it, and then say so in a box.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root:${PYTHONPATH:-}" exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$3" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$root/tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
