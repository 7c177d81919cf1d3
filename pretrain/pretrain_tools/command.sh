# Sourced by the launchers in this directory: sets COMMAND to the pretraining command for their arguments.
#   MODEL   200m, 3b, 3b_sharded, or the path of a file of flags
#   CORPUS  prefix of the corpus without .bin, or several with weights in one argument: "0.7 A 0.3 B"
#   SAVE    directory of checkpoints; a restarted run resumes from it
#   FLAG    further flags of pretrain_tape.py; they override those of the file

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
    echo "error: no model $1: choose 200m, 3b or 3b_sharded, or give the path of a file of flags" >&2
    exit 1
fi
read -r -a CORPUS <<< "$2"
COMMAND=("$TOOLS/../pretrain_tape.py" "@$FLAGS" --data-path "${CORPUS[@]}"
    --save "$3" --load "$3" --tensorboard-dir "$3/tensorboard" "${@:4}")
