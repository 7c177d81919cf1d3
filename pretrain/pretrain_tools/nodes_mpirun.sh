#!/usr/bin/env bash
# Pretrain on several machines with OpenMPI's mpirun, one process per GPU.
#   HOSTFILE     mpirun's list of machines, "node0 slots=8"
#   PROCESSES    number of GPUs of all machines
#   MASTER_ADDR  address of the first machine (default: the first line of HOSTFILE)
#   MASTER_PORT  a free port on it (default: 29500)
#
#     HOSTFILE=hosts PROCESSES=32 bash pretrain/pretrain_tools/nodes_mpirun.sh 200m CORPUS SAVE [FLAG ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/command.sh"
: "${HOSTFILE:?set it to the list of machines}" "${PROCESSES:?set it to the number of GPUs of all machines}"
if [[ -z "${MASTER_ADDR:-}" ]]; then
    MASTER_ADDR="$(awk '!/^ *(#|$)/ { print $1; exit }' "$HOSTFILE")"
fi

exec mpirun -np "$PROCESSES" --hostfile "$HOSTFILE" --bind-to none \
    -x PATH -x MASTER_ADDR="$MASTER_ADDR" -x MASTER_PORT="${MASTER_PORT:-29500}" \
    "${PYTHON:-python}" "${COMMAND[@]}"
