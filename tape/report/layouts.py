"""Losses of pretraining in several parallel layouts, side by side; a layout must not change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tape.errors import ConfigError, DataError, quoted
from tape.io.json_files import read_json_lines


@dataclass(frozen=True)
class LayoutLosses:
    """Training losses of runs that differ only in their parallel layout.

    Attributes:
        names: name of each run's directory.
        losses: (iteration, loss of each run), by iteration.
    """

    names: tuple[str, ...]
    losses: tuple[tuple[int, tuple[float, ...]], ...]

    @property
    def largest_difference(self) -> float:
        """The largest difference of two runs' losses at the same iteration."""
        return max(max(row) - min(row) for _, row in self.losses)

    def summary(self) -> str:
        return f"Largest difference of the losses of {' and '.join(self.names)}: {self.largest_difference:.1e}"

    def text(self) -> str:
        """A table for the terminal, one line per iteration."""
        lines = [f"{'iteration':>9} " + " ".join(f"{name:>10}" for name in self.names) + "  difference"]
        for iteration, row in self.losses:
            values = " ".join(f"{loss:10.6f}" for loss in row)
            lines.append(f"{iteration:9} {values} {max(row) - min(row):11.1e}")
        return "\n".join([*lines, self.summary()])

    def html(self) -> str:
        """The table as a part of the report's page."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.names)
        rows = "".join(
            f"<tr><td>{iteration}</td>{''.join(f'<td>{loss:.6f}</td>' for loss in row)}</tr>"
            for iteration, row in self.losses
        )
        table = f"<table><thead><tr><th>iteration</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f"<p>{escape(self.summary())}.</p><details><summary>Loss by iteration</summary>{table}</details>"


def read_layout_losses(runs: Sequence[Path]) -> LayoutLosses:
    """Read the training losses of pretraining runs with the same options in different layouts.

    Args:
        runs: their ``--save`` directories, at least two.

    Raises:
        ConfigError: there are fewer than two runs.
        DataError: the runs have logged different iterations, or none.
    """
    if len(runs) < 2:
        raise ConfigError(f"a comparison of layouts needs at least two runs, not {len(runs)}")
    files = [run / "metrics.jsonl" for run in runs]
    curves = [_losses(file) for file in files]
    for file, curve in zip(files, curves, strict=True):
        if not curve or curve.keys() != curves[0].keys():
            raise DataError(
                f"{file}: has losses of {len(curve)} iterations, {files[0]} of {len(curves[0])}; both need the"
                " same --train-iters and --log-interval"
            )
    losses = ((iteration, tuple(curve[iteration] for curve in curves)) for iteration in sorted(curves[0]))
    return LayoutLosses(tuple(run.resolve().name for run in runs), tuple(losses))


def _losses(file: Path) -> dict[int, float]:
    """Loss by iteration."""
    losses = {}
    for record in read_json_lines(file, integers=["iteration"]):
        loss = record.get("lm_loss")
        if loss is None:
            continue
        if not isinstance(loss, int | float) or isinstance(loss, bool):
            raise DataError(f"{file}: lm_loss of iteration {record['iteration']} must be a number, not {quoted(loss)}")
        losses[record["iteration"]] = float(loss)
    return losses
