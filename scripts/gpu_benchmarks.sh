#!/usr/bin/env bash
# Measures what docs/benchmarks.md says of GPUs, the most important first. Stopped at any moment, it goes on where it was.
#
#   scripts/gpu_benchmarks.sh                  # up to 9 minutes; start it again until it says that all is measured
#   STEPS="esrgan rrdb" scripts/gpu_benchmarks.sh      # only steps whose names hold one of these words
#   DEVICE=cpu STEPS=edsr_base scripts/gpu_benchmarks.sh   # tries the script with tiny networks; its figures say nothing
#
# RESULTS (benchmarks/gpu): STEP.json and STEP.md, STEP.log; a step whose .json is there is done, one with STEP.failed is not
# tried again until that file goes. page.md there is what to put into docs/benchmarks.md.
# PYTHON (python3), LIMIT_S (540), WORK (a folder for data that may be lost). BASICSR_PATH: a folder to put before Python's
# path for the one step that measures BasicSR; without it that step runs only where basicsr can be imported.
set -u
cd "$(dirname "$0")/.."

DEVICE=${DEVICE:-cuda}
RESULTS=${RESULTS:-benchmarks/$([ "$DEVICE" = cuda ] && echo gpu || echo cpu_trial)}
WORK=${WORK:-${TMPDIR:-/tmp}/srkit_gpu_benchmarks_$DEVICE}
PYTHON=${PYTHON:-python3}
LIMIT_S=${LIMIT_S:-540}
STEPS=${STEPS:-}
SECONDS=0
left_over=0
mkdir -p "$RESULTS" "$WORK"

missing=$($PYTHON -c '
import importlib.util as u
names = "torch torchvision numpy cv2 PIL yaml pydantic tensorboard tqdm skimage safetensors nibabel pytest"
print(*[n for n in names.split() if u.find_spec(n) is None])')
[ -z "$missing" ] || echo "not installed, so that some steps will fail: $missing"

if [ "$DEVICE" = cuda ]; then
    $PYTHON -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "no CUDA device; DEVICE=cpu tries the script")' || exit 1
    tiny=() seconds=24
else
    export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    tiny=(--tiny) seconds=0.5
fi

