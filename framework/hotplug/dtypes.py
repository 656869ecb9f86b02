"""The dtype table: every GGUF tensor type, and bool.

One row per dtype; everything else is derived from it. A quantised dtype stores `block` consecutive
elements of the last axis in `block_bytes` bytes; for plain dtypes `block` is 1. Ids and block sizes
are those of the GGUF format (enum ggml_type). Importing this module imports no NumPy.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hotplug.errors import DTypeError

__all__ = ["DTYPES", "DType", "Kind", "from_gguf", "get"]


class Kind(enum.Enum):
    """What the elements of a dtype are."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    QUANTISED = "quantised"


@dataclass(frozen=True, slots=True)
class DType:
    """One row of the table.

    Attributes:
        name: lower case, such as "q4_0".
        gguf_id: number in GGUF files, or None if files cannot hold it.
        block: elements per block.
        block_bytes: bytes per block.
        kind: float, int, bool or quantised.
        numpy: NumPy dtype code of the stored elements, or None if NumPy has none ("bf16" and
            quantised dtypes are held as raw uint8 or uint16 arrays).
    """

    name: str
    gguf_id: int | None
    block: int
    block_bytes: int
    kind: Kind
    numpy: str | None

    @property
    def quantised(self) -> bool:
        """Whether elements are packed in blocks."""
        return self.kind is Kind.QUANTISED

    @property
    def bits(self) -> float:
        """Bits per element, scales included."""
        return 8 * self.block_bytes / self.block

    def nbytes(self, elements: int) -> int:
        """Bytes of `elements` consecutive elements.

        Raises:
            DTypeError: `elements` is not a whole number of blocks.
        """
        blocks, rest = divmod(elements, self.block)
        if rest:
            raise DTypeError(
                f"{self.name} holds {self.block} elements a block, and {elements} is no multiple",
                dtype=self.name,
            )
        return blocks * self.block_bytes

    def __str__(self) -> str:
        return self.name


def _plain(name: str, gguf_id: int | None, size: int, kind: Kind, numpy: str | None) -> DType:
    return DType(name, gguf_id, 1, size, kind, numpy)


def _quant(name: str, gguf_id: int, block: int, block_bytes: int) -> DType:
    return DType(name, gguf_id, block, block_bytes, Kind.QUANTISED, None)


_ROWS = (
    _plain("f32", 0, 4, Kind.FLOAT, "<f4"),
    _plain("f16", 1, 2, Kind.FLOAT, "<f2"),
    _quant("q4_0", 2, 32, 18),
    _quant("q4_1", 3, 32, 20),
    _quant("q5_0", 6, 32, 22),
    _quant("q5_1", 7, 32, 24),
    _quant("q8_0", 8, 32, 34),
    _quant("q8_1", 9, 32, 36),
    _quant("q2_k", 10, 256, 84),
    _quant("q3_k", 11, 256, 110),
    _quant("q4_k", 12, 256, 144),
    _quant("q5_k", 13, 256, 176),
    _quant("q6_k", 14, 256, 210),
    _quant("q8_k", 15, 256, 292),
    _quant("iq2_xxs", 16, 256, 66),
    _quant("iq2_xs", 17, 256, 74),
    _quant("iq3_xxs", 18, 256, 98),
    _quant("iq1_s", 19, 256, 50),
    _quant("iq4_nl", 20, 32, 18),
    _quant("iq3_s", 21, 256, 110),
    _quant("iq2_s", 22, 256, 82),
    _quant("iq4_xs", 23, 256, 136),
    _plain("i8", 24, 1, Kind.INT, "|i1"),
    _plain("i16", 25, 2, Kind.INT, "<i2"),
    _plain("i32", 26, 4, Kind.INT, "<i4"),
    _plain("i64", 27, 8, Kind.INT, "<i8"),
    _plain("f64", 28, 8, Kind.FLOAT, "<f8"),
    _quant("iq1_m", 29, 256, 56),
    _plain("bf16", 30, 2, Kind.FLOAT, None),
    _quant("tq1_0", 34, 256, 54),
    _quant("tq2_0", 35, 256, 66),
    _quant("mxfp4", 39, 32, 17),
    _quant("nvfp4", 40, 64, 36),
    _quant("q1_0", 41, 128, 18),
    _quant("q2_0", 42, 64, 18),
    _plain("bool", None, 1, Kind.BOOL, "|b1"),
)

DTYPES: dict[str, DType] = {row.name: row for row in _ROWS}
_BY_ID: dict[int, DType] = {row.gguf_id: row for row in _ROWS if row.gguf_id is not None}


def get(dtype: str | DType) -> DType:
    """Row of a dtype given by name, in any case.

    Raises:
        DTypeError: no such name.
    """
    if isinstance(dtype, DType):
        return dtype
    row = DTYPES.get(dtype.lower())
    if row is None:
        raise DTypeError(f"there is no dtype {dtype!r}; known: {', '.join(DTYPES)}", dtype=dtype)
    return row


def from_gguf(gguf_id: int) -> DType:
    """Row of a GGUF tensor type number.

    Raises:
        DTypeError: the number is unknown or was removed from the format.
    """
    row = _BY_ID.get(gguf_id)
    if row is None:
        raise DTypeError(f"GGUF tensor type {gguf_id} is not known", dtype=gguf_id)
    return row
