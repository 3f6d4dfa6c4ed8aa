#!/usr/bin/env bash
# The runs behind docs/neural_collapse.md and its figures: segmentors on mini-Cityscapes, classifiers on digits.
#
#   bash tools/analysis/collapse_study.sh [--tasks "seg cls"] [--out work_dirs/collapse_study]
#
# Environment: PYTHON, an interpreter with the extra "cls" if cls is among the tasks. Runs that are done are not repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python} tasks="seg cls" out=work_dirs/collapse_study
while [ $# -gt 0 ]; do
    case $1 in
        --tasks) tasks=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) echo "usage: $0 [--tasks \"seg cls\"] [--out DIR]" >&2; exit 2 ;;
    esac
done

source tools/analysis/train_once.sh

one_head() {  # one_head WEIGHT: the logit-level loss of DHKD in place of KD's, on the classifier that the labels train
    echo "model.distill.kd.loss._delete_=True model.distill.kd.loss.type=mmseg_kd.BinaryKLNormLoss" \
        "model.distill.kd.loss.temperature=2. model.distill.kd.loss.loss_weight=$1"
}

case " $tasks " in *" seg "*)
    data=$out/mini_cityscapes
    "$python" tools/dataset_converters/mini_cityscapes.py "$data" --num-train 240 --num-val 60
    pair=pspnet-r18-w32-d8_fcn-r18-w16-d8_mini-cityscapes-64x128
    seg() {  # seg NAME CONFIG ITERATIONS key=value ...
        local name=$1 config=$2 iters=$3
        shift 3
        train_on "$data" "$iters" "$name" "$config" train_cfg.val_interval=50 default_hooks.checkpoint.interval=50 \
            optim_wrapper.optimizer.lr=2e-3 "$@"
    }
    seg seg_teacher pspnet_r18-w32-d8_mini-cityscapes-64x128 1500
    teacher=model.teacher.checkpoint=$out/seg_teacher/iter_1500.pth
    seg seg_ce fcn_r18-w16-d8_mini-cityscapes-64x128 600
    seg seg_kd "kd_$pair" 600 "$teacher"
    seg seg_dkd "dkd_$pair" 600 "$teacher"
    seg seg_dgkd "dgkd_$pair" 600 "$teacher"
    seg seg_one_head "kd_$pair" 600 "$teacher" $(one_head 1.)
    seg seg_two_heads "dhkd_$pair" 600 "$teacher" model.distill.dhkd.loss.loss_weight=1.
    "$python" -W ignore tools/analysis/neural_collapse.py CE="$out/seg_ce" KD="$out/seg_kd" DKD="$out/seg_dkd" \
        DGKD="$out/seg_dgkd" "CE + BinaryKL, one head=$out/seg_one_head" "CE + BinaryKL, two heads=$out/seg_two_heads" \
        --images 60 --out "$out/seg" ;;
esac
case " $tasks " in *" cls "*)
    pair=resnet32x4_resnet8x4_digits-8x8
    cls() {  # cls NAME CONFIG key=value ...
        local name=$1 config=$2
        shift 2
        train "$name" "$config" default_hooks.checkpoint.interval=2 default_hooks.checkpoint.max_keep_ckpts=-1 \
            train_cfg.val_interval=2 train_cfg.max_epochs=16 param_scheduler.0.T_max=16 param_scheduler.0.end=16 "$@"
    }
    train cls_teacher resnet32x4_digits-8x8 randomness.seed=0
    teacher=model.teacher.checkpoint=$out/cls_teacher/epoch_20.pth
    cls cls_ce resnet8x4_digits-8x8
    cls cls_dkd "dkd_$pair" "$teacher"
    cls cls_dgkd "dgkd_$pair" "$teacher"
    cls cls_one_head "kd_$pair" "$teacher" $(one_head 1.) model.head.loss.loss_weight=1.
    cls cls_two_heads "dhkd_$pair" "$teacher"
    "$python" -W ignore tools/analysis/neural_collapse.py CE="$out/cls_ce" DKD="$out/cls_dkd" DGKD="$out/cls_dgkd" \
        "CE + BinaryKL, one head=$out/cls_one_head" "CE + BinaryKL, two heads=$out/cls_two_heads" --out "$out/cls" ;;
esac
