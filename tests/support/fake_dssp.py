"""A stand-in for DSSP 4, for machines without it: it writes DSSP's own format, with states that cycle."""

from __future__ import annotations

import sys
from pathlib import Path

# Of the residues numbered 0, 1, ... modulo 6: a blank is a residue in no state, P a polyproline II helix.
CYCLE = "HE TGP"
_PROGRAM = f"""#!{sys.executable}
import sys

source, target = sys.argv[-2:]
if sys.argv[1:3] != ["--output-format", "dssp"]:
    sys.exit("unknown arguments: " + " ".join(sys.argv[1:]))
bonds = "     0, 0.0" * 4
lines = [
    "==== Secondary Structure Definition by the program DSSP, NKI version 4.0" + 27 * " " + "==== DATE=2000-01-01",
    "REFERENCE W. KABSCH AND C.SANDER, BIOPOLYMERS 22 (1983) 2577-2637" + 62 * " " + ".",
    "HEADER    PROTEIN                                             1ABC" + 61 * " " + ".",
    "   11  2  0  0  0 TOTAL NUMBER OF RESIDUES, NUMBER OF CHAINS, NUMBER OF SS-BRIDGES(TOTAL,INTRACHAIN,INTERCHAIN)",
    "  #  RESIDUE AA STRUCTURE BP1 BP2  ACC     N-H-->O    O-->H-N    N-H-->O    O-->H-N    TCO  KAPPA ALPHA  PHI",
]
serial, chain = 0, None
for line in open(source):
    if not line.startswith("ATOM") or line[12:16].strip() != "CA":
        continue
    serial += 1
    if chain not in (None, line[21]):
        lines.append(f"{{serial:5d}}        !*             0   0    0 {{bonds}}   0.000 360.0 360.0 360.0 360.0")
        serial += 1
    chain, number = line[21], int(line[22:26])
    state = "{CYCLE}"[number % {len(CYCLE)}]
    helix = "  P" if state == "P" else " >4"
    row = f"{{serial:5d}}{{number:5d}} {{chain}} A  {{state}} {{helix}}S+     0   0  125 "
    lines.append(row + bonds + "   0.921 108.4  51.5 -57.0")
open(target, "w").write("".join(line + chr(10) for line in lines))
"""


def install_fake_dssp(folder: Path) -> Path:
    """Write the program ``mkdssp`` into a folder, which is made, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "mkdssp"
    program.write_text(_PROGRAM, encoding="utf-8")
    program.chmod(0o755)
    return program
