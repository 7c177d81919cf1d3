#!/usr/bin/env bash
# The table of downstream results, from the repository and the data, at the scale of the machine:
#
#   bash scripts/reproduce.sh toy                          a rehearsal on the embedded sample, in minutes
#   bash scripts/reproduce.sh cpu --data ../shared/data    two cores, about 2.5 hours
#   bash scripts/reproduce.sh cpu-8h                       the model of the table in docs/results.md, three seeds
#   bash scripts/reproduce.sh h100-30min                   half an hour of one GPU
#   bash scripts/reproduce.sh 200m pretrain --dry-run      ProteinLM's size; prints the commands of a stage (needs data/)
#   bash scripts/reproduce.sh --help
#
# The settings are in proteinlm/workflow/scales/. After an interruption, the same command continues.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" >/dev/null && pwd)"
# shellcheck source=scripts/setup_env.sh
source "$here/setup_env.sh" run
exec python "$here/reproduce.py" "$@"
