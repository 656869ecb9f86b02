"""Running graphs over devices: weights and states in place, plans compiled, failures survived.

storage    buffers of weights and states, by device
values     arrays to buffers and back
trace      what ran where and when
observe    values looked at while they are made
watch      who looks on in a session: a trace, observers
program    one graph, compiled: what a run does, step by step
session    devices, programs, and what happens when a device fails
"""

from __future__ import annotations

from hotplug.session.observe import Observation, Observer
from hotplug.session.program import Program
from hotplug.session.session import Session
from hotplug.session.trace import Span, StepTime, Trace

__all__ = ["Observation", "Observer", "Program", "Session", "Span", "StepTime", "Trace"]
