"""Evaluate a finetuned model: ``python tape_eval.py transformer secondary_structure DIR --split cb513``."""

import sys

if __name__ == "__main__":
    from tape.errors import end_quietly_on_interrupt

    end_quietly_on_interrupt()

from tape.main import eval_command

if __name__ == "__main__":
    sys.exit(eval_command())
