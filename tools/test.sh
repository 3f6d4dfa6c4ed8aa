#!/usr/bin/env bash
# Make the environment and run the tests: bash tools/test.sh [--all] [arguments of pytest]
#
# --all adds the extras "cls" (mmpretrain, torchvision), "export" (ONNX), "hf", "timm" and "smp" (teachers from
# elsewhere), "lightning" (loops from elsewhere) and "docs" (Sphinx) to the environment and runs the tests that need
# them, all configs of the segmentation zoo instead of a selection, and the test of the release (builds wheel and sdist,
# installs the wheel elsewhere); then, in .venv-det, which lies on top of it, those that need the extra "det" (mmdet,
# mmcv with operators).
set -euo pipefail
extras=dev all=0
if [ "${1:-}" = --all ]; then
    extras=dev,cls,export,hf,lightning,timm,smp,docs all=1
    shift
else
    set -- -m 'not (cls or det or docs or export or hf or lightning or release or smp or timm or zoo)' "$@"
fi
EXTRAS=$extras source "$(dirname "$0")/environment.sh"
cd "$root"
"$python" -m ruff check .
"$python" -m pytest "$@"
if [ $all = 1 ]; then
    source "$(dirname "$0")/detection_environment.sh"
    # 5: arguments that name no test of detectors.
    "$python" -m pytest -m det "$@" || [ $? = 5 ]
fi
