# Functions shared by the shell scripts; to be sourced. Sets $root (the repository); `find_python` sets $python.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# --- arguments ---------------------------------------------------------------

# Print the comment at the head of the script without its shebang line.
show_help() {
    awk 'NR > 1 { if (!sub(/^# ?/, "")) exit; print }' "$0"
}

# split_arguments "$@": those before `--` go to $given, those after it to $options. --help prints the help and exits.
given=()
options=()
split_arguments() {
    if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
        show_help
        exit 0
    fi
    while (( $# )) && [[ "$1" != "--" ]]; do
        given+=("$1")
        shift
    done
    if (( $# )); then shift; fi
    options=("$@")
}

# usage ARGUMENTS: print the correct command line to stderr and exit with code 2.
usage() {
    echo "usage: $(basename "$0") $1" >&2
    exit 2
}

# --- running commands --------------------------------------------------------

# Set $python to the first of: $PYTHON, the active environment's, the repository's .venv, python3. Exits without torch.
find_python() {
    for python in "${PYTHON:-}" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" "$root/.venv/bin/python" python3; do
        if command -v "$python" >/dev/null; then break; fi
    done
    # Looks for torch without importing it, which would take seconds.
    if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' 2>/dev/null; then
        echo "error: $python has no torch: run 'bash scripts/setup_env.sh run', or name another interpreter in PYTHON" >&2
        exit 1
    fi
}

# Print a command, then run it.
run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

# --- TAPE's five tasks -------------------------------------------------------

# choose_task ss|cc|rh|fl|st: sets $task (full name), $folder (of its data), $splits (test splits), $metrics (for
# tape_eval.py), $headline (the metric that runs are compared by; higher is better) and $evaluation (further options of
# tape_eval.py).
choose_task() {
    splits=(test)
    metrics=(spearmanr)
    headline=spearmanr
    evaluation=()
    case "$1" in
        ss) task=secondary_structure splits=(casp12 ts115 cb513) metrics=(accuracy) headline=accuracy ;;
        rh)
            task=remote_homology splits=(test_fold_holdout test_family_holdout test_superfamily_holdout)
            metrics=(accuracy) headline=accuracy
            ;;
        cc) task=contact_prediction metrics=(accuracy L5) headline=precision_at_l5 evaluation=(--batch_size 8) ;;
        fl) task=fluorescence ;;
        st) task=stability ;;
        *)
            echo "unknown task '$1'; the tasks are ss, cc, rh, fl, st" >&2
            return 2
            ;;
    esac
    folder="$task"
    if [[ "$1" == cc ]]; then folder=proteinnet; fi
}

# present_splits DATA_DIR: print those of $splits that exist there; warn about the others.
present_splits() {
    local split
    for split in "${splits[@]}"; do
        if [[ -e "$1/$folder/${folder}_$split.lmdb" ]]; then
            echo "$split"
        else
            echo "no split $split in $1/$folder: not evaluated" >&2
        fi
    done
}
