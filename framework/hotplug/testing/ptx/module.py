"""A parsed PTX text with its translated entries."""

from __future__ import annotations

from collections.abc import Mapping

from hotplug.errors import UsageError
from hotplug.testing.ptx.errors import PTXError
from hotplug.testing.ptx.parser import parse
from hotplug.testing.ptx.program import Program, translate
from hotplug.testing.ptx.syntax import Variable

__all__ = ["Module"]


class Module:
    """Kernels that a machine can launch. Made by `parse`; one serves any number of machines.

    Attributes:
        variables: what lies in device memory.
    """

    def __init__(self, programs: Mapping[str, Program], variables: tuple[Variable, ...]) -> None:
        self._programs = programs
        self.variables = variables

    @classmethod
    def parse(cls, text: str) -> Module:
        """Read and translate all of a PTX text.

        Raises:
            PTXError: it is no PTX, or uses what is not known, which its message names.
        """
        source = parse(text)
        programs = {
            name: translate(function, source.functions, source.variables)
            for name, function in source.functions.items()
            if function.is_entry
        }
        if not programs:
            raise PTXError("the text has no entry")
        kept = tuple(item for item in source.variables if item.space in ("global", "const"))
        return cls(programs, kept)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of what can be launched."""
        return tuple(self._programs)

    def parameters(self, name: str) -> tuple[tuple[int, int], ...]:
        """(size, alignment) in bytes of each parameter of a kernel.

        Raises:
            UsageError: there is no such kernel.
        """
        return self.program(name).parameters

    def program(self, name: str) -> Program:
        """A kernel's translation.

        Raises:
            UsageError: there is no such kernel.
        """
        if name not in self._programs:
            raise UsageError(f"no kernel {name!r}; there are: {', '.join(self._programs)}")
        return self._programs[name]
