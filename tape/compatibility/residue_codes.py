"""Three-letter codes of residues (IUPAC-IUB 1984), as in TAPE's ``tape.tokenizers``."""

from __future__ import annotations

_CODES = "Ala Asx Cys Asp Glu Phe Gly His Ile Lys Leu Met Asn Pro Gln Arg Ser Thr Sec Val Trp Xaa Tyr Glx"

IUPAC_CODES: dict[str, str] = dict(zip(_CODES.split(), "ABCDEFGHIKLMNPQRSTUVWXYZ", strict=True))
