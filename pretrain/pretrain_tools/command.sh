# Sourced by the launchers beside it: turns their arguments into the words of the pretraining command, in COMMAND.
#   MODEL   200m, 3b, 3b_sharded, or the path of a file of flags
#   CORPUS  prefix of the corpus without .bin; several with weights in one word: "0.7 A 0.3 B"
#   SAVE    directory of checkpoints; a run that is started again continues from it
#   FLAG    any further flags of pretrain_tape.py; they replace the file's

set -euo pipefail
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

if (($# < 3)); then
    echo "usage: $0 MODEL CORPUS SAVE [FLAG ...]   (MODEL: 200m, 3b, 3b_sharded, or a file of flags)" >&2
    exit 2
fi
FLAGS="$1"
if [[ ! -f "$FLAGS" ]]; then
    FLAGS="$TOOLS/$1.txt"
fi
if [[ ! -f "$FLAGS" ]]; then
    echo "error: no model $1: known are 200m, 3b and 3b_sharded, or give the path of a file of flags" >&2
    exit 1
fi
read -r -a CORPUS <<< "$2"
COMMAND=("$TOOLS/../pretrain_tape.py" "@$FLAGS" --data-path "${CORPUS[@]}"
    --save "$3" --load "$3" --tensorboard-dir "$3/tensorboard" "${@:4}")
