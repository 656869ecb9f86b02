"""What each instruction becomes in Python, by the chapters of the PTX ISA manual."""

from hotplug.testing.ptx.emit import bits, conversion, floats, integers, moves
from hotplug.testing.ptx.writer import EMITTERS

__all__ = ["EMITTERS", "bits", "conversion", "floats", "integers", "moves"]
