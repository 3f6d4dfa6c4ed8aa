#!/usr/bin/env bash
# Run the core tests beside other versions, in an environment of its own: docs/compatibility.md has what was seen.
#
#   [PYTHON=python3.10] bash tools/compatibility.sh FOLDER REQUIREMENT ... [-- ARGUMENT OF PYTEST ...]
#
#   bash tools/compatibility.sh .venv_oldest torch==2.6.0
#   bash tools/compatibility.sh .venv_upstream torch==2.13.0 mmengine==0.10.7 mmsegmentation==1.2.2 mmcv==2.1.0
#
# Without mmcv among the requirements the maintained distributions are installed, as constraints.txt names them. mmcv
# itself is compiled, which takes a C++ compiler and half an hour.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
folder=$1 wanted=() mmcv=
shift
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in mmcv==*) mmcv=$1 ;; *) wanted+=("$1") ;; esac
    shift
done
[ "${1:-}" != -- ] || shift
[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
folder=$(cd "$folder" && pwd)
python="$folder/bin/python"
install() { "$python" -m pip install -q "$@"; }
# setuptools 80 took away what mmcv's own setup needs.
install 'setuptools<80' wheel ninja psutil
# mmsegmentation's numpy: from 2.4 on its Cityscapes evaluation fails.
install "${wanted[@]}" 'numpy<2.4' cityscapesscripts matplotlib numba ftfy regex pytest hypothesis mpmath scipy
if [ -n "$mmcv" ]; then
    install 'setuptools<80'
    MMCV_WITH_OPS=1 PATH="$folder/bin:$PATH" install --no-build-isolation --no-deps "$mmcv"
else
    install $(grep -E '^onedl-mm(engine|cv|segmentation)==' "$root/constraints.txt")
fi
export PYTHONPATH="$root" OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg
cd "$root"
"$python" - <<'END'
import importlib.metadata, platform
print('Python', platform.python_version(), end='')
for name in ('torch', 'numpy', 'mmengine', 'mmcv', 'mmsegmentation', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation'):
    try:
        print(f', {name} {importlib.metadata.version(name)}', end='')
    except importlib.metadata.PackageNotFoundError:
        pass
print()
END
"$python" -m pytest -q -m 'not cls and not det and not export and not release and not zoo' "${@:-tests}"
