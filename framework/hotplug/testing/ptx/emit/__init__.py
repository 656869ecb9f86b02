"""What each instruction becomes in Python, by the chapters of the PTX ISA manual."""

from __future__ import annotations

from hotplug.testing.ptx.emit import (
    bits,
    carry,
    comparison,
    conversion,
    floats,
    integers,
    moves,
    warp,
)
from hotplug.testing.ptx.errors import PTXError
from hotplug.testing.ptx.syntax import Instruction
from hotplug.testing.ptx.writer import EMITTERS, BlockWriter, Modifiers

__all__ = [
    "bits",
    "carry",
    "comparison",
    "conversion",
    "emit",
    "floats",
    "integers",
    "moves",
    "warp",
]


def emit(block: BlockWriter, given: Instruction) -> None:
    """Append an instruction to a block.

    Raises:
        PTXError: it, or one of its modifiers or operands, is not known.
    """
    emitter = EMITTERS.get(given.opcode)
    if emitter is None:
        raise PTXError("unknown instruction", instruction=given.text, line=given.line)
    modifiers = Modifiers(given)
    try:
        emitter(block, given, modifiers)
    except PTXError as error:
        if error.instruction:
            raise
        raise modifiers.error(str(error)) from error
    except (LookupError, ValueError) as error:
        raise modifiers.error(f"operands that are not known ({error})") from error
    modifiers.done()
