#!/usr/bin/env bash
# Make the environment and run the tests: bash tools/test.sh [arguments of pytest]
set -euo pipefail
EXTRAS=dev source "$(dirname "$0")/environment.sh"
cd "$root"
"$python" -m ruff check .
"$python" -m pytest "$@"
