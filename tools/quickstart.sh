#!/usr/bin/env bash
# From nothing to a distilled segmentor: installs, makes mini-Cityscapes, trains a teacher and a student alone, distils the
# student, and ends with a table and a picture under work_dirs/quickstart/. Runs that are finished are not repeated.
#
#   bash tools/quickstart.sh [--seeds "0 1 2"] [--methods "kd dkd"] [--short]
#
# --short trains for a few iterations only, to see that everything runs; its scores mean nothing.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
cd "$root"
short= seeds=0 methods="kd dkd" teacher_iters=600 student_iters=500 out=work_dirs/quickstart images="128 100"
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) seeds=$2; shift 2 ;;
        --methods) methods=$2; shift 2 ;;
        --short) short=teacher_check=False teacher_iters=20 student_iters=20 out=work_dirs/quickstart_short images="24 19"; shift ;;
        *) echo "usage: $0 [--seeds \"0 1 2\"] [--methods \"kd dkd\"] [--short]" >&2; exit 2 ;;
    esac
done
data=$out/mini_cityscapes
teacher=pspnet_r18-w32-d8 student=fcn_r18-w16-d8 on=mini-cityscapes-64x128
pair=pspnet-r18-w32-d8_fcn-r18-w16-d8
started=$SECONDS

train() {  # train NAME CONFIG ITERATIONS SEED [key=value ...]
    local name=$1 config=$2 iters=$3 seed=$4
    shift 4
    if [ -f "$out/$name/iter_$iters.pth" ] && [ -f "$out/$name/.done" ]; then
        echo "== $name: done before"
        return
    fi
    echo "== $name: $iters iterations ($((SECONDS - started)) s so far)"
    "$python" tools/train.py "configs/demo/$config.py" --work-dir "$out/$name" --resume --cfg-options \
        train_dataloader.dataset.data_root="$data" val_dataloader.dataset.data_root="$data" \
        test_dataloader.dataset.data_root="$data" train_cfg.max_iters="$iters" train_cfg.val_interval="$iters" \
        default_hooks.checkpoint.interval="$iters" param_scheduler.0.end="$iters" randomness.seed="$seed" "$@" \
        > "$out/$name.log" 2>&1 || { tail -30 "$out/$name.log" >&2; echo "$name failed, see $out/$name.log" >&2; exit 1; }
    touch "$out/$name/.done"
    grep 'mIoU:' "$out/$name.log" | tail -1 | grep -o 'aAcc.*mAcc: [0-9.]*'
}

mkdir -p "$out"
read -r num_train num_val <<< "$images"
"$python" tools/dataset_converters/mini_cityscapes.py "$data" --num-train "$num_train" --num-val "$num_val" --workers 2
train teacher "${teacher}_$on" "$teacher_iters" 0
rows=("student alone=")
for method in $methods; do rows+=("$method="); done
for seed in $seeds; do
    train "student_s$seed" "${student}_$on" "$student_iters" "$seed"
    rows[0]+="$out/student_s$seed,"
    i=1
    for method in $methods; do
        train "${method}_s$seed" "${method}_${pair}_$on" "$student_iters" "$seed" \
            model.teacher.checkpoint="$out/teacher/iter_$teacher_iters.pth" $short
        rows[i]+="$out/${method}_s$seed,"
        i=$((i + 1))
    done
done

echo
"$python" -W ignore tools/analysis/compare.py "teacher=$out/teacher" "${rows[@]%,}" --baseline 'student alone' --out "$out/table"
first=${seeds%% *}
columns=("teacher=$out/teacher" "student alone=$out/student_s$first")
for method in $methods; do columns+=("$method=$out/${method}_s$first"); done
"$python" tools/analysis/draw_predictions.py "${columns[@]}" --out "$out/predictions.png" > "$out/predictions.log" 2>&1 \
    || { tail -30 "$out/predictions.log" >&2; exit 1; }
"$python" -W ignore tools/analysis/report.py "${columns[@]}" --out "$out/report" > "$out/report.log" 2>&1 \
    || { tail -30 "$out/report.log" >&2; exit 1; }
echo
echo "table:   $out/table.md, $out/table.json"
echo "picture: $out/predictions.png"
echo "report:  $out/report/report.html"
echo "$((SECONDS - started)) s after the install"
