"""THE CONTRACT: all that a backend must offer, and all that the core may ask of it.

A backend is a distribution with an entry point in the group "hotplug.backends" whose value is an
object of type `Backend`. Importing the module that holds it imports no vendor library and touches
no driver; that happens in `probe` and `open`.

    Backend ──probe──> DeviceInfo*         what is there, or why nothing is
       └──open──> Device ──buffers──> BufferType ──allocate──> Buffer
                    ├──supports(node)──> Support           yes, or why not
                    ├──compile(partition)──> Executable ──run(bindings)──> results in place
                    └──stream()──> Stream ──record──> Event

Work crosses in big pieces: a device gets a whole subgraph and runs it by one call. Words in use:
a *device* is what OpenCL and CUDA call a device; a *stream* is a CUDA stream, an OpenCL in-order
command queue; an *executable* is a CUDA graph, a recorded command buffer, a compiled plan.

Methods marked (optional) have a default. Everything else must be there, and is checked when the
backend registers. Failures are exceptions of `hotplug.errors`, never an abort.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Self

from hotplug.graph import Graph
from hotplug.node import Node

__all__ = [
    "API_VERSION",
    "YES",
    "Backend",
    "Buffer",
    "BufferType",
    "Device",
    "DeviceInfo",
    "DeviceType",
    "Event",
    "Executable",
    "MemoryInfo",
    "Partition",
    "Stream",
    "Support",
    "no",
]

API_VERSION = (1, 2)
"""Major: a change that breaks backends. Minor: an addition; older backends go on working."""


class DeviceType(Enum):
    """What kind of device it is; the order is the order of automatic choice."""

    GPU = "gpu"
    IGPU = "igpu"
    ACCELERATOR = "accel"
    REMOTE = "remote"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a device is. None means unknown. Knowing it needs no context on the device.

    Attributes:
        backend: name of the backend.
        index: number within the backend, from 0; for typing.
        name: the vendor's name of the device.
        type: GPU, CPU and so on.
        uuid: the vendor's unique id; two infos with one uuid are one physical device.
        pci: PCI address, such as "0000:c1:00.0".
        architecture: instruction set or compute capability, such as "avx2" or "sm_90".
        units: hardware threads, or compute units.
        driver: version of the driver or runtime.
        kernels: how its kernels are made, such as "compiled" or "numpy".
        properties: further facts by name, for display; a name that ends in "_bytes" holds bytes.
    """

    backend: str
    index: int
    name: str
    type: DeviceType
    uuid: str | None = None
    pci: str | None = None
    architecture: str | None = None
    units: int | None = None
    driver: str | None = None
    kernels: str | None = None
    properties: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What a selector names it by, such as "cuda:1"."""
        return f"{self.backend}:{self.index}"


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """Bytes of a device's memory; None where it can't tell."""

    total: int | None
    free: int | None


@dataclass(frozen=True, slots=True)
class Support:
    """Answer to "can you run this node?": truthy for yes; else `reason` says why not."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


YES = Support(True)


def no(reason: str) -> Support:
    """The answer "no, because"."""
    return Support(False, reason)


@dataclass(frozen=True, slots=True)
class Partition:
    """A piece of work for one device.

    Attributes:
        graph: a graph whole in itself; values from elsewhere are its inputs, values needed
            elsewhere its outputs.
        arena_bytes: bytes of intermediate values by the core's memory plan. A device that fuses
            nodes may plan anew and needs at most its own executable's `arena_bytes`; see
            `Device.plans_arena`.
        threads: how many threads a CPU-like device may use; None for its own default.
    """

    graph: Graph
    arena_bytes: int = 0
    threads: int | None = None


