#!/usr/bin/env bash
# Build the documentation site and say where it is: bash tools/docs.sh [--open]
# Environment: MMSEG_KD_REPOSITORY, the repository's address on the web, for links to files (default: git's origin).
set -euo pipefail
EXTRAS=docs source "$(dirname "$0")/environment.sh"
cd "$root"
"$python" -m sphinx -W --keep-going -q -b html docs docs/_build/html
page="$root/docs/_build/html/index.html"
echo "The documentation: file://$page"
if [ "${1:-}" = --open ]; then
    "$python" -m webbrowser "file://$page"
fi
