#!/usr/bin/env bash
# Pretrain on several machines under Slurm, one task per GPU; the ranks rendezvous through Slurm's variables.
# Five minutes before the time limit, on SIGTERM, or after --exit-duration-in-mins, the run saves a checkpoint and exits.
# The job then requeues itself, with the same job id, until training is finished. It does not requeue if a rank failed,
# if the run exited at an --exit-interval, if it made no progress since the previous start, or after scancel.
#   PROTEINLM   path of the repository, if the job is submitted from another directory
#   PYTHON      the interpreter (default: python)
#
#     sbatch --nodes 4 pretrain/pretrain_tools/nodes_sbatch.sh 3b corpus/pfam_text_document checkpoints/3b [FLAG ...]
#SBATCH --job-name=proteinlm
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --signal=TERM@300
#SBATCH --open-mode=append
#SBATCH --output=proteinlm-%j.log
set -euo pipefail
# Slurm runs a copy of this file, so the others are found relative to the submit directory or PROTEINLM.
HERE="${PROTEINLM:-${SLURM_SUBMIT_DIR:-$PWD}}/pretrain/pretrain_tools"
if [[ ! -f "$HERE/command.sh" ]]; then
    HERE="$(dirname "${BASH_SOURCE[0]}")"
fi
if [[ ! -f "$HERE/command.sh" ]]; then
    echo "error: submit from the repository, or export PROTEINLM=<its path>" >&2
    exit 1
fi
source "$HERE/command.sh"

PYTHON="${PYTHON:-python}"
PROCESSES="${SLURM_NTASKS:?is set by sbatch: start this file by sbatch}"
LAST="$3/latest_checkpointed_iteration.txt"
BEFORE="$(cat "$LAST" 2> /dev/null || echo 0)"

# If the run fails, the job ends here with its exit code. There is no signal trap: scancel must end this script, too.
srun --kill-on-bad-exit=1 "$PYTHON" "${COMMAND[@]}"

STATE="$("$PYTHON" "$TOOLS/../tools/run_state.py" "$PROCESSES" "${COMMAND[@]:1}")"
read -r WORD ITERATION <<< "$STATE"
if [[ "$WORD" != unfinished ]]; then
    echo "$WORD at iteration $ITERATION" >&2
elif ((ITERATION <= BEFORE)); then
    echo "error: this start made no progress beyond iteration $BEFORE: not requeued" >&2
    exit 1
else
    echo "requeued to resume from iteration $ITERATION" >&2
    scontrol requeue "$SLURM_JOB_ID" && exit
    echo "error: not requeued (is requeueing allowed here?): submit the job again; it resumes" >&2
    exit 1
fi
