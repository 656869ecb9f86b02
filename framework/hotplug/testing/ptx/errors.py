"""What can be wrong with PTX, and with a program that runs.

HotplugError
├── PTXError (ValueError)              text that is no PTX, or has what the interpreter lacks
└── ExecutionError
    └── KernelFault                    a launch that went wrong
        ├── MemoryFault                an address outside of all allocations, or misaligned
        ├── RaceFault                  two threads touch a byte unordered, one of them writing
        ├── DivergenceFault            threads that a barrier or a warp's exchange waits for in vain
        └── UninitialisedFault         shared memory read that nothing wrote

"""

from __future__ import annotations

from hotplug.errors import ExecutionError, HotplugError

__all__ = [
    "DivergenceFault",
    "KernelFault",
    "MemoryFault",
    "PTXError",
    "RaceFault",
    "UninitialisedFault",
]


class PTXError(HotplugError, ValueError):
    """Text that is no PTX, or an instruction or modifier that the interpreter does not have.

    Attributes:
        instruction: the instruction's text, or "".
        line: its line in the text, from 1; 0 if the trouble has none.
    """

    def __init__(self, message: str, *, instruction: str = "", line: int = 0) -> None:
        where = f"line {line}: " if line else ""
        what = f", in `{instruction}`" if instruction else ""
        super().__init__(f"{where}{message}{what}")
        self.instruction = instruction
        self.line = line


class KernelFault(ExecutionError):  # noqa: N818 (the field's word, as in "page fault")
    """A launch that went wrong; device memory is left as it was at that moment."""


class MemoryFault(KernelFault):
    """An access outside of every allocation, or at an address that its size does not divide.

    Attributes:
        address: the address.
    """

    def __init__(self, message: str, *, address: int) -> None:
        super().__init__(message)
        self.address = address


class RaceFault(KernelFault):
    """Two threads touch the same byte with nothing that orders them, and one of them writes."""


class DivergenceFault(KernelFault):
    """Not all threads reached a barrier, or a warp's exchange, that waits for them."""


class UninitialisedFault(KernelFault):
    """Shared memory was read that no thread had written."""
