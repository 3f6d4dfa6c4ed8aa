#!/usr/bin/env bash
# Make the environment and run the tests: bash tools/test.sh [--all] [arguments of pytest]
#
# --all adds the extras "cls" (mmpretrain, torchvision) and "export" (ONNX) to the environment and runs the tests that
# need them, all configs of the segmentation zoo instead of a selection, and the test of the release (builds wheel and
# sdist, installs the wheel elsewhere).
set -euo pipefail
extras=dev
if [ "${1:-}" = --all ]; then
    extras=dev,cls,export
    shift
else
    set -- -m 'not cls and not export and not release and not zoo' "$@"
fi
EXTRAS=$extras source "$(dirname "$0")/environment.sh"
cd "$root"
"$python" -m ruff check .
"$python" -m pytest "$@"
