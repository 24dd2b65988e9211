#!/usr/bin/env bash
# Everything that waits for a GPU: one of the H100's class, with JAX for CUDA and PyTorch.
#
#     bash benchmarks/gpu_session.sh step    the step beside PyTorch, and each lever alone
#     bash benchmarks/gpu_session.sh peers   more batches, float32, VGG16, PyTorch autotuned
#     bash benchmarks/gpu_session.sh run     whole runs, inference in bulk
#     bash benchmarks/gpu_session.sh recipe     docs/ferplus.md: full networks, a narrow student
#     bash benchmarks/gpu_session.sh ablations  docs/ferplus.md: what each choice is worth
#
# Each part ends within nine minutes (LIMIT, in seconds, says otherwise), and goes on where it was
# stopped: what was measured lies in benchmarks/results, and a copy in $OUT if that is set. A lever
# that pays is tried with others by LEVERS="pad8+still pad8+still+bits8" in front of "step".
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
end=$((SECONDS + ${LIMIT:-510}))
results=benchmarks/results
mkdir -p "$results"

keep() {
    if [ -z "${OUT:-}" ]; then return; fi
    cp "$results"/* "$OUT"/ 2>/dev/null
    for folder in runs/recipe/weights/*/; do
        if [ -d "$folder" ]; then tar -C runs/recipe/weights -cf "$OUT/$(basename "$folder").tar" "$(basename "$folder")"; fi
    done
    for job in recipe ablations; do
        if [ -d "runs/$job" ]; then
            find "runs/$job" -name '*.log' -o -name '*.jsonl' -o -name scores.json |
                tar -czf "$OUT/$job.tar.gz" -T -
        fi
    done
}
trap keep EXIT

rows() {
    local left=$((end - SECONDS))
    if [ "$left" -gt 20 ]; then
        python3 benchmarks/train_step.py --seconds=3 --limit="$left" "$@"
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

if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
fi
case "${1:-}" in
step)
    python3 benchmarks/flops.py | grep training
    simplenet=(--network=simplenet --precision=bfloat16)
    rows "${simplenet[@]}" --batch=1024 --implementation=ours,torch
    for levers in pad8 still bits8 bf16norm remat rbg scan8 trusting pad8+still+bits8 ${LEVERS:-}; do
        rows "${simplenet[@]}" --batch=1024 --implementation="ours:$levers"
    done
    rows "${simplenet[@]}" --batch=512,2048 --implementation=ours,torch
    ;;
peers)
    rows --network=vgg16 --precision=bfloat16 --batch=256 --implementation=ours,ours:pad8,torch
    rows --network=simplenet --precision=bfloat16 --batch=1024 --implementation=torch:max-autotune
    rows --network=simplenet --precision=float32 --batch=512 --implementation=ours,torch
    rows --network=vgg16 --precision=float32 --batch=128 --implementation=ours,torch
    rows --network=vgg16 --precision=bfloat16 --batch=128,512 --implementation=ours,torch
    rows --network=simplenet --precision=bfloat16 --batch=256,4096 --implementation=ours,torch
    ;;
run)
    within python3 benchmarks/train_run.py --config=configs/simplenet.py --faces=100000 \
        --set batch_size=1024 --set data.holdout=0 --output="$results/train_run.json"
    within python3 benchmarks/bulk_inference.py --faces=65536 --pictures=20000 --batch 256 4096 |
        tee "$results/bulk_inference.txt"
    ;;
recipe)
    train benchmarks/recipe.py --seeds="${SEEDS:-0,1,2}"
    ;;
ablations)
    train benchmarks/ablations.py --seeds="${SEEDS:-0,1,2}" ${ONLY:+--only="$ONLY"}
    ;;
*)
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
