"""Running graphs over devices: weights and states in place, plans compiled, failures survived.

storage    buffers of weights and states, by device
values     arrays to buffers and back
program    one graph, compiled: what a run does, step by step
session    devices, programs, and what happens when a device fails
"""

from __future__ import annotations

from hotplug.session.program import Program, StepTime
from hotplug.session.session import Session

__all__ = ["Program", "Session", "StepTime"]
