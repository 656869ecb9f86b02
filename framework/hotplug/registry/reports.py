"""What is said of backends that are absent, have another's name, or cannot be loaded."""

from __future__ import annotations

from hotplug.errors import BackendLoadError, BackendNotFoundError, IncompatibleBackendError
from hotplug.registry.discovery import Source
from hotplug.registry.known import KNOWN
from hotplug.registry.status import BackendStatus, State

__all__ = ["absent", "duplicate", "load_error", "not_found"]


def absent(name: str) -> BackendStatus:
    """The status of a backend that is not here."""
    known = KNOWN.get(name)
    if known is None:
        return BackendStatus(name, State.ABSENT, reason="no backend of that name is installed")
    return BackendStatus(name, State.ABSENT, reason=known.absence(name), remedy=known.command)


def duplicate(source: Source, counts: Source) -> BackendStatus:
    """The status of a backend whose name is taken."""
    distribution = source.provenance.distribution
    return BackendStatus(
        source.name,
        State.DUPLICATE,
        source.provenance,
        f"{counts.provenance} offers the name {source.name!r} as well, and counts instead",
        f"pip uninstall {distribution}" if distribution else None,
    )


def not_found(name: str) -> BackendNotFoundError:
    """What naming a backend that is not here raises."""
    status = absent(name)
    text = f"there is no backend {name!r}: {status.reason}"
    return BackendNotFoundError(text, backend=name, remedy=status.remedy)


def load_error(status: BackendStatus) -> BackendLoadError:
    """What naming a backend that cannot be loaded raises."""
    incompatible = status.state is State.INCOMPATIBLE
    kind = IncompatibleBackendError if incompatible else BackendLoadError
    return kind(
        f"the backend {status.name} cannot be used: {status.reason}",
        backend=status.name,
        stage=status.stages[-1].stage.value,
        remedy=status.remedy,
    )
