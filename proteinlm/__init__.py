"""The command ``proteinlm``, and what it needs beyond the libraries: data preparation and whole workflows.

Importing it makes the installed ``tape``, ``pretrain`` and ``converter`` the ones that are imported
(:mod:`proteinlm.own_packages`).
"""

from . import own_packages

own_packages.install()
