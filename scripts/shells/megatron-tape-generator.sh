#!/usr/bin/env bash
# Converts a pretraining checkpoint into a TAPE model: megatron-tape-generator.sh [MEGA_CKPT_DIR] [OUT_DIR]
#
# MEGA_CKPT_DIR (default ./models/mega) is a --save directory of pretrain_tape.py, a Megatron-LM checkpoint directory,
# or a directory that contains one model_optim_rng.pt. OUT_DIR (default ./models/out) gets config.json,
# pytorch_model.bin and conversion.json, the record of the check that both models compute the same. The model's sizes
# are read from the checkpoint.
# PYTHON chooses the interpreter; the default is the active environment's, the repository's .venv, or python3.
set -euo pipefail
# shellcheck source=scripts/shells/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
split_arguments "$@"
if (( ${#given[@]} + ${#options[@]} > 2 )); then
    usage "[MEGA_CKPT_DIR] [OUT_DIR]"
fi

find_python
mega="${given[0]:-./models/mega}"
out="${given[1]:-./models/out}"

run "$python" "$root/converter/megatron-converter.py" -src "$mega" -out "$out/pytorch_model.bin" -dtp torch.float32
