#!/usr/bin/env bash
# Finetunes a converted model on a task and evaluates every saved epoch, the last included:
#   para.sh TASK BS EPOCHS LR WARMUP [SAVE_FREQ] [-- OPTIONS OF tape_train.py]
#
# TASK is ss, cc, rh, fl or st; SAVE_FREQ is 5 epochs by default. The run directory is
# ./results/TASK/LONG_TASK_transformer_task-TASK-bs-BS-ep-EPOCHS-lr-LR; each epoch's scores are in its eval_SPLIT.json.
# Environment: MODEL (models/out/), MODEL_TYPE (transformer), DATA_DIR (./data), PYTHON (the interpreter).
# MODEL= (empty) starts from new weights.
set -euo pipefail
# shellcheck source=scripts/shells/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
split_arguments "$@"
if (( ${#given[@]} < 5 || ${#given[@]} > 6 )); then
    usage "TASK(ss|cc|rh|fl|st) BS EPOCHS LR WARMUP [SAVE_FREQ] [-- OPTIONS]"
fi

find_python
short="${given[0]}"
choose_task "$short"
model="${MODEL-models/out/}"
model_type="${MODEL_TYPE:-transformer}"
data="${DATA_DIR:-./data}"
output="./results/$short"
name="task-$short-bs-${given[1]}-ep-${given[2]}-lr-${given[3]}"

run "$python" "$root/tape_train.py" "$model_type" "$task" ${model:+--from_pretrained "$model"} --data_dir "$data" \
    --batch_size "${given[1]}" --num_train_epochs "${given[2]}" --learning_rate "${given[3]}" \
    --warmup_steps "${given[4]}" --save_freq "${given[5]:-5}" --output_dir "$output" --time_or_name "$name" \
    ${options[@]+"${options[@]}"}

directory="$output/${task}_${model_type}_$name"
present="$(present_splits "$data")"
for epoch in $(cd "$directory" && ls -d [0-9]* | sort -n); do
    for split in $present; do
        run "$python" "$root/tape_eval.py" "$model_type" "$task" "$directory/$epoch" --data_dir "$data" \
            --split "$split" --metrics "${metrics[@]}" ${evaluation[@]+"${evaluation[@]}"}
    done
done
