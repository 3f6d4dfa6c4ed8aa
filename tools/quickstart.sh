#!/usr/bin/env bash
# From nothing to a distilled segmentor that gains: installs, draws mini-Cityscapes, and trains a small network five times:
# on 24 labelled pictures; on these for longer, as long as a distilled run takes; distilled by KD and by DKD from a trained
# teacher that comes with the repository, on the same 24 labelled pictures and 376 without labels; and on all 400 labels.
# It ends with a table, a picture and a report under work_dirs/quickstart/. Runs that are finished are not repeated.
#
#   bash tools/quickstart.sh [--seeds "0 1 2"] [--methods "kd dkd"] [--short]
#
# --short trains for a few iterations only, to see that everything runs; its scores mean nothing.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
cd "$root"
out=work_dirs/quickstart seeds=0 methods="kd dkd" iters=300 longer=550 images="400 100" few=24 options=()
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) seeds=$2; shift 2 ;;
        --methods) methods=$2; shift 2 ;;
        --short) out=work_dirs/quickstart_short iters=20 longer=30 images="40 19" few=8 options=(teacher_check=False); shift ;;
        *) echo "usage: $0 [--seeds \"0 1 2\"] [--methods \"kd dkd\"] [--short]" >&2; exit 2 ;;
    esac
done
started=$SECONDS
data=$out/mini_cityscapes on=mini-cityscapes-128x256
teacher=deeplabv3plus_r18-w24-d8_$on
student=fcn_r18-w16-d8_$on
pair=deeplabv3plus-r18-w24-d8_fcn-r18-w16-d8_$on
source tools/analysis/train_once.sh

mkdir -p "$out"
read -r num_train num_val <<< "$images"
"$python" tools/dataset_converters/mini_cityscapes.py "$data" --num-train "$num_train" --num-val "$num_val" \
    --size 128 256 --workers 2
evaluate teacher "$teacher" "configs/demo/teacher/$teacher.pth" "$data"

learn() {  # learn NAME CONFIG ITERATIONS key=value ...
    local name=$1 config=$2 iterations=$3
    shift 3
    train_on "$data" "$iterations" "$name" "$config" train_cfg.val_interval=100 default_hooks.logger.interval=10 \
        randomness.seed="$seed" "$@"
}

alone="student alone, $few labels"
rows=("teacher=$out/teacher" "$alone=" "the same, trained as long as KD=")
for method in $methods; do rows+=("${method^^}, the same labels and $((num_train - few)) pictures without="); done
rows+=("student alone, all $num_train labels=")
for seed in $seeds; do
    learn "alone_s$seed" "$student" "$iters" train_dataloader.dataset.indices="$few"
    rows[1]+="$out/alone_s$seed,"
    learn "longer_s$seed" "$student" "$longer" train_dataloader.dataset.indices="$few"
    rows[2]+="$out/longer_s$seed,"
    i=3
    for method in $methods; do
        more=(--unlabelled "$data/leftImg8bit/train")
        learn "${method}_s$seed" "${method}_$pair" "$iters" train_dataloader.dataset.indices="$few" "${options[@]}"
        more=()
        rows[i]+="$out/${method}_s$seed,"
        i=$((i + 1))
    done
    learn "all_s$seed" "$student" "$iters"
    rows[i]+="$out/all_s$seed,"
done

echo
"$python" -W ignore tools/analysis/compare.py "${rows[@]%,}" --baseline "${rows[2]%%=*}" --out "$out/table"
first=${seeds%% *}
columns=("teacher=$out/teacher" "student alone=$out/longer_s$first")
for method in $methods; do columns+=("${method^^}=$out/${method}_s$first"); done
"$python" tools/analysis/draw_predictions.py "${columns[@]}" --out "$out/predictions.png" > "$out/predictions.log" 2>&1 \
    || { tail -30 "$out/predictions.log" >&2; exit 1; }
"$python" -W ignore tools/analysis/report.py "${columns[@]:1}" --out "$out/report" > "$out/report.log" 2>&1 \
    || { tail -30 "$out/report.log" >&2; exit 1; }
echo
echo "table:   $out/table.md, $out/table.json"
echo "picture: $out/predictions.png"
echo "report:  $out/report/report.html"
echo "$((SECONDS - started)) s after the install"
