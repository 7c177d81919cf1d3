# To be sourced: the five tasks under their short names. After `choose_task ss`: $task, $folder, $splits (those to
# evaluate on), $metrics (of tape_eval.py), $headline (what is compared between runs; higher is better), $evaluation
# (further options of tape_eval.py).
set -euo pipefail

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
            echo "unknown task '$1'; there are ss, cc, rh, fl, st" >&2
            return 2
            ;;
    esac
    folder="$task"
    if [[ "$1" == cc ]]; then folder=proteinnet; fi
}

# Those of $splits that lie in the data directory $1; names the others.
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
