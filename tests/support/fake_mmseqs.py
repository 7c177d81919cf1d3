"""A stand-in for MMseqs2, for machines without it: it compares sequences position by position, without gaps."""

from __future__ import annotations

import sys
from pathlib import Path

VERSION = "stand-in 1"
_PROGRAM = f"""#!{sys.executable}
import sys
from pathlib import Path

def entries(path):
    for entry in Path(path).read_text().split(">")[1:]:
        header, sequence = entry.split("\\n")[:2]
        yield header, sequence

if sys.argv[1] == "version":
    print("{VERSION}")
    sys.exit()
folder = Path(__file__).parent
(folder / "arguments").write_text("\\n".join(sys.argv[1:]))
if (folder / "fail").exists():
    print("Can not allocate memory")
    sys.exit(3)
def option(name, default):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default

identity, coverage = float(option("--min-seq-id", "0.2")), float(option("-c", "0"))
columns = option("--format-output", "").split(",")
query, target, output = sys.argv[2:5]
lines = []
for name, sequence in entries(query):
    for header, other in entries(target):
        same, length = sum(a == b for a, b in zip(sequence, other)), min(len(sequence), len(other))
        if length >= coverage * len(sequence) and same >= identity * length:
            cells = dict(query=name, target=header.split()[0], theader=header, nident=same, alnlen=length)
            cells.update(qstart=1, qend=length, qlen=len(sequence), tstart=1, tend=length, tlen=len(other))
            cells["qcov"] = f"{{length / len(sequence):.3f}}"
            lines.append("\\t".join(str(cells[column]) for column in columns) + "\\n")
Path(output).write_text("".join(lines))
"""


def install_fake_mmseqs(folder: Path) -> Path:
    """Write the program ``mmseqs`` into a folder and return it.

    A file ``fail`` beside it makes it fail; ``arguments`` has those of its last search, one per line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "mmseqs"
    program.write_text(_PROGRAM, encoding="utf-8")
    program.chmod(0o755)
    return program
