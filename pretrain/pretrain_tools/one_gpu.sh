#!/usr/bin/env bash
# Pretrain on one GPU (or, without one, on the CPU).
#
#     bash pretrain/pretrain_tools/one_gpu.sh 200m corpus/pfam_text_document checkpoints/200m [FLAG ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/command.sh"

exec "${PYTHON:-python}" "${COMMAND[@]}"
