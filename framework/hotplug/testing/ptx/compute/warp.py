"""Exchanges between the threads of a warp."""

from __future__ import annotations

__all__: list[str] = []
