#!/usr/bin/env python
"""The model card of a pretrained model.

    python scripts/model_card.py MODEL_DIR ...

The installed command is ``proteinlm model-card``.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from proteinlm.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("model-card"))
