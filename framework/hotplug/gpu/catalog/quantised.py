"""The quantised dtypes whose blocks quants.h decodes."""

from __future__ import annotations

__all__ = ["QUANTS"]

QUANTS = frozenset(
    {
        "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q8_1", "iq4_nl", "mxfp4", "q4_k", "q5_k", "q6_k",
    }
)  # fmt: skip
