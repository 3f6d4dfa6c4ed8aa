#!/usr/bin/env bash
# Every method against the student alone on scikit-learn's digits, resnet32x4 to resnet8x4, and a table:
#
#   bash tools/analysis/digits_study.sh [--seeds "0 1 2 3 4"] [--out work_dirs/digits_study]
#
# Environment: PYTHON, an interpreter with the extra "cls". Runs that are finished are not repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python} seeds="0 1 2 3 4" out=work_dirs/digits_study
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) seeds=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) echo "usage: $0 [--seeds \"0 1 2 3 4\"] [--out DIR]" >&2; exit 2 ;;
    esac
done
pair=resnet32x4_resnet8x4_digits-8x8
# "equal": w1 = w2 = 1, what GDKD takes for resnet56 and resnet20, instead of 2 and 8, for resnet32x4 and resnet8x4.
methods="kd dkd gdkd gdkd-equal gdkd3 gdkd3-equal dhkd dhkd-align dgkd"

source tools/analysis/train_once.sh

train teacher resnet32x4_digits-8x8 randomness.seed=0
rows=("teacher=$out/teacher" "student alone=" "student alone, twice as long=")
for method in $methods; do rows+=("$method="); done
for seed in $seeds; do
    train "alone_s$seed" resnet8x4_digits-8x8 randomness.seed="$seed"
    rows[1]+="$out/alone_s$seed,"
    # A distilled step takes nearly twice the time.
    train "twice_s$seed" resnet8x4_digits-8x8 randomness.seed="$seed" train_cfg.max_epochs=60 train_cfg.val_interval=60 \
        param_scheduler.0.T_max=60 param_scheduler.0.end=60
    rows[2]+="$out/twice_s$seed,"
    i=3
    for method in $methods; do
        loss=${method%-equal} settings=(model.teacher.checkpoint="$out/teacher/epoch_20.pth")
        [ "$loss" = "$method" ] || settings+=("model.distill.$loss.loss.w1=1." "model.distill.$loss.loss.w2=1.")
        train "${method}_s$seed" "${loss}_$pair" randomness.seed="$seed" "${settings[@]}"
        rows[i]+="$out/${method}_s$seed,"
        i=$((i + 1))
    done
done
"$python" -W ignore tools/analysis/compare.py "${rows[@]%,}" --metric accuracy/top1 --baseline 'student alone' \
    --out "$out/table"
