"""Train a model on a task: ``python tape_train.py transformer secondary_structure --from_pretrained DIR``."""

import sys

from tape.commands import train_command

if __name__ == "__main__":
    sys.exit(train_command())
