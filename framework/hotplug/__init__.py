"""One compute graph over whatever hardware a machine has, with backends found at run time.

    import hotplug
    from hotplug import ops

    x = ops.input(name="x", dtype="f32", shape=(2, 3))
    graph = hotplug.Graph.build({"y": ops.softmax(x)})
    with hotplug.Session() as session:          # the best device; or Session("cuda:1,cpu")
        y = session.run(graph, {"x": [[1, 2, 3], [4, 5, 6]]})["y"]

Importing this imports nothing else: every name below is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotplug import devices, dtypes, errors, ops
    from hotplug.devices import (
        device,
        list_backends,
        list_devices,
        load,
        load_all,
        refresh,
        register,
        unload,
        watch,
    )
    from hotplug.errors import HotplugError
    from hotplug.graph import Graph
    from hotplug.session import CancelToken, Session
    from hotplug.tensor import HostTensor, TensorType

__version__ = "0.1.0"

__all__ = [
    "CancelToken",
    "Graph",
    "HostTensor",
    "HotplugError",
    "Session",
    "TensorType",
    "__version__",
    "device",
    "devices",
    "dtypes",
    "errors",
    "list_backends",
    "list_devices",
    "load",
    "load_all",
    "ops",
    "refresh",
    "register",
    "unload",
    "watch",
]

_HOMES = {
    "CancelToken": "session",
    "Graph": "graph",
    "HostTensor": "tensor",
    "HotplugError": "errors",
    "Session": "session",
    "TensorType": "tensor",
    "device": "devices",
    "list_backends": "devices",
    "list_devices": "devices",
    "load": "devices",
    "load_all": "devices",
    "refresh": "devices",
    "register": "devices",
    "unload": "devices",
    "watch": "devices",
}
"""Module of every name that is no module itself."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _HOMES:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # so that the next use costs nothing
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
