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
if sys.argv[1] == "easy-cluster":
    identity = float(sys.argv[sys.argv.index("--min-seq-id") + 1])
    proteins, lines = list(entries(sys.argv[2])), []
    for number, (name, sequence) in enumerate(proteins):
        for other, representative in proteins[: number + 1]:
            same = sum(a == b for a, b in zip(sequence, representative))
            if same >= identity * min(len(sequence), len(representative)):
                lines.append(f"{{other}}\\t{{name}}\\n")
    Path(sys.argv[3] + "_cluster.tsv").write_text("".join(lines))
    sys.exit()
query, target, output = sys.argv[2:5]
lines = []
for name, sequence in entries(query):
    for header, other in entries(target):
        same = sum(a == b for a, b in zip(sequence, other))
        if 2 * min(len(sequence), len(other)) >= len(sequence) and 5 * same >= len(sequence):
            length = min(len(sequence), len(other))
            lines.append("\\t".join([name, str(same), str(length), f"{{length / len(sequence):.3f}}", header]) + "\\n")
Path(output).write_text("".join(lines))
"""


def install_fake_mmseqs(folder: Path) -> Path:
    """Write the program ``mmseqs`` into a folder and return it.

    A file ``fail`` beside it makes it fail; ``arguments`` has those of its last search or clustering, one per line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "mmseqs"
    program.write_text(_PROGRAM, encoding="utf-8")
    program.chmod(0o755)
    return program
