#!/usr/bin/env bash
# Everything that waits for a GPU: one of the H100's class, with JAX for CUDA and PyTorch.
#
#     bash benchmarks/gpu_session.sh step    both networks beside PyTorch, then each lever alone
#     bash benchmarks/gpu_session.sh peers   more batches, no command buffers, PyTorch autotuned
#     bash benchmarks/gpu_session.sh run     whole runs, inference in bulk
#     bash benchmarks/gpu_session.sh scout      docs/ferplus.md: a short look at the main choices
#     bash benchmarks/gpu_session.sh recipe     docs/ferplus.md: full networks, a narrow student
#     bash benchmarks/gpu_session.sh ablations  docs/ferplus.md: what each choice is worth
#     bash benchmarks/gpu_session.sh precision  docs/ferplus.md: float32 and bfloat16, curves
#
# Each part ends within nine minutes (LIMIT, in seconds, says otherwise). What was measured lies in
# benchmarks/results (RESULTS), and packed in $OUT/results.tar.gz if OUT is set; "step" and "peers"
# go on where they were stopped, if those files are back in benchmarks/results by then. A row that
# takes over 240 seconds (ROW_LIMIT) counts as failed, and all that a failed one said stays beside
# the rows; MORE_ROWS=--again tries what failed anew. Levers that pay are tried together by
# LEVERS="pad8+still pad8+bits8" in front of "step". Where there is no git, COMMIT=abc1234 in front
# names the code. The other parts leave their logs and tables in $OUT/PART.tar.gz, and "recipe" its
# weights in an archive each: eight files at most.
#
# On a CPU everything can be rehearsed with narrow networks; the files lie in runs/rehearsal then:
#     WIDTH=0.1 BATCH=2 BATCHES=4 ROW_SECONDS=0.1 bash benchmarks/gpu_session.sh step
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
end=$((SECONDS + ${LIMIT:-510}))
results=${RESULTS:-${WIDTH:+runs/rehearsal}}
results=${results:-benchmarks/results}
mkdir -p "$results"

# A machine with an NVIDIA GPU measures that, or fails: never its CPU without a word.
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}
fi
# Of the device's memory JAX takes three quarters unless it is told; PyTorch takes what it needs.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}

keep() {
    if [ -z "${OUT:-}" ] || [ -z "$1" ]; then return; fi
    case "$1" in
    step | peers | run)
        tar -C "$results" -czf "$OUT/results.tar.gz" .
        return
        ;;
    recipe)
        for folder in runs/recipe/weights/*/; do
            if [ -d "$folder" ]; then tar -C runs/recipe/weights -cf "$OUT/$(basename "$folder").tar" "$(basename "$folder")"; fi
        done
        ;;
    esac
    find "runs/$1" -name '*.log' -o -name '*.jsonl' -o -name scores.json -o -name config.json \
        -o -name precision.json -o -name precision.png -o -name ablations.json | tar -czf "$OUT/$1.tar.gz" -T -
}
trap 'keep "${1:-}"' EXIT

# Rows in order of importance: what comes after a "then" is measured after what stands before it.
rows() {
    local left=$((end - SECONDS))
    if [ "$left" -gt 20 ]; then
        python3 benchmarks/train_step.py --seconds="${ROW_SECONDS:-3}" --limit="$left" \
            --row_limit="${ROW_LIMIT:-240}" --width="${WIDTH:-1}" --output="$results" \
            ${MORE_ROWS:-} "$@"
    fi
}

within() {
    local left=$((end - SECONDS))
    if [ "$left" -gt 20 ]; then timeout "$left" "$@"; fi
}

# A run that is asked to stop has a minute to save.
train() {
    faces="${FACES:-data/ferplus.npz}"
    python3 "$@" --seconds=$((end - SECONDS - 60)) --overrides data.source=arrays \
        data.dir="$faces" ${EPOCHS:+num_epochs="$EPOCHS"} ${MORE:-}
}

# The sizes of an H200; BATCH alone is for all.
simplenet=(--network=simplenet --precision=bfloat16 --batch="${BATCH:-1024}")
vgg16=(--network=vgg16 --precision=bfloat16 --batch="${BATCH:-256}")
# "direct" is on a GPU the very program that "ours" is: what parts the two is chance.
levers="direct pad8 bits8 pad8+bits8 remat scatterpool pad8+still+bits8 still bf16norm in4+pad8 rbg scan8 nodonate"
case "${1:-}" in
step)
    python3 benchmarks/flops.py | grep training
    within python3 benchmarks/bandwidth.py --gigabytes="${GIGABYTES:-4}" | tee "$results/bandwidth.txt"
    listed=$(printf ',ours:%s' ${LEVERS:-} $levers trusting)
    rows "${simplenet[@]}" --implementation=ours,torch then "${vgg16[@]}" \
        then --network=simplenet --precision=float32 --batch="${BATCH:-512}" \
        then --network=vgg16 --batch="${BATCH:-128}" \
        then "${simplenet[@]}" --implementation="${listed#,}"
    ;;
peers)
    rows "${simplenet[@]}" --batch="${BATCHES:-2048,512}" --implementation=ours,torch \
        then "${vgg16[@]}" --batch="${BATCHES:-512,128}" \
        then "${vgg16[@]}" --implementation=ours:pad8 \
        then "${simplenet[@]}" --batch="${BATCHES:-4096,256}" --implementation=ours,torch
    # The caller's flag, not the project's: no list of what becomes a command buffer.
    XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_command_buffer=" \
        rows "${simplenet[@]}" --implementation=ours then "${vgg16[@]}"
    # Autotuning takes minutes.
    ROW_LIMIT=${ROW_LIMIT:-300} rows "${simplenet[@]}" --implementation=torch:max-autotune
    ;;
run)
    # Feeds train by the same program, and how long it compiles is no figure here; private, for who
    # writes there could run code.
    mkdir -p -m 700 runs/compiled
    export JAX_COMPILATION_CACHE_DIR="$PWD/runs/compiled"
    within python3 benchmarks/train_run.py --config="${CONFIG:-configs/simplenet.py}" \
        --faces="${COUNT:-102400}" --set batch_size="${BATCH:-1024}" --set data.holdout=0 \
        --output="$results"
    within python3 benchmarks/bulk_inference.py --faces="${BULK:-65536}" \
        --pictures="${PICTURES:-20000}" --batch ${BULK_BATCHES:-256 4096} \
        --output="$results/bulk_inference.json"
    ;;
recipe)
    train benchmarks/recipe.py --seeds="${SEEDS:-0,1,2}"
    ;;
scout)
    # What may hinder a network most: which long run is worth its minutes.
    EPOCHS=${EPOCHS:-20} train benchmarks/ablations.py --seeds="${SEEDS:-0}" --output=runs/scout \
        --only="${ONLY:-base,no-sam,half-dropout,no-dropout,no-mixup,no-cameras,muon}"
    ;;
ablations)
    train benchmarks/ablations.py --seeds="${SEEDS:-0,1,2}" ${ONLY:+--only="$ONLY"}
    ;;
precision)
    train benchmarks/precision.py --seeds="${SEEDS:-0,1,2}"
    ;;
*)
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "$0"
    exit 2
    ;;
esac
