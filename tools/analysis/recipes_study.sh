#!/usr/bin/env bash
# What makes distillation work: the quickstart's teacher and student under one changed setting at a time, and tables. The
# pictures are others than the quickstart's (seed 2), so that a choice made here is not made on what the quickstart reports.
#
#   bash tools/analysis/recipes_study.sh [--seeds "0"] [--out work_dirs/recipes_study]
#
# Environment: PYTHON. Runs that are finished are not repeated. 25 runs a seed, of two to eight minutes on one core.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python} seeds=0 out=work_dirs/recipes_study
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) seeds=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) echo "usage: $0 [--seeds \"0\"] [--out DIR]" >&2; exit 2 ;;
    esac
done
data=$out/data on=mini-cityscapes-128x256
teacher=deeplabv3plus_r18-w24-d8_$on
student=fcn_r18-w16-d8_$on
pair=deeplabv3plus-r18-w24-d8_fcn-r18-w16-d8_$on
source tools/analysis/train_once.sh
mkdir -p "$out"
"$python" tools/dataset_converters/mini_cityscapes.py "$data" --num-train 400 --num-val 100 --size 128 256 --seed 2
pictures=$data/leftImg8bit/train few=train_dataloader.dataset.indices=24
rows=()

study() {  # study ROW ITERATIONS CONFIG SHARE key=value ...; SHARE of unlabelled pictures in a batch, or 0
    local row=$1 iterations=$2 config=$3 share=$4 name seed
    shift 4
    rows+=("$row=")
    for seed in $seeds; do
        name=$(tr -cs 'a-zA-Z0-9.' '_' <<< "$row")s$seed
        more=()
        [ "$share" = 0 ] || more=(--unlabelled "$pictures" --unlabelled-share "$share")
        train_on "$data" "$iterations" "$name" "$config" randomness.seed="$seed" "$@"
        rows[-1]+="$out/$name,"
    done
    rows[-1]=${rows[-1]%,}
}

other_loss() {  # settings that turn the config of KD into that of another loss
    local loss=$1 setting
    shift
    echo "model.distill.kd.loss.type=mmseg_kd.$loss"
    for setting in "$@"; do echo "model.distill.kd.loss.$setting"; done
}

kd=kd_$pair dkd=dkd_$pair
evaluate teacher "$teacher" "configs/demo/teacher/$teacher.pth" "$data"
rows+=("teacher=$out/teacher")
study 'alone, 24 labels' 300 "$student" 0 $few
study 'alone, 24 labels, longer' 550 "$student" 0 $few
study 'KD, half unlabelled' 300 "$kd" 0.5 $few
study 'KD, no unlabelled pictures' 300 "$kd" 0 $few
study 'DKD, beta 1' 300 "$dkd" 0.5 $few
study 'GDKD, k 3, w 1 1 2' 300 "$kd" 0.5 $few $(other_loss GDKDLoss k=3 w0=1. w1=1. w2=2.)
study 'CWD, T 4' 300 "$kd" 0.5 $few $(other_loss CWDLoss temperature=4. loss_weight=3.)
study 'DHKD' 300 "$kd" 0.5 $few $(other_loss BinaryKLNormLoss temperature=2. loss_weight=0.1) \
    model.dual_head.kind=linear model.distill.kd.on=aux_logits
study 'KD, T 2' 300 "$kd" 0.5 $few model.distill.kd.loss.temperature=2.
study 'KD, T 4' 300 "$kd" 0.5 $few model.distill.kd.loss.temperature=4.
study 'KD, weight 3' 300 "$kd" 0.5 $few model.distill.kd.loss.loss_weight=3.
study 'KD, a quarter unlabelled' 300 "$kd" 0.25 $few
study 'KD, three quarters unlabelled' 300 "$kd" 0.75 $few
study 'KD, no labels' 300 "$kd" 1
study 'DKD, beta 0.25' 300 "$dkd" 0.5 $few model.distill.dkd.loss.beta=0.25
study 'DKD, beta 4' 300 "$dkd" 0.5 $few model.distill.dkd.loss.beta=4.
study 'DKD, target of the teacher' 300 "$dkd" 0.5 $few model.distill.dkd.target=teacher
study 'alone, 400 labels' 300 "$student" 0
study 'KD, 400 labels' 300 "$kd" 0
study 'alone, 400 labels, 900 iterations' 900 "$student" 0
study 'KD, 400 labels, 900 iterations' 900 "$kd" 0
study 'alone, 24 labels, 1650 iterations' 1650 "$student" 0 $few
study 'KD, half unlabelled, 900 iterations' 900 "$kd" 0.5 $few
# A teacher that knows no more than the student: it has learned from the same 24 pictures.
train_on "$data" 550 same_labels "$teacher" randomness.seed=0 train_dataloader.dataset.indices=24
rows+=("teacher of the same 24 labels=$out/same_labels")
study 'KD from that teacher, half unlabelled' 300 "$kd" 0.5 $few model.teacher.checkpoint="$out/same_labels/iter_550.pth"
"$python" -W ignore tools/analysis/compare.py "${rows[@]}" --baseline 'alone, 24 labels, longer' --out "$out/table"
