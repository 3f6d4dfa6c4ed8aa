#!/usr/bin/env bash
# Make the environment and run the tests: bash tools/test.sh [--all] [arguments of pytest]
#
# --all adds the extra "cls" (mmpretrain, torchvision) to the environment and runs the tests that need it, and all
# configs of the segmentation zoo instead of a selection.
set -euo pipefail
extras=dev
if [ "${1:-}" = --all ]; then
    extras=dev,cls
    shift
else
    set -- -m 'not cls and not zoo' "$@"
fi
EXTRAS=$extras source "$(dirname "$0")/environment.sh"
cd "$root"
"$python" -m ruff check .
"$python" -m pytest "$@"
