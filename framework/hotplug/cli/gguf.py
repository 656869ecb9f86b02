"""`hotplug gguf`: what is in a model file."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from hotplug.cli.render import amount, console, printable, table
from hotplug.dtypes import DType
from hotplug.formats.gguf import GGUFFile, NestedArray, StringArray, TensorInfo

__all__ = ["GGUFCommand", "command"]

_FEW = 8  # elements of an array that are shown without --full
_CUT = 72  # characters of a value that the table shows


class GGUFCommand:
    """Shows metadata, tensors and totals. Reads the header only, so large files are no slower."""

    name = "gguf"
    help = "show the metadata and tensors of a model file"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("file", metavar="FILE", help="a GGUF file; of a split model, the first")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--full", action="store_true", help="print arrays and texts to their end"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the file's contents; 0.

        Raises:
            UsageError: the file cannot be opened.
            FormatError: it is no GGUF file, or a broken one.
        """
        with GGUFFile.open(arguments.file) as file:
            if arguments.json:
                print(json.dumps(_as_json(file, full=arguments.full)))
            else:
                _print_tables(file, full=arguments.full)
        return 0


@dataclass(slots=True)
class _Total:
    """Sum over the tensors of one dtype."""

    tensors: int = 0
    parameters: int = 0
    nbytes: int = 0

    def add(self, info: TensorInfo) -> None:
        self.tensors += 1
        self.parameters += info.type.size
        self.nbytes += info.nbytes

    @property
    def bits(self) -> float:
        """Bits per parameter."""
        return 8 * self.nbytes / self.parameters


def _totals(infos: Iterable[TensorInfo]) -> dict[DType, _Total]:
    """Totals by dtype, largest first."""
    totals: dict[DType, _Total] = {}
    for info in infos:
        totals.setdefault(info.type.dtype, _Total()).add(info)
    return dict(sorted(totals.items(), key=lambda item: -item[1].nbytes))


def _as_json(file: GGUFFile, *, full: bool) -> dict[str, Any]:
    infos = file.tensors.values()
    return {
        "path": str(file.path),
        "files": [str(path) for path in file.paths],
        "size": file.size,
        "version": file.version,
        "alignment": file.alignment,
        "parameters": sum(info.type.size for info in infos),
        "dtypes": {
            dtype.name: {
                "tensors": total.tensors,
                "parameters": total.parameters,
                "nbytes": total.nbytes,
            }
            for dtype, total in _totals(infos).items()
        },
        "metadata": {key: _value_as_json(file, key, full=full) for key in file.metadata},
        "tensors": [
            {
                "name": info.name,
                "dtype": info.type.dtype.name,
                "shape": info.type.shape,
                "offset": info.offset,
                "nbytes": info.nbytes,
            }
            for info in infos
        ],
    }


def _value_as_json(file: GGUFFile, key: str, *, full: bool) -> dict[str, Any]:
    """Type and value; of an array its length and, unless all is wanted, its beginning."""
    value = file.metadata[key]
    shown: dict[str, Any] = {"type": file.metadata.type_name(key)}
    if _is_array(value):
        shown["length"] = len(value)
        shown["complete"] = full or len(value) <= _FEW
    shown["value"] = _plain(value, None if full else _FEW)
    return shown


def _plain(value: Any, limit: int | None) -> Any:
    """A value as JSON can hold it; `limit` cuts arrays, at every depth."""
    if isinstance(value, np.ndarray):
        return [_plain(item, limit) for item in value[:limit].tolist()]
    if isinstance(value, StringArray | NestedArray):
        return [_plain(item, limit) for item in value[:limit]]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    return value


def _print_tables(file: GGUFFile, *, full: bool) -> None:
    screen = console()
    screen.print(_summary(file))
    screen.print(_metadata_table(file, full=full))
    if file.tensors:
        screen.print(_tensor_table(file))
        screen.print(_totals_table(file))


def _summary(file: GGUFFile) -> Text:
    files = f" in {len(file.paths)} files" if len(file.paths) > 1 else ""
    return Text(
        f"{printable(str(file.path))}: GGUF version {file.version}, {amount(file.size)}{files}, "
        f"alignment {file.alignment}"
    )


def _metadata_table(file: GGUFFile, *, full: bool) -> Table:
    rows = (
        (key, file.metadata.type_name(key), _shown(value, full=full))
        for key, value in file.metadata.items()
    )
    return table("Metadata", ("key", "type", "value"), rows)


def _tensor_table(file: GGUFFile) -> Table:
    numbers = ("shape", "offset", "bytes")
    rows = (
        (
            info.name,
            info.type.dtype.name,
            " x ".join(map(str, info.type.shape)) or "scalar",
            f"{info.offset:,}",
            f"{info.nbytes:,}",
        )
        for info in file.tensors.values()
    )
    return table(f"{len(file.tensors)} tensors", ("name", "dtype", *numbers), rows, numbers)


def _totals_table(file: GGUFFile) -> Table:
    whole = _Total()
    for info in file.tensors.values():
        whole.add(info)
    totals = [(dtype.name, total) for dtype, total in _totals(file.tensors.values()).items()]
    rows = (
        (name, f"{t.tensors:,}", f"{t.parameters:,}", f"{t.nbytes:,}", f"{t.bits:.2f}")
        for name, t in [*totals, ("all", whole)]
    )
    numbers = ("tensors", "parameters", "bytes", "bits each")
    return table("Totals", ("dtype", *numbers), rows, numbers)


def _shown(value: Any, *, full: bool) -> str:
    """A value in one line, cut unless all is wanted."""
    if not _is_array(value):
        text = printable(str(value))
    else:
        items = _plain(value, None if full else _FEW)
        more = "" if len(items) == len(value) else ", ..."
        text = f"{len(value)}: {printable(', '.join(map(str, items)))}{more}"
    return text if full or len(text) <= _CUT else f"{text[: _CUT - 3]}..."


def _is_array(value: object) -> TypeGuard[StringArray | NestedArray | npt.NDArray[Any]]:
    return isinstance(value, StringArray | NestedArray | np.ndarray)


command = GGUFCommand()
