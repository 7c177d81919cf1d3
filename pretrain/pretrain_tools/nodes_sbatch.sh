#!/usr/bin/env bash
# Pretrain on several machines under Slurm, one task a GPU; the tasks find each other by Slurm's own variables.
# Five minutes before its time is over the run saves a checkpoint and ends; submitted again or requeued, it continues.
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
# Slurm runs a copy of this file: the others are found from where the job was submitted, or by PROTEINLM.
HERE="${PROTEINLM:-${SLURM_SUBMIT_DIR:-$PWD}}/pretrain/pretrain_tools"
if [[ ! -f "$HERE/command.sh" ]]; then
    HERE="$(dirname "${BASH_SOURCE[0]}")"
fi
if [[ ! -f "$HERE/command.sh" ]]; then
    echo "error: submit from the repository, or export PROTEINLM=<its path>" >&2
    exit 1
fi
source "$HERE/command.sh"

exec srun --kill-on-bad-exit=1 "${PYTHON:-python}" "${COMMAND[@]}"
