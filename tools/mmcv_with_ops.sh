#!/usr/bin/env bash
# Install mmcv with its compiled operators, which mmdet needs and no wheel on PyPI has: bash tools/mmcv_with_ops.sh [PYTHON]
#
# They are built from the source distribution (7 minutes on two cores, half an hour on one), for CPU unless CUDA_HOME is
# set, and the wheel (2 MB) is kept outside of the checkout: the next environment of the same Python and torch takes it
# from there.
# Argument: the interpreter to install for (default: the .venv of this project, else python3).
# Environment: MMCV_WHEELS, where wheels are kept (default: ~/.cache/mmseg_kd/mmcv); MAX_JOBS, compilers at a time.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${1:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}
version=$(sed -n 's/^onedl-mmcv==//p' "$root/constraints.txt")
if "$python" -c 'import mmcv._ext' 2> /dev/null; then
    echo "mmcv has its operators already"
    exit 0
fi
# A build fits one version of Python and of torch.
fits=$("$python" -c 'import sys, platform, torch
print(f"cp{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}-{platform.machine()}")')
[ -z "${CUDA_HOME:-}" ] || fits="$fits-cuda"
folder="${MMCV_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/mmseg_kd/mmcv}/$fits"
wheel=$(ls "$folder/onedl_mmcv-$version-"*.whl 2> /dev/null || true)
if [ -z "$wheel" ]; then
    echo "== building mmcv $version with operators (7 minutes on two cores); log: $folder/build.log"
    mkdir -p "$folder"
    partial=$(mktemp -d "$folder/partial.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    # The build looks at the torch of the environment itself, so nothing is isolated; mmcv's pyproject.toml wants
    # setuptools 77 or newer, its setup.py pkg_resources, which setuptools had until 81.
    "$python" -m venv --system-site-packages "$partial/venv"
    # All folders of packages, since an environment may lie on top of another.
    "$python" -c 'import sys; print(*(path for path in sys.path if path.endswith(("site-packages", "dist-packages"))), sep="\n")' > \
        "$("$partial/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/base.pth"
    build="$partial/venv/bin/python"
    "$build" -m pip install -q --upgrade 'setuptools>=77,<81' wheel ninja psutil
    # -g0: without debugging symbols, which are 98 % of the library.
    PATH="$partial/venv/bin:$PATH" MMCV_WITH_OPS=1 FORCE_CUDA=$([ -n "${CUDA_HOME:-}" ] && echo 1 || echo 0) \
        CFLAGS=-g0 CXXFLAGS=-g0 MAX_JOBS=${MAX_JOBS:-$(nproc)} "$build" -m pip wheel -v --no-cache-dir \
        --no-build-isolation --no-deps --no-binary onedl-mmcv "onedl-mmcv==$version" -w "$partial" \
        > "$folder/build.log" 2>&1 || { tail -n 20 "$folder/build.log" >&2; exit 1; }
    # Without torch in sight mmcv builds itself without operators, and is content.
    [ -z "$(ls "$partial"/onedl_mmcv-*-none-any.whl 2> /dev/null)" ] || {
        echo "mmcv was built without operators; see $folder/build.log" >&2; exit 1; }
    # Whole or not at all: another process may look.
    mv "$partial"/onedl_mmcv-*.whl "$folder/"
    wheel=$(ls "$folder/onedl_mmcv-$version-"*.whl)
fi
echo "== installing $wheel"
"$python" -m pip install -q --no-deps --force-reinstall "$wheel"
"$python" -c 'import mmcv._ext'
