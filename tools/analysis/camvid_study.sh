#!/usr/bin/env bash
# Every method against the student alone on photographs of streets (CamVid in Cityscapes' layout), and a table:
#
#   bash tools/analysis/camvid_study.sh DATA [--seeds "0 1 2"] [--methods "kd cwd dkd gdkd dgkd dhkd"] [--iters 400]
#       [--teacher-iters 1500] [--cached "kd cwd"] [--longer "850"] [--every 1] [--out work_dirs/camvid_study]
#
# DATA: folder with leftImg8bit/ and gtFine/. --cached: methods that also learn from an offline teacher (default: none).
# --longer: iterations of the student alone that take the time of a distilled run (tools/benchmarks/distill_step.py measures
# the ratio). --every 8: students learn from every eighth picture, the teacher from all. Environment: PYTHON. Runs that are
# done are not repeated.
set -euo pipefail
usage="usage: $0 DATA [--seeds \"0 1 2\"] [--methods \"kd dkd\"] [--iters 400] [--teacher-iters 1500] [--cached \"kd\"] [--longer \"850\"] [--every 1] [--out DIR]"
[ $# -gt 0 ] && [ -d "$1/leftImg8bit" ] || { echo "$usage: DATA must hold leftImg8bit/ and gtFine/" >&2; exit 2; }
data=$(realpath "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python} seeds="0 1 2" methods="kd cwd dkd gdkd dgkd dhkd" cached="" iters=400 longer="850" teacher_iters=1500 every=1
out=work_dirs/camvid_study
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) seeds=$2; shift 2 ;;
        --methods) methods=$2; shift 2 ;;
        --iters) iters=$2; shift 2 ;;
        --teacher-iters) teacher_iters=$2; shift 2 ;;
        --cached) cached=$2; shift 2 ;;
        --longer) longer=$2; shift 2 ;;
        --every) every=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
done
source tools/analysis/train_once.sh
student=fcn_r18-w16-d8_camvid-120x160 pair=pspnet-r18-w32-d8_fcn-r18-w16-d8_camvid-120x160

camvid() {  # camvid NAME CONFIG ITERATIONS SEED [key=value ...]
    local name=$1 config=$2 iters=$3 seed=$4
    shift 4
    train_on "$data" "$iters" "$name" "$config" randomness.seed="$seed" "$@"
}

camvid teacher pspnet_r18-w32-d8_camvid-120x160 $teacher_iters 0
teacher=model.teacher.checkpoint=$out/teacher/iter_$teacher_iters.pth
if [ -n "$cached" ]; then
    "$python" tools/cache_teacher.py "configs/demo/kd_$pair.py" --out "$out/cache" --scale 240 180 --cfg-options "$teacher" \
        train_dataloader.dataset.data_root="$data"
fi
pictures=()
if [ "$every" != 1 ]; then
    number=$(find -L "$data/leftImg8bit/train" -name '*_leftImg8bit.*' | wc -l)
    pictures=(train_dataloader.dataset.indices="[$(seq -s, 0 "$every" $((number - 1)))]")
fi
declare -A runs
for seed in $seeds; do
    for length in $iters $longer; do
        camvid "alone${length}_s$seed" "$student" "$length" "$seed" "${pictures[@]}"
        runs[alone$length]+=",$out/alone${length}_s$seed"
    done
    for method in $methods; do
        camvid "${method}_s$seed" "${method}_$pair" "$iters" "$seed" "$teacher" "${pictures[@]}"
        runs[$method]+=",$out/${method}_s$seed"
    done
    for method in $cached; do
        camvid "${method}-cached_s$seed" "${method}_$pair" "$iters" "$seed" "$teacher" model.teacher.cache="$out/cache" \
            "${pictures[@]}"
        runs[$method-cached]+=",$out/${method}-cached_s$seed"
    done
done
rows=("teacher=$out/teacher")
for length in $iters $longer; do rows+=("alone, $length iterations=${runs[alone$length]#,}"); done
for method in $methods; do rows+=("${method^^}=${runs[$method]#,}"); done
for method in $cached; do rows+=("${method^^}, offline teacher=${runs[$method-cached]#,}"); done
"$python" -W ignore tools/analysis/compare.py "${rows[@]}" --baseline "alone, $iters iterations" --classes --out "$out/table"
