# Sourced by the scripts beside it: makes .venv in the project's root, once, and installs the project with `EXTRAS`.
# Environment: PYTHON, the interpreter to make it with (default: python3, 3.10 or newer).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
stamp="$venv/.installed"
# Idle OpenMP threads that spin make two torch processes on two cores many times slower.
export OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg

wanted=$(cat "$root/setup.cfg" "$root/constraints.txt" | sha256sum)"${EXTRAS:+ $EXTRAS}"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "== installing into .venv"
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "mmseg_kd needs Python 3.10 or newer; name one: PYTHON=python3.12 bash $0" >&2; exit 1; }
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    # torch first and by itself: a CPU build that is at hand is kept, a GPU user gets the CUDA build of PyPI.
    "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" torch
    "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" -e "$root${EXTRAS:+[$EXTRAS]}"
    echo "$wanted" > "$stamp"
fi
python="$venv/bin/python"
