"""`hotplug gguf`: what is in a model file."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hotplug.dtypes import DType
from hotplug.formats.gguf import GGUFFile, NestedArray, StringArray, TensorInfo

__all__ = ["GGUFCommand", "command"]

_FEW = 8  # elements of an array that are shown without --full
_CUT = 72  # characters of a value that the table shows
_PIPE_WIDTH = 140  # columns where no terminal says how many it has


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
    # A pipe has no width of its own, and folded columns are hard to search in.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    console.print(_summary(file))
    console.print(_metadata_table(file, full=full))
    if file.tensors:
        console.print(_tensor_table(file))
        console.print(_totals_table(file))


def _summary(file: GGUFFile) -> Text:
    files = f" in {len(file.paths)} files" if len(file.paths) > 1 else ""
    return Text(
        f"{_printable(str(file.path))}: GGUF version {file.version}, {_amount(file.size)}{files}, "
        f"alignment {file.alignment}"
    )


def _metadata_table(file: GGUFFile, *, full: bool) -> Table:
    table = Table(title="Metadata", title_justify="left")
    table.add_column("key", overflow="fold")
    table.add_column("type")
    table.add_column("value", overflow="fold")
    for key, value in file.metadata.items():
        cells = (_printable(key), file.metadata.type_name(key), _shown(value, full=full))
        table.add_row(*map(Text, cells))  # plain text: brackets in it are no markup
    return table


def _tensor_table(file: GGUFFile) -> Table:
    table = Table(title=f"{len(file.tensors)} tensors", title_justify="left")
    table.add_column("name", overflow="fold")
    table.add_column("dtype")
    table.add_column("shape", justify="right")
    table.add_column("offset", justify="right")
    table.add_column("bytes", justify="right")
    for info in file.tensors.values():
        shape = " x ".join(map(str, info.type.shape)) or "scalar"
        numbers = (f"{info.offset:,}", f"{info.nbytes:,}")
        table.add_row(Text(_printable(info.name)), info.type.dtype.name, shape, *numbers)
    return table


def _totals_table(file: GGUFFile) -> Table:
    table = Table(title="Totals", title_justify="left")
    for heading in ("dtype", "tensors", "parameters", "bytes", "bits each"):
        table.add_column(heading, justify="left" if heading == "dtype" else "right")
    whole = _Total()
    for info in file.tensors.values():
        whole.add(info)
    rows = [(dtype.name, total) for dtype, total in _totals(file.tensors.values()).items()]
    for name, total in [*rows, ("all", whole)]:
        numbers = (total.tensors, total.parameters, total.nbytes)
        table.add_row(name, *(f"{number:,}" for number in numbers), f"{total.bits:.2f}")
    return table


def _shown(value: Any, *, full: bool) -> str:
    """A value in one line, cut unless all is wanted."""
    if not _is_array(value):
        text = _printable(str(value))
    else:
        items = _plain(value, None if full else _FEW)
        more = "" if len(items) == len(value) else ", ..."
        text = f"{len(value)}: {_printable(', '.join(map(str, items)))}{more}"
    return text if full or len(text) <= _CUT else f"{text[: _CUT - 3]}..."


def _is_array(value: object) -> TypeGuard[StringArray | NestedArray | npt.NDArray[Any]]:
    return isinstance(value, StringArray | NestedArray | np.ndarray)


def _printable(text: str) -> str:
    """Text from a file without what could steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _amount(nbytes: int) -> str:
    """Bytes for people, in powers of 1000 as disks are sold."""
    amount = float(nbytes)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} GB"


command = GGUFCommand()
