#!/usr/bin/env bash
# Turns a pretraining checkpoint into a TAPE model: megatron-tape-generator.sh [MEGA_CKPT_DIR] [OUT_DIR]
#
# MEGA_CKPT_DIR (default ./models/mega) is a --save directory of pretrain_tape.py, a Megatron-LM checkpoint directory,
# or a folder that holds one model_optim_rng.pt. OUT_DIR (default ./models/out) gets config.json, pytorch_model.bin and
# conversion.json, the certificate that both compute the same. Sizes are read from the checkpoint.
# PYTHON chooses the interpreter; otherwise it is the active environment's, the repository's .venv, or python3.
set -euo pipefail

if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
fi
if (( $# > 2 )); then
    echo "usage: $(basename "$0") [MEGA_CKPT_DIR] [OUT_DIR]" >&2
    exit 2
fi

# shellcheck source=scripts/shells/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
mega="${1:-./models/mega}"
out="${2:-./models/out}"

run "$python" "$root/converter/megatron-converter.py" -src "$mega" -out "$out/pytorch_model.bin" -dtp torch.float32
