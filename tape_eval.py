"""Evaluate a finetuned model: ``python tape_eval.py transformer secondary_structure DIR --split cb513``."""

import sys

from tape.commands import eval_command

if __name__ == "__main__":
    sys.exit(eval_command())