class Backend(abc.ABC):
    """Registration: who the backend is and how to bring it up.

    Attributes:
        name: lower-case word, the same as its entry point's name.
        api_version: the `API_VERSION` it was written for.
        priority: among devices of one type, higher is preferred; 0 to 100.
    """

    name: ClassVar[str]
    api_version: ClassVar[tuple[int, int]]
    priority: ClassVar[int] = 50

    @abc.abstractmethod
    def probe(self) -> Sequence[DeviceInfo]:
        """The devices present, found without creating a context on any of them.

        Raises:
            BackendLoadError: the vendor's library or driver is missing; the text says which, and
                `remedy` holds the command that helps. An empty result means: all is well, there is
                just no device.
        """

    @abc.abstractmethod
    def open(self, info: DeviceInfo) -> Device:
        """Bring up one of the devices that `probe` told of.

        Raises:
            DeviceUnavailableError: it cannot be opened.
        """

    def memory(self, info: DeviceInfo) -> MemoryInfo | None:
        """(optional) A device's memory, told without bringing it up; None where that cannot be.

        A list of devices then takes no memory on them, and no time to bring them up.
        """
        del info
        return None

    def find(self, address: str) -> Sequence[DeviceInfo]:
        """(optional) Devices at an address that a selector names, as "rpc://host:port/cuda:0" does.

        Their property "address" is what a selector must say to mean that one device.

        Raises:
            HotplugError: why nothing can be reached there.
        """
        return [info for info in self.probe() if info.properties.get("address") == address]

    def close(self) -> None:  # noqa: B027
        """(optional) Let go of everything; no device of this backend is open any more."""


