#!/usr/bin/env bash
# Pretrain on all GPUs of one machine with torchrun. GPUS is their number (default: 8).

#
#     GPUS=4 bash pretrain/pretrain_tools/one_node.sh 200m corpus/pfam_text_document checkpoints/200m [FLAG ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/command.sh"

exec torchrun --standalone --nproc-per-node "${GPUS:-8}" "${COMMAND[@]}"
