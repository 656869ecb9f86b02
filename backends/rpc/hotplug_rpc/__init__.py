"""The RPC backend of hotplug. It registers and looks for PyZMQ; it reaches no machine yet."""

from __future__ import annotations

from hotplug_rpc.backend import RPCBackend

__all__ = ["backend"]

backend = RPCBackend()
