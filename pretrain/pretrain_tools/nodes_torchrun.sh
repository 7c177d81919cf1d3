#!/usr/bin/env bash
# Pretrain on several machines with torchrun: run this on every machine, with the same arguments.
#   NODES        number of machines
#   NODE_RANK    number of this machine, from 0
#   MASTER_ADDR  name or address of machine 0
#   MASTER_PORT  a free port on it (default: 29500)
#   GPUS         GPUs per machine (default: 8)
#
#     NODES=4 NODE_RANK=0 MASTER_ADDR=node0 bash pretrain/pretrain_tools/nodes_torchrun.sh 3b CORPUS SAVE [FLAG ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/command.sh"
: "${NODES:?set it to the number of machines}" "${NODE_RANK:?set it to the number of this machine, from 0}"
: "${MASTER_ADDR:?set it to the address of machine 0}"

exec torchrun --nnodes "$NODES" --node-rank "$NODE_RANK" --nproc-per-node "${GPUS:-8}" \
    --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}" "${COMMAND[@]}"
