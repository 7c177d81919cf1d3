"""``python -m proteinlm COMMAND``, which is ``proteinlm COMMAND``; also the program for ``torchrun -m proteinlm``."""

import sys

from . import own_packages

if __name__ == "__main__":
    own_packages.forget_working_directory()

    from .command import main

    sys.exit(main())