# step NAME AT_MOST_S COMMAND...: runs it unless it is done; the command writes $WORK/NAME/*.json (and .md)
step() {
    local name=$1 most=$2 code
    shift 2
    if [ -n "$STEPS" ]; then
        local word wanted=
        for word in $STEPS; do case $name in *"$word"*) wanted=1 ;; esac; done
        [ -n "$wanted" ] || return 0
    fi
    [ ! -e "$RESULTS/$name.json" ] && [ ! -e "$RESULTS/$name.failed" ] || return 0
    if [ $((SECONDS + most)) -gt "$LIMIT_S" ]; then # a shorter one below may still fit
        left_over=$((left_over + 1))
        return 0
    fi
    echo "--- $name"
    rm -rf "${WORK:?}/$name"
    mkdir -p "$WORK/$name"
    timeout -k 15 "$most" "$@" >"$RESULTS/$name.log" 2>&1
    code=$?
    if [ $code = 0 ] && ls "$WORK/$name"/*.json >/dev/null 2>&1; then
        cp "$WORK/$name"/*.md "$RESULTS/$name.md" 2>/dev/null
        cp "$WORK/$name"/*.json "$RESULTS/.$name" && mv "$RESULTS/.$name" "$RESULTS/$name.json"
    else
        echo "$name failed with $code (124: it took more than $most s); see $RESULTS/$name.log" | tee "$RESULTS/$name.failed"
        tail -n 3 "$RESULTS/$name.log"
    fi
}

# train NUMBER OPTIONS VARIANT [KEY=VALUE or benchmark flag ...]
train() {
    local name=$1-$2-$3 file=$WORK/$2.yml word force=() flags=()
    shift 3
    for word in "$@"; do
        case $word in
        train:cuda_graph=true | train:compile=*) [ "$DEVICE" = cuda ] || return 0 ;;
        esac
        case $word in --*) flags+=("$word") ;; *) force+=("$word") ;; esac
    done
    step "$name" 150 "$PYTHON" scripts/benchmark.py train -opt "$file" --force_yml "${force[@]}" ${flags[@]+"${flags[@]}"} \
        --seconds "$seconds" --out "$WORK/$name"
}

infer() { # NUMBER OPTIONS VARIANT AT_MOST_S FLAGS...
    local name=$1-$2-$3 file=$WORK/$2.yml most=$4
    shift 4
    step "$name" "$most" "$PYTHON" scripts/benchmark.py infer -opt "$file" "$@" --seconds 1 --out "$WORK/$name"
}

tests() { # the claims themselves; a JSON file only when all of them hold
    "$PYTHON" -m pytest -m gpu --durations=8 tests && echo '{"kind": "tests", "passed": true}' >"$WORK/$1/tests.json"
}
export -f tests
export PYTHON WORK

"$PYTHON" scripts/gpu_benchmarks.py make "$WORK" ${tiny[@]+"${tiny[@]}"} || exit 1

[ "$DEVICE" != cuda ] || step 00-tests 500 bash -c 'tests 00-tests'

BF16=train:precision=bf16 FP32=train:precision=fp32 GRAPH=train:cuda_graph=true COMPILE=train:compile=true
basic() { # NUMBER OPTIONS...: what every system has
    local number=$1 options
    shift
    for options in "$@"; do
        train $number $options bf16 $BF16
        train $number $options bf16_graph $BF16 $GRAPH
        train $number $options tf32 $FP32
        number=$((number + 1))
    done
}
basic 10 esrgan edsr_l_48 edsr_base
if [ "$DEVICE" = cuda ] && PYTHONPATH="${BASICSR_PATH:-}${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -c 'import basicsr' 2>/dev/null; then
    step 13-basicsr 240 env PYTHONPATH="${BASICSR_PATH:-}${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" scripts/gpu_benchmarks.py \
        basicsr "$WORK/basicsr" --iterations 200 --out "$WORK/13-basicsr/basicsr.json"
else
    echo "BasicSR is not measured: it cannot be imported here (BASICSR_PATH)"
fi
[ "$DEVICE" != cuda ] || step 14-resume 500 "$PYTHON" scripts/gpu_benchmarks.py resume "$WORK/resume" --out "$WORK/14-resume/resume.json"
for options in edsr_base esrgan; do # crops and flips made in the device's memory
    train 15 $options bf16_graph_resident $BF16 $GRAPH datasets:train:cache=device
done
step 16-edsr_l_48-save 200 "$PYTHON" scripts/benchmark_save.py -opt "$WORK/edsr_l_48.yml" --out "$WORK/16-edsr_l_48-save/save.json" \
    --force_yml name=save train:total_iter=90 logger:save_checkpoint_freq=30 logger:print_freq=30 $BF16
basic 17 rrdb srresnet_edge volumes edsr_l_128
number=30
for options in esrgan edsr_base edsr_l_48 rrdb srresnet_edge volumes edsr_l_128; do
    train $number $options bf16_channels_last $BF16 --channels_last
    train $number $options bf16_channels_first $BF16 --no-channels_last
    train $number $options bf16_compiled $BF16 $COMPILE
    train $number $options bf16_compiled_graph $BF16 $COMPILE $GRAPH
    number=$((number + 1))
done
for options in esrgan edsr_base; do
    train 40 $options bf16_deterministic $BF16 train:deterministic=true
    train 40 $options bf16_graph_deterministic $BF16 $GRAPH train:deterministic=true
done
NVIDIA_TF32_OVERRIDE=0 train 41 edsr_l_48 fp32_without_tf32 $FP32
if [ "$DEVICE" = cuda ]; then
    infer 50 edsr_l_48 picture_of_4096_bf16 300 --size 4096 --tiles 1024 512 256 128 0 --force_yml val:precision=bf16
    infer 51 edsr_l_48 picture_of_4096_fp32 400 --size 4096 --tiles 1024 512 256
    infer 52 volumes whole_brain_fp32 120 --size 128 64 128 --tiles 64 32 0
    infer 53 volumes whole_brain_bf16 120 --size 128 64 128 --tiles 64 32 0 --force_yml val:precision=bf16
else
    infer 50 edsr_base picture 100 --size 64 --tiles 0 32
fi

"$PYTHON" scripts/gpu_benchmarks.py page "$RESULTS" >"$RESULTS/page.md" && echo "page: $RESULTS/page.md"
if [ $left_over -gt 0 ]; then
    echo "$left_over steps are left: start again"
else
    echo "all is measured"
fi
