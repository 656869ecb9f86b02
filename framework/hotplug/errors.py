"""Every exception that hotplug raises, as one tree.

    HotplugError
    ├── SettingsError (ValueError)                a HOTPLUG_* variable that cannot be read
    ├── UsageError (ValueError)                   a request that cannot be carried out as given
    ├── DTypeError (ValueError)                   a dtype name or id that is not in the table
    │   └── UnsupportedDTypeError (NotImplementedError)   known, but not for this step
    ├── GraphError (ValueError)                   operands, parameters or structure of a graph
    │   └── SerializationError                    bytes that are no graph, or of another version
    ├── FormatError (ValueError)                  a model file that is broken or not what it says
    ├── ModelError (ValueError)                   a readable file whose model cannot be run
    │   └── ContextLengthError                    more tokens than the context holds
    ├── BackendError
    │   ├── BackendNotFoundError (LookupError)    no such backend is installed or registered
    │   ├── BackendLoadError (ImportError)        found, but could not be brought up
    │   │   └── IncompatibleBackendError          made for another version of the contract
    │   └── BackendInUseError (RuntimeError)      unload refused: somebody still holds it
    ├── DeviceError
    │   ├── SelectorError (ValueError)            text that is no device selector
    │   ├── DeviceNotFoundError (LookupError)     a selector that names nothing here
    │   ├── DeviceUnavailableError (RuntimeError) present but cannot be opened
    │   ├── DeviceLostError (RuntimeError)        was there, is gone
    │   │   └── DeviceHungError (TimeoutError)    gives no answer
    │   └── OutOfDeviceMemoryError (MemoryError)  an allocation that the device refused
    ├── PlacementError (RuntimeError)             no assignment of nodes satisfies the request
    │   ├── PinError                              a pin that cannot be honoured
    │   └── UnsupportedOpError (NotImplementedError)   no device in use runs this node
    ├── KernelCompileError (RuntimeError)         source that a device's compiler refused
    ├── ExecutionError (RuntimeError)             a graph that failed while it ran
    │   ├── StatesLostError                       and the session's states start anew
    │   ├── RunCancelledError                     ended from outside
    │   │   └── DeadlineExceededError (TimeoutError)   by its time limit
    │   └── VerificationError                     a device computed another value than it should
    └── RemoteError (ConnectionError)             the other end of an RPC link

The text is one sentence for a person. `remedy`, where known, is what that person can do. Other
fields are for programs. Every exception survives pickling, so that it can cross processes.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BackendError",
    "BackendInUseError",
    "BackendLoadError",
    "BackendNotFoundError",
    "ContextLengthError",
    "DTypeError",
    "DeadlineExceededError",
    "DeviceError",
    "DeviceHungError",
    "DeviceLostError",
    "DeviceNotFoundError",
    "DeviceUnavailableError",
    "ExecutionError",
    "FallbackWarning",
    "FormatError",
    "GraphError",
    "HotplugError",
    "HotplugWarning",
    "IncompatibleBackendError",
    "KernelCompileError",
    "ModelError",
    "OutOfDeviceMemoryError",
    "PinError",
    "PlacementError",
    "RemoteError",
    "RunCancelledError",
    "SelectorError",
    "SerializationError",
    "SettingsError",
    "StatesLostError",
    "UnsupportedDTypeError",
    "UnsupportedOpError",
    "UsageError",
    "VerificationError",
]


def _restore(cls: type[HotplugError], args: tuple[Any, ...], state: dict[str, Any]) -> HotplugError:
    error = cls(*args)
    error.__dict__.update(state)
    return error


class HotplugError(Exception):
    """Root of the tree.

    Attributes:
        remedy: what the user can do about it, or None.
    """

    remedy: str | None = None

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy

    def __str__(self) -> str:
        message = str(self.args[0]) if self.args else ""
        return f"{message} ({self.remedy})" if self.remedy else message

    def __reduce__(self) -> tuple[Any, ...]:
        # The default rebuilds with positional arguments only, which loses keyword fields.
        return _restore, (type(self), self.args, self.__dict__)


class SettingsError(HotplugError, ValueError):
    """A HOTPLUG_* variable holds something that cannot be read."""

    def __init__(
        self,
        message: str,
        *,
        variable: str | None = None,
        value: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.variable = variable
        self.value = value


class UsageError(HotplugError, ValueError):
    """A request that cannot be carried out as given: a wrong option, a file that is not there."""


class DTypeError(HotplugError, ValueError):
    """A dtype name or id that is not in the table."""

    def __init__(
        self, message: str, *, dtype: str | int | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.dtype = dtype


class UnsupportedDTypeError(DTypeError, NotImplementedError):
    """A dtype that is known, but for which this step cannot be done."""


class GraphError(HotplugError, ValueError):
    """Operands, parameters or the structure of a graph are wrong.

    Attributes:
        op: name of the op concerned, if one is.
        operands: the operands' types as text, such as ("f32[2, 3]", "q4_0[8, 32]").
    """

    def __init__(
        self,
        message: str,
        *,
        op: str | None = None,
        operands: tuple[str, ...] = (),
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.op = op
        self.operands = operands


class SerializationError(GraphError):
    """Bytes that are no serialised graph, or one of another version."""


class FormatError(HotplugError, ValueError):
    """A model file that is broken or is not what it says.

    Attributes:
        path: the file.
        offset: byte position in the file where the trouble is, if known.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.path = path
        self.offset = offset


