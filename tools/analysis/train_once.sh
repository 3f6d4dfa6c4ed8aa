# To be sourced by studies: `train NAME CONFIG key=value ...` trains configs/demo/CONFIG.py into $out/NAME, unless that is
# done; a run that was stopped continues. Wants $python and $out.
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
