# Sourced after environment.sh: makes .venv-det on top of .venv, once, with mmdet and an mmcv that has its compiled
# operators. They stay out of .venv, where the tests see what a user without them sees.
# Environment: MMCV_WHEELS, see mmcv_with_ops.sh.
base=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
venv="$root/.venv-det"
stamp="$venv/.made"
wanted=$(cd "$root" && cat .venv/.made constraints.txt tools/mmcv_with_ops.sh tools/detection_environment.sh \
    | sha256sum | cut -c 1-64)
if [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ]; then
    echo "== installing into .venv-det"
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    # Behind what .venv-det has itself; with what .venv starts (tools/torchvision_beside_cpu_torch.py).
    echo "import site; site.addsitedir('$base')" \
        > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/zz_base.pth"
    bash "$root/tools/mmcv_with_ops.sh" "$venv/bin/python"
    # mmdet's own requirements name packages that it needs only for augmentations and that hold numpy back.
    "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" --no-deps onedl-mmdetection pycocotools \
        terminaltables shapely six imaug scikit-image lazy-loader imageio
    echo "$wanted" > "$stamp"
fi
python="$venv/bin/python"