class ModelError(HotplugError, ValueError):
    """A readable model file whose model cannot be run: unknown architecture, missing metadata."""

    def __init__(self, message: str, *, key: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.key = key


class ContextLengthError(ModelError):
    """More tokens than the context holds.

    Attributes:
        tokens: how many are needed.
        limit: how many fit.
    """

    def __init__(
        self, message: str, *, tokens: int = 0, limit: int = 0, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.tokens = tokens
        self.limit = limit


class BackendError(HotplugError):
    """Something about a backend.

    Attributes:
        backend: the backend's name.
        stage: the life-cycle stage at which it happened, such as "imported".
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        stage: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.backend = backend
        self.stage = stage


class BackendNotFoundError(BackendError, LookupError):
    """No such backend is installed or registered."""


class BackendLoadError(BackendError, ImportError):
    """A backend that was found but could not be brought up."""


class IncompatibleBackendError(BackendLoadError):
    """A backend made for another version of the contract."""


class BackendInUseError(BackendError, RuntimeError):
    """Unloading was refused because the backend still has users.

    Attributes:
        users: who holds it.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        users: tuple[str, ...] = (),
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, backend=backend, remedy=remedy)
        self.users = users


class DeviceError(HotplugError):
    """Something about a device.

    Attributes:
        device: the device's id, such as "cuda:1", or the selector that was asked for.
    """

    def __init__(
        self, message: str, *, device: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.device = device


class SelectorError(DeviceError, ValueError):
    """Text that is no device selector."""


class DeviceNotFoundError(DeviceError, LookupError):
    """A selector that names nothing here.

    Attributes:
        available: ids of the devices that are here.
    """

    def __init__(
        self,
        message: str,
        *,
        device: str | None = None,
        available: tuple[str, ...] = (),
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, device=device, remedy=remedy)
        self.available = available


class DeviceUnavailableError(DeviceError, RuntimeError):
    """A device that is present but cannot be opened."""


class DeviceLostError(DeviceError, RuntimeError):
    """A device that was there and is gone."""


class DeviceHungError(DeviceLostError, TimeoutError):
    """A device that gave no answer within its time, and was left alone."""


class OutOfDeviceMemoryError(DeviceError, MemoryError):
    """An allocation that the device refused.

    Attributes:
        requested: bytes asked for.
        free: bytes free at that moment, or None if the device can't tell.
    """

    def __init__(
        self,
        message: str,
        *,
        device: str | None = None,
        requested: int = 0,
        free: int | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, device=device, remedy=remedy)
        self.requested = requested
        self.free = free


class PlacementError(HotplugError, RuntimeError):
    """No assignment of nodes to devices satisfies the request.

    Attributes:
        reasons: device id -> why it was no choice.
    """

    def __init__(
        self,
        message: str,
        *,
        reasons: dict[str, str] | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.reasons = reasons or {}


class PinError(PlacementError):
    """Something is pinned to a device that cannot have it; no other device is tried."""


class UnsupportedOpError(PlacementError, NotImplementedError):
    """No device in use runs this node.

    Attributes:
        op: the op's name.
        reasons: device id -> why it does not run it.
    """

    def __init__(
        self,
        message: str,
        *,
        op: str | None = None,
        reasons: dict[str, str] | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, reasons=reasons, remedy=remedy)
        self.op = op


class KernelCompileError(HotplugError, RuntimeError):
    """Kernel source that a device's compiler refused.

    Attributes:
        kernel: the kernel's name.
        source: what was compiled.
        log: what the compiler said.
    """

    def __init__(
        self,
        message: str,
        *,
        kernel: str | None = None,
        source: str | None = None,
        log: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.kernel = kernel
        self.source = source
        self.log = log


class ExecutionError(HotplugError, RuntimeError):
    """A graph that failed while it ran.

    Attributes:
        device: id of the device it ran on.
        op: the op that failed, if known.
    """

    def __init__(
        self,
        message: str,
        *,
        device: str | None = None,
        op: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.device = device
        self.op = op


class StatesLostError(ExecutionError):
    """A device failed, and what the states held went with it.

    The session goes on with other devices. Whoever knows how the states came about can make them
    again and repeat the run.

    Attributes:
        rows: where the run said which rows of states it writes: how many of their first rows still
            hold what they held. All else is zero.
    """

    def __init__(
        self,
        message: str,
        *,
        device: str | None = None,
        rows: int = 0,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, device=device, remedy=remedy)
        self.rows = rows


class RunCancelledError(ExecutionError):
    """A run that was ended from outside; its states may be updated in part."""


class DeadlineExceededError(RunCancelledError, TimeoutError):
    """A run that was not done within the time it was given."""


class VerificationError(ExecutionError):
    """A node's value is further from what it should be than rounding explains.

    Attributes:
        node: the node's name, with the weights it takes.
        error: the largest distance of an element from its right value.
        allowed: what rounding explains at that element.
    """

    def __init__(
        self,
        message: str,
        *,
        device: str | None = None,
        op: str | None = None,
        node: str | None = None,
        error: float | None = None,
        allowed: float | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, device=device, op=op, remedy=remedy)
        self.node = node
        self.error = error
        self.allowed = allowed


class RemoteError(HotplugError, ConnectionError):
    """The other end of an RPC link failed or went away.

    Attributes:
        endpoint: its address.
    """

    def __init__(
        self, message: str, *, endpoint: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.endpoint = endpoint


class HotplugWarning(UserWarning):
    """Root of the warnings."""


class FallbackWarning(HotplugWarning):
    """Something runs slower or elsewhere than was asked; `-W error` makes it fatal."""
