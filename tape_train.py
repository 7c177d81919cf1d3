"""Train a model on a task: ``python tape_train.py transformer secondary_structure --from_pretrained DIR``."""

import sys

if __name__ == "__main__":
    from tape.errors import end_quietly_on_interrupt

    end_quietly_on_interrupt()

from tape.main import train_command

if __name__ == "__main__":
    sys.exit(train_command())
