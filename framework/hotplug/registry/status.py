"""What is known of a backend: where it is in its life, and why it is not further."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from hotplug.backend import DeviceInfo

__all__ = ["BackendStatus", "Provenance", "Rejected", "Stage", "StageRecord", "State"]


class Stage(enum.Enum):
    """Steps of a backend's life, in order."""

    DISCOVERED = "discovered"
    ALLOWED = "allowed"
    COMPATIBLE = "compatible"
    IMPORTED = "imported"
    PROBED = "probed"
    OPENED = "opened"


class State(enum.Enum):
    """How a backend stands now."""

    READY = "ready"
    DISCOVERED = "not loaded"
    NO_DEVICE = "no device"
    UNAVAILABLE = "unavailable"
    DISABLED = "disabled"
    UNLOADED = "unloaded"
    ABSENT = "not installed"
    INCOMPATIBLE = "incompatible"
    IMPORT_FAILED = "import failed"
    INVALID = "invalid"
    PROBE_FAILED = "probe failed"
    TIMEOUT = "timed out"
    DUPLICATE = "duplicate"

    @property
    def is_fault(self) -> bool:
        """Whether something is broken, as opposed to merely not there or not wanted."""
        return self in _FAULTS


_FAULTS = frozenset(
    {
        State.INCOMPATIBLE,
        State.IMPORT_FAILED,
        State.INVALID,
        State.PROBE_FAILED,
        State.TIMEOUT,
        State.DUPLICATE,
    }
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who brought a backend.

    Attributes:
        source: "entry point", "HOTPLUG_BACKEND_PATH" or "register()".
        target: "module:object", or the type of a registered object.
        distribution: name of the installed distribution, for entry points.
        version: its version.
    """

    source: str
    target: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        if self.distribution:
            return f"{self.distribution} {self.version or '(no version)'}"
        return f"{self.source} {self.target}".strip()


@dataclass(frozen=True, slots=True)
class StageRecord:
    """How one stage went.

    Attributes:
        seconds: how long it took.
        reason: why it failed; empty if it did not.
        remedy: what the user can do about it.
    """

    stage: Stage
    ok: bool
    seconds: float
    reason: str = ""
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A snapshot.

    Attributes:
        reason: why it is not ready; empty if it is.
        remedy: what the user can do about it.
        stages: the stages gone through, in order.
        devices: what its probe found.
        device_faults: device id -> why that one cannot be used now.
        error: the exception behind `reason`, if there is one.
        traceback: its text.
    """

    name: str
    state: State
    provenance: Provenance | None = None
    reason: str = ""
    remedy: str | None = None
    priority: int = 0
    stages: tuple[StageRecord, ...] = ()
    devices: tuple[DeviceInfo, ...] = ()
    device_faults: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = field(default=None, repr=False, compare=False)
    traceback: str | None = field(default=None, repr=False, compare=False)

    @property
    def seconds(self) -> float:
        """How long all stages took together."""
        return sum(record.seconds for record in self.stages)

    def to_json(self) -> dict[str, Any]:
        """The status as plain values."""
        return {
            "name": self.name,
            "state": self.state.value,
            "reason": self.reason,
            "remedy": self.remedy,
            "source": self.provenance and self.provenance.source,
            "target": self.provenance and self.provenance.target,
            "distribution": self.provenance and self.provenance.distribution,
            "version": self.provenance and self.provenance.version,
            "priority": self.priority,
            "devices": [info.id for info in self.devices],
            "device_faults": dict(self.device_faults),
            "stages": [
                {
                    "stage": record.stage.value,
                    "ok": record.ok,
                    "seconds": round(record.seconds, 6),
                    "reason": record.reason,
                }
                for record in self.stages
            ],
        }


class Rejected(Exception):  # noqa: N818 - control flow within the registry, never seen outside
    """A stage was not passed: what the backend's state becomes, and why."""

    def __init__(
        self,
        state: State,
        reason: str,
        *,
        remedy: str | None = None,
        cause: BaseException | None = None,
        trace: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.remedy = remedy
        self.cause = cause
        self.trace = trace