class Device(abc.ABC):
    """One opened device. Safe to use from several threads.

    Attributes:
        plans_arena: (optional, since 1.1) that its executables plan their memory by themselves, so
            that `Partition.arena_bytes` need not be computed, and is 0.
    """

    info: DeviceInfo
    plans_arena: ClassVar[bool] = False

    @property
    def id(self) -> str:
        """The info's id, such as "cuda:1"."""
        return self.info.id

    @abc.abstractmethod
    def memory(self) -> MemoryInfo:
        """Memory of the device at this moment."""

    @abc.abstractmethod
    def supports(self, node: Node) -> Support:
        """Whether the device runs this node, with these operand types and parameters.

        Called once per node while planning; takes microseconds and never raises.
        """

    def supports_graph(self, graph: Graph) -> Sequence[Support]:
        """(optional) Answers about all nodes of a graph, where one question is faster than many."""
        return [self.supports(node) for node in graph.nodes]

    def direct_from(self, source: Device) -> int | None:
        """(optional, since 1.2) From how many bytes on copies come from another device directly.

        That is, without the host's memory in between, by `Buffer.copy_from`. What is smaller, and
        all where the answer is None, sessions bring by way of the host. They ask while planning,
        about two devices of one backend; what it takes to be sure may be tried then.

        Raises:
            DeviceLostError: one of the two is gone.
        """
        del source
        return None

    @property
    def leaving(self) -> bool:
        """(optional, since 1.2) Whether it will soon be gone, and nobody should begin to use it.

        Sessions leave it before their next run, with all that is on it. They ask before every run:
        answering takes next to nothing.
        """
        return False

    @property
    @abc.abstractmethod
    def buffers(self) -> BufferType:
        """The kind of memory that the device's executables take and give."""

    @abc.abstractmethod
    def compile(self, partition: Partition) -> Executable:
        """Make a partition ready to run.

        Raises:
            KernelCompileError: source was refused; holds the log.
            OutOfDeviceMemoryError: its arena does not fit.
        """

    def stream(self) -> Stream:
        """(optional) A new in-order queue of work; by default one that does everything at once."""
        return Stream()

    def close(self) -> None:  # noqa: B027
        """(optional) Free what the device holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Device {self.id} {self.info.name!r}>"


class BufferType(abc.ABC):
    """A kind of memory.

    Attributes:
        alignment: bytes; offsets of tensors within a buffer are multiples of it.
        max_bytes: the largest single allocation, or None if nothing but free memory limits it.
        is_host: whether the CPU reads and writes it directly.
    """

    alignment: int = 64
    max_bytes: int | None = None
    is_host: bool = False

    @abc.abstractmethod
    def allocate(self, nbytes: int) -> Buffer:
        """New memory, its bytes zero.

        Raises:
            OutOfDeviceMemoryError: there is not enough.
        """

    def wrap(self, data: memoryview) -> Buffer | None:
        """(optional) Host memory used as it lies, without a copy; None where that is impossible.

        The buffer keeps `data` alive. A read-only view gives a buffer that only may be read.
        """
        del data
        return None

    def wrap_all(self, data: Sequence[memoryview]) -> list[Buffer | None]:
        """(optional) `wrap` of several, where all at once is faster than one by one."""
        return [self.wrap(item) for item in data]

    def expect(self, data: Sequence[memoryview]) -> None:  # noqa: B027
        """(optional, since 1.1) `wrap_all` will probably be asked for these, all read-only.

        What is far away may begin to bring them near. Takes none of the device's memory, returns at
        once, and never raises.
        """


class Buffer(abc.ABC):
    """Memory on a device."""

    nbytes: int

    @abc.abstractmethod
    def read(self, offset: int, target: memoryview) -> None:
        """Fill host memory from the bytes at `offset`; returns when done."""

    @abc.abstractmethod
    def write(self, offset: int, source: memoryview) -> None:
        """Put host bytes at `offset`; returns when `source` may be changed again."""

    @abc.abstractmethod
    def free(self) -> None:
        """Give the memory back; a second call does nothing."""

    def host(self) -> memoryview | None:
        """(optional) The bytes as host memory, if the CPU can touch them directly."""
        return None

    def copy_from(self, source: Buffer) -> None:
        """(optional) Copy all bytes of an equally large buffer of any device; default: via host."""
        staged = source.host()
        if staged is None:
            staged = memoryview(bytearray(source.nbytes))
            source.read(0, staged)
        self.write(0, staged)


class Executable(abc.ABC):
    """A partition made ready on a device.

    Attributes:
        arena_bytes: device memory it holds for intermediate values.
    """

    arena_bytes: int = 0

    @abc.abstractmethod
    def run(self, bindings: Mapping[str, Buffer], stream: Stream | None = None) -> None:
        """Compute. One call, whatever the number of nodes.

        Args:
            bindings: a buffer for every leaf of the graph by leaf name, and for every output by
                "output:" + its name. States are updated in their own buffers. Passing the same
                mapping object with unchanged buffers again is the fast path.
            stream: where to queue the work; None runs it to its end.

        Raises:
            ExecutionError: it failed; the device is usable.
            RunCancelledError: `stop` was called meanwhile.
            DeviceLostError: it failed and the device is gone.
        """

    def explain(self) -> list[str]:
        """(optional) What it will do, a line per step: fusions, kernels, threads."""
        return []

    def profile(self, bindings: Mapping[str, Buffer]) -> list[float]:
        """(optional) Run once, and tell the seconds that each line of `explain` took.

        Empty where that is not known; then nothing has run either.
        """
        del bindings
        return []

    def stop(self) -> None:  # noqa: B027
        """(optional, since 1.1) Have the run that another thread is in end as soon as it can.

        `run` then raises `RunCancelledError`. Where no run is on its way, nothing happens, to later
        runs neither. A device that cannot stop runs to the end.
        """

    def unbind(self) -> bool:
        """(optional, since 1.1) Let go of all buffers that it ran with, but stay ready to run.

        False where that cannot be; then it has to be freed.
        """
        return False

    def free(self) -> None:  # noqa: B027
        """(optional) Let go of arena and compiled code."""


class Event:
    """(optional to derive from) A point in a stream. This one has always happened already."""

    def wait(self) -> None:
        """Return when all work queued before the event is done."""


class Stream:
    """(optional to derive from) An in-order queue of work. This one does everything at once."""

    def record(self) -> Event:
        """Mark the present end of the queue."""
        return Event()

    def synchronise(self) -> None:
        """Return when the queue is empty."""
        self.record().wait()
