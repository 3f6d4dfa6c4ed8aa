# To be sourced by studies, which set $python and $out.
#   train NAME CONFIG key=value ...          trains configs/demo/CONFIG.py into $out/NAME, unless that is done; a run that
#                                            was stopped continues
#   train_on DATA ITERATIONS NAME CONFIG key=value ...   the same on a data set, with one validation and one checkpoint at
#                                            the end; what the keys say counts more
#   evaluate NAME CONFIG CHECKPOINT DATA     evaluates a trained network on a data set into $out/NAME, unless that is done
# $more holds further options of tools/train.py, for instance more=(--unlabelled DIR).
more=()

train() {
    local name=$1 config=$2
    shift 2
    run_once "$name" tools/train.py "configs/demo/$config.py" --work-dir "$out/$name" --resume "${more[@]}" \
        --cfg-options "$@"
}

train_on() {
    local data=$1 iters=$2 name=$3 config=$4
    shift 4
    train "$name" "$config" train_dataloader.dataset.data_root="$data" val_dataloader.dataset.data_root="$data" \
        test_dataloader.dataset.data_root="$data" train_cfg.max_iters="$iters" train_cfg.val_interval="$iters" \
        default_hooks.checkpoint.interval="$iters" param_scheduler.0.end="$iters" "$@"
}

evaluate() {
    local name=$1 config=$2 checkpoint=$3 data=$4
    run_once "$name" tools/test.py "configs/demo/$config.py" "$checkpoint" --work-dir "$out/$name" --cfg-options \
        val_dataloader.dataset.data_root="$data" test_dataloader.dataset.data_root="$data"
}

run_once() {  # NAME SCRIPT ...: its output goes to $out/NAME.log, its progress to the terminal
    local name=$1
    shift
    [ ! -f "$out/$name/.done" ] || { echo "== $name: done before"; return 0; }
    echo "== $name ($(date +%H:%M))"
    mkdir -p "$out/$name"
    "$python" "$@" 2>&1 | tee "$out/$name.log" | show_progress
    [ "${PIPESTATUS[0]}" = 0 ] || { tail -30 "$out/$name.log" >&2; echo "$name failed, see $out/$name.log" >&2; exit 1; }
    touch "$out/$name/.done"
}

show_progress() {  # what a Runner logs, as short lines
    sed -u -n -E 's/.*(Iter|Epoch)\((train|val|test)\) +\[ *([^]]*[0-9])\].*eta: ([0-9:]+).*/   step \3, \4 left/p
        s/.*mIoU: ([0-9.]+) .*/   mIoU \1/p; s/.*accuracy\/top1: ([0-9.]+).*/   accuracy \1/p'
}
