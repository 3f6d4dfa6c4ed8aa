# Sourced by the scripts beside it: makes .venv in the project's root, once, and installs the project with `EXTRAS`,
# names separated by commas. What an earlier call installed stays.
# Environment: PYTHON, the interpreter to make it with (default: python3, 3.10 or newer).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
stamp="$venv/.made"
# Idle OpenMP threads that spin make two torch processes on two cores many times slower.
export OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg

wanted=$(cd "$root" && cat setup.cfg constraints.txt tools/torchvision_beside_cpu_torch.py | sha256sum | cut -c 1-64)
# The stamp: the checksum, and the extras that are installed.
read -r made have 2>/dev/null < "$stamp" || made='' have=''
complete=1 EXTRAS=${EXTRAS:-}
for extra in ${EXTRAS//,/ }; do
    [[ ",$have," == *",$extra,"* ]] || { complete=0; have="${have:+$have,}$extra"; }
done
if [ "$made" != "$wanted" ] || [ $complete = 0 ]; then
    echo "== installing into .venv"
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "mmseg_kd needs Python 3.10 or newer; name one: PYTHON=python3.12 bash $0" >&2; exit 1; }
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    # torch first and by itself: a CPU build that is at hand is kept, a GPU user gets the CUDA build of PyPI.
    "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" torch
    "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" -e "$root${have:+[$have]}"
    [[ ",$have," != *,@(cls|timm|smp),* ]] || "$venv/bin/python" "$root/tools/torchvision_beside_cpu_torch.py"
    echo "$wanted $have" > "$stamp"
fi
python="$venv/bin/python"
