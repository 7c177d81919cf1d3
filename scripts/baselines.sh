#!/usr/bin/env bash
# Baselines without pretraining on real data, beside the published one-hot numbers:
#   baselines.sh DATA_DIR OUT_DIR [MODEL_TYPE] [TASK ...]
#
# MODEL_TYPE is onehot (default) or transformer (small, from random weights). TASK is ss, rh, fl or st (default: all).
# DATA_DIR contains TAPE's folders (scripts/prepare_data.py writes them). The learning rate is chosen on `valid`
# (scripts/shells/sweep.sh, one seed), then SEEDS (3) runs are evaluated on the test set. Their mean and standard
# deviation are written to OUT_DIR/baselines_MODEL_TYPE.csv. Environment: SEEDS, PYTHON (the interpreter).
set -euo pipefail

shells="$(dirname "${BASH_SOURCE[0]}")/shells"
# shellcheck source=scripts/shells/lib.sh
source "$shells/lib.sh"
split_arguments "$@"
if (( ${#given[@]} < 2 )); then
    usage "DATA_DIR OUT_DIR [MODEL_TYPE] [TASK ...]"
fi

find_python
data="${given[0]}" out="${given[1]}" model_type="${given[2]:-onehot}"
chosen=("${given[@]:3}")
if (( ${#chosen[@]} == 0 )); then chosen=(ss rh fl st); fi
mkdir -p "$out"
table="$out/baselines_$model_type.csv"
if [[ ! -e "$table" ]]; then echo "task,split,metric,mean,std,n,learning_rate,published_onehot" >"$table"; fi

# Epochs, batch size and published one-hot score of a task (Rao et al. 2019, table 2).
settings() {
    case "$1" in
        ss) test=cb513 published=.69 options=(--num_train_epochs 4 --batch_size 32) ;;
        rh) test=test_fold_holdout published=.09 options=(--num_train_epochs 20 --batch_size 32) ;;
        fl) test=test published=.14 options=(--num_train_epochs 10 --batch_size 64) ;;
        st) test=test published=.19 options=(--num_train_epochs 5 --batch_size 64) ;;
        *) echo "no baseline for task '$1'; the tasks are ss, rh, fl, st" >&2 && return 2 ;;
    esac
    rates=(1e-3 1e-2)
    if [[ "$model_type" == transformer ]]; then
        rates=(1e-3 3e-4)
        options[1]=2
        options+=(--max_tokens 4096 --config hidden_size=128 --config num_hidden_layers=2 --config intermediate_size=512
            --config num_attention_heads=4 --config max_position_embeddings=2176)
        if [[ "$1" == ss || "$1" == rh ]]; then options+=(--max_length 512); fi
    fi
    options+=(--num_workers 0 --num_log_iter 1000 --log_dir "$out/logs")
}

for short in "${chosen[@]}"; do
    choose_task "$short"
    settings "$short"
    MODEL='' MODEL_TYPE="$model_type" DATA_DIR="$data" OUTPUT_DIR="$out/sweep" \
        "$shells/sweep.sh" "$short" 1 "${rates[@]}" -- "${options[@]}" --overwrite
    best="$(awk -F, 'NR == 2 { print $1 }' "$out/sweep/$task.csv")"
    run "$python" "$root/tape_train.py" "$model_type" "$task" --data_dir "$data" --learning_rate "$best" \
        --seeds "${SEEDS:-3}" --eval_splits "$test" --save_freq improvement --output_dir "$out" \
        --time_or_name baseline "${options[@]}" --overwrite
    awk -F, -v OFS=, -v task="$task" -v held_out="$test" -v metric="$headline" -v rate="$best" -v published="$published" \
        '$1 == held_out && $2 == metric { print task, $1, $2, $3, $4, $5, rate, published }' \
        "$out/${task}_${model_type}_baseline/summary.csv" >>"$table"
done
cat "$table"
