#!/usr/bin/env bash
# The eight first measurements on a GPU, one after the other; run it from the checkout, on a machine with one or more.
#
#     benchmarks/gpu.sh OUT [STEP…]        STEP: 1 to 8, all of them by default
#
# OUT gets a log a step; what it says goes into benchmarks/RESULTS.md with the command. Nothing here has run on a GPU
# yet. A step that fails says so and does not keep the others from running. Models have random weights and the shapes
# of Qwen3-0.6B and 4B, so that nothing is downloaded (benchmarks/gpu_models.py makes them).
set -u
out=${1:?give a folder for the logs}
shift
steps=${*:-1 2 3 4 5 6 7 8}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())') || exit 2
if [ "$gpus" = 0 ]; then
    echo "no GPU here: nothing to measure" >&2
    exit 2
fi
mkdir -p "$out"
"$python" "$here/gpu_models.py" "$out/models" || exit 2
small=$out/models/qwen3-0.6b large=$out/models/qwen3-4b

train() { # NAME MODEL KEY=VALUE… : three steps of GRPO on the returns environment
    name=$1 model=$2
    shift 2
    "$python" -m vertigym train "$here/gpu.toml" "name=$name" "model=$model" "output=$out/runs" "$@"
}

measure() { # NUMBER: one of the eight
    case $1 in
    1) train probe "$small" rollout.engine=vllm rollout.vllm.probe_every=1 ;; # probe_mean of three steps
    2) for model in "$small" "$large"; do # µs a token and peak, by dtype, checkpointing and head
        for dtype in float32 bfloat16; do for again in false true; do for head in float32 tf32 bfloat16; do
            [ "$dtype-$head" = float32-tf32 ] && continue
            train "pass-$(basename "$model")-$dtype-$again-$head" "$model" dtype=$dtype \
                gradient_checkpointing=$again head_precision=$head
        done; done; done
    done ;;
    3) "$python" "$here/linear_logprob.py" ;; # beside Liger, CCE and TRL, where they are installed
    4) for group in 1 16; do for prompt in 1024 4096 8192; do # rows alone, and rows that share a prompt and a mask
        "$python" "$here/gpu_attention.py" --prompt $prompt --answer 2048 --group $group
    done; done ;;
    5) for eager in true false; do for dtype in float32 bfloat16; do # sampled tokens a second
        train "vllm-$eager-$dtype" "$small" rollout.engine=vllm rollout.vllm.eager=$eager rollout.dtype=$dtype
    done; done ;;
    6) train refresh "$large" rollout.engine=vllm rollout.dtype=bfloat16 rollout.vllm.memory=0.4 ;; # seconds, memory_mib
    7) [ "$gpus" -ge 2 ] || { echo "two GPUs are needed"; return 1; }
       "$python" -m torch.distributed.run --nproc-per-node 2 -m vertigym train "$here/gpu.toml" \
           name=two-ranks "model=$small" "output=$out/runs" ;;
    8) train stopped "$small" checkpoint.every=1 && rm -r "$out/runs/stopped/checkpoints/step-000003" \
        && time train stopped "$small" checkpoint.every=1 --resume ;; # the last step again, from the disk
    *) echo "no measurement $1: 1 to 8"; return 1 ;;
    esac
}

failed=0
for step in $steps; do
    echo "measurement $step"
    { nvidia-smi --query-gpu=name,driver_version,clocks.sm --format=csv; time measure "$step"; } >"$out/$step.log" 2>&1 \
        || { echo "measurement $step failed: $out/$step.log"; failed=1; }
done
exit $failed
