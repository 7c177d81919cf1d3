"""Output files of predictions: a .csv or .json table, and for contacts also a map per protein.

The table has a record per protein, in the order of the input file: ``id``, ``length`` and, depending on the task,

- for a value: ``prediction``; for several values of a user's table: ``prediction_COLUMN`` for each. Of a model of a
  user's table also ``lower_90`` and ``upper_90`` (``lower_90_COLUMN``, ``upper_90_COLUMN``), the interval of the
  prediction (:mod:`tape.metrics.prediction_intervals`), if at least 9 proteins of ``valid`` had values;
- for a class: ``prediction`` (its number) and ``probability``; in JSON also ``probabilities`` of all classes. A model
  of a user's table has names of classes: ``prediction`` is one of them, JSON lists them in ``classes``, and CSV has a
  column ``probability_NAME`` for each;
- for labels: ``prediction``, the names of those with a probability above 0.5 (in CSV with ``;`` between them), and the
  probabilities of all as those of classes;
- for a class per residue: ``prediction``, with one letter (or digit) per residue, and the probabilities. In JSON,
  ``probabilities`` is a list per residue, in the order of the letters in ``classes``. In CSV, there is a column
  ``probability_LETTER`` per class, with numbers separated by blanks;
- for contacts: ``contacts``, the number of pairs with a probability above 0.5 at separations >= 6, and ``map``, a .npz
  in the folder OUT_maps; :mod:`.contact_maps` describes the files in it.

The JSON file is {schema "proteinlm-predictions", version, task, model_dir, predictions}. Probabilities are rounded to 4
digits, values to 6 significant digits, or to more where an interval is narrow.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import ConfigError
from tape.io.writing import check_output_file, remove_leftovers, write_json, write_text
from tape.targets import LABEL_SEPARATOR
from tape.tasks import TaskType

from .contact_maps import ContactMapFiles, count_contacts
from .predict import Prediction

SCHEMA = "proteinlm-predictions"
SCHEMA_VERSION = 1
# Letters of the classes in the order of their numbers; the classes of other tasks are written as digits.
_LETTERS = {"secondary_structure": "HEC", "secondary_structure_8": "GHIBESTC"}
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS_KEPT = 4
_EXACT = ("prediction", "classes")  # fields that are no probabilities

Row = dict[str, Any]


@dataclass(frozen=True)
class PredictionFiles:
    """Writer of the predictions of a task.

    Attributes:
        path: the table, .csv or .json.
        task: name of the task.
        task_type: type of the task.
        names: names of the classes of a user's table, or of its columns if there are several; empty: those of the task.
        half_widths: half the width of the interval of each value; None for a value without one, empty for none.
        pairs, plot: tables and pictures of contact maps, see :class:`.contact_maps.ContactMapFiles`.

    Raises:
        ConfigError: ``path`` has another suffix or is not writable, or pictures need matplotlib.
    """

    path: Path
    task: str
    task_type: TaskType
    pairs: bool = False
    plot: bool | None = None
    names: tuple[str, ...] = ()
    half_widths: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if self.path.suffix not in (".csv", ".json"):
            raise ConfigError(f"--predict_out {self.path}: give a name that ends in .csv or .json")
        check_output_file(self.path, "--predict_out")
        if self.task_type == TaskType.RESIDUE_PAIR:
            self._contacts.announce()

    @property
    def _contacts(self) -> ContactMapFiles:
        return ContactMapFiles(self.maps, self.pairs, self.plot)

    @property
    def maps(self) -> Path:
        """The folder of contact maps."""
        return self.path.with_name(self.path.stem + "_maps")

    def keep(self, predictions: Iterable[Prediction]) -> list[Row]:
        """Rows of the table. Contact maps are written immediately."""
        remove_leftovers(self.maps)
        return [self._row(prediction) for prediction in predictions]

    def write(self, rows: list[Row], model_dir: Path) -> None:
        """Write the table."""
        remove_leftovers(self.path.parent, self.path.name)
        rows = [{name: row[name] for name in row if name != "index"} for row in sorted(rows, key=lambda r: r["index"])]
        if self.path.suffix == ".csv":
            write_text(self.path, _as_csv([self._flat(row) for row in rows]))
            return
        record = {"schema": SCHEMA, "version": SCHEMA_VERSION, "task": self.task, "model_dir": str(model_dir)}
        write_json(self.path, {**record, "predictions": rows})

    def _row(self, prediction: Prediction) -> Row:
        row: Row = {"index": prediction.index, "id": prediction.identifier, "length": len(prediction.sequence)}
        if self.task_type == TaskType.RESIDUE_PAIR:
            return {**row, **self._contacts.write(prediction)}
        fields = prediction_fields(prediction, self.task, self.task_type, self.names, self.half_widths)
        if self.task_type == TaskType.VALUE:
            digits = _digits_of(fields, self.half_widths)
            return {**row, **{name: float(f"{value:.{digits}g}") for name, value in fields.items()}}
        return {**row, **{name: value if name in _EXACT else _rounded(value) for name, value in fields.items()}}

    def _flat(self, row: Row) -> Row:
        """A row for CSV, without lists."""
        flat = {name: value for name, value in row.items() if name not in ("probabilities", "classes")}
        if isinstance(flat.get("prediction"), list):
            flat["prediction"] = LABEL_SEPARATOR.join(flat["prediction"])
        for number, name in enumerate(row.get("classes", "")):
            chances = np.asarray(row["probabilities"])[..., number]
            flat[f"probability_{name}"] = " ".join(map(str, np.atleast_1d(chances).tolist()))
        return flat


def prediction_fields(
    prediction: Prediction,
    task: str,
    task_type: TaskType,
    names: Sequence[str] = (),
    half_widths: Sequence[float | None] = (),
) -> Row:
    """The fields of a prediction, with probabilities as arrays.

    Args:
        prediction: the prediction.
        task, task_type: name and type of the task.
        names: names of the classes of a user's table, or of its columns if there are several; empty: those of the task.
        half_widths: half the width of the interval of each value; None for a value without one, empty for none.

    Returns:
        For several values, ``prediction_COLUMN`` for each; values with an interval also have ``lower_90`` and
        ``upper_90``, or ``lower_90_COLUMN`` and ``upper_90_COLUMN``. Otherwise ``prediction``: the value, the number or
        name of the class, the list of labels, or the letters of the residues' classes (names of more than one letter
        have blanks between them); or ``contacts``, the number of pairs with a probability above 0.5 at separations
        >= 6.
        Except for values, ``probabilities`` in addition: of the classes or labels (C,), of the classes of each residue
        (L, C), or of a contact of each pair (L, L).

    Raises:
        ConfigError: there are more classes of residues than letters.
    """
    values = prediction.values
    if task_type == TaskType.VALUE:
        widths = half_widths or [None] * len(values)
        fields = {}
        for suffix, value, width in zip(
            [f"_{name}" for name in names] or [""], map(float, values), widths, strict=True
        ):
            fields[f"prediction{suffix}"] = value
            if width is not None:
                fields |= {f"lower_90{suffix}": value - width, f"upper_90{suffix}": value + width}
        return fields
    if task_type == TaskType.RESIDUE_PAIR:
        return {"contacts": count_contacts(values), "probabilities": values}
    if task_type == TaskType.SEQUENCE_CLASS:
        best = int(values.argmax())
        if names:
            named = {"classes": list(names), "probabilities": values}
            return {"prediction": names[best], "probability": float(values[best]), **named}
        return {"prediction": best, "probability": float(values[best]), "probabilities": values}
    if task_type == TaskType.MULTILABEL:
        likely = [name for name, chance in zip(names, values, strict=True) if chance > 0.5]
        return {"prediction": likely, "classes": list(names), "probabilities": values}
    letters = names or _letters(task, values.shape[-1])
    between = "" if all(len(letter) == 1 for letter in letters) else " "
    text = between.join(letters[number] for number in values.argmax(-1))
    return {"prediction": text, "classes": list(letters) if names else letters, "probabilities": values}


def _letters(task: str, count: int) -> str:
    letters = _LETTERS.get(task, _DIGITS)[:count]
    if len(letters) < count:
        raise ConfigError(f"--predict can write at most {len(_DIGITS)} classes per residue, and {task} has {count}")
    return letters


def _digits_of(fields: Row, half_widths: Sequence[float | None]) -> int:
    """Significant digits of values: 6, or as many as show 3 of the narrowest interval."""
    widths = [width for width in half_widths if width]
    largest = max(map(abs, fields.values()), default=0.0)
    if not widths or not (0 < largest < math.inf):
        return 6
    return min(17, max(6, 3 + math.floor(math.log10(largest)) - math.floor(math.log10(min(widths)))))


def _rounded(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=np.float64), _DIGITS_KEPT).tolist()


def _as_csv(rows: list[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
