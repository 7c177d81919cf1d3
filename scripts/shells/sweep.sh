#!/usr/bin/env bash
# Chooses a learning rate on validation data, over several seeds:
#   sweep.sh TASK SEEDS LR [LR ...] [-- OPTIONS OF tape_train.py]
#
# TASK is ss, cc, rh, fl or st. Each rate is trained with SEEDS seeds (42, 43, ...; --seed in OPTIONS sets the first)
# in OUTPUT_DIR/LONG_TASK_MODEL_TYPE_lr-LR/seed_NUMBER; the epoch with the lowest validation loss represents a run.
# Rates are ranked by the mean of the task's main metric on the split `valid`; test splits are not read.
# The ranking is written to OUTPUT_DIR/LONG_TASK.csv, best first, and its best rate is printed.
# Environment: MODEL (a model directory to start from; empty: new weights), MODEL_TYPE (transformer), DATA_DIR (./data),
# OUTPUT_DIR (./results/sweep), PYTHON (the interpreter).
set -euo pipefail
# shellcheck source=scripts/shells/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
split_arguments "$@"
if (( ${#given[@]} < 3 )); then
    usage "TASK(ss|cc|rh|fl|st) SEEDS LR [LR ...] [-- OPTIONS]"
fi

find_python
choose_task "${given[0]}"
model="${MODEL-}"
model_type="${MODEL_TYPE:-transformer}"
output="${OUTPUT_DIR:-./results/sweep}"
mkdir -p "$output"
ranking="$output/$task.csv"
unsorted="$(mktemp)"
trap 'rm -f "$unsorted"' EXIT

for rate in "${given[@]:2}"; do
    run "$python" "$root/tape_train.py" "$model_type" "$task" ${model:+--from_pretrained "$model"} \
        --data_dir "${DATA_DIR:-./data}" --learning_rate "$rate" --seeds "${given[1]}" --save_freq improvement \
        --output_dir "$output" --time_or_name "lr-$rate" ${options[@]+"${options[@]}"}
    directory="$output/${task}_${model_type}_lr-$rate"
    awk -F, -v OFS=, -v metric="$headline" -v rate="$rate" -v directory="$directory" \
        '$1 == "valid" && $2 == metric { print rate, $3, $4, $5, directory }' "$directory/summary.csv" >>"$unsorted"
done

{
    echo "learning_rate,valid_$headline,std,n,directory"
    sort -t, -k2,2gr "$unsorted"
} >"$ranking"
sed -n 2p "$ranking" | awk -F, -v task="$task" -v metric="$headline" \
    '{ printf "best of %s: learning rate %s, valid %s %.4f +- %.4f (%d seeds), in %s\n", task, $1, metric, $2, $3, $4, $5 }'
