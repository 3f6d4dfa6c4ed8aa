# To be sourced by studies: `train NAME CONFIG key=value ...` trains configs/demo/CONFIG.py into $out/NAME, unless that is
# done; a run that was stopped continues. `train_on DATA ITERATIONS NAME CONFIG key=value ...` does so on a data set, with one
# validation and one checkpoint at the end; what the keys say counts more. Wants $python and $out.
train() {
    local name=$1 config=$2
    shift 2
    [ ! -f "$out/$name/.done" ] || return 0
    echo "== $name ($(date +%H:%M))"
    mkdir -p "$out/$name"
    "$python" tools/train.py "configs/demo/$config.py" --work-dir "$out/$name" --resume --cfg-options "$@" \
        > "$out/$name.log" 2>&1 || { tail -30 "$out/$name.log" >&2; echo "$name failed, see $out/$name.log" >&2; exit 1; }
    touch "$out/$name/.done"
}

train_on() {
    local data=$1 iters=$2 name=$3 config=$4
    shift 4
    train "$name" "$config" train_dataloader.dataset.data_root="$data" val_dataloader.dataset.data_root="$data" \
        test_dataloader.dataset.data_root="$data" train_cfg.max_iters="$iters" train_cfg.val_interval="$iters" \
        default_hooks.checkpoint.interval="$iters" param_scheduler.0.end="$iters" "$@"
}
