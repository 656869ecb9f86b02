"""Running graphs over devices: weights and states in place, plans compiled, failures survived.

control     time limits, and ends put to runs by other threads
worker      threads that call devices which may hang
turns       whose turn it is where sessions share a device
weights     weights on devices, shared by sessions
values      arrays to buffers and back
copies      the host's copies of states
storage     buffers of weights and states, by device
fleet       the devices: opened, called, left, brought back
trace       what ran where and when
observe     values looked at while they are made
watch       who looks on in a session: a trace, observers
step        one part of a plan
overlap     several devices at work at once
outlook     how long runs should take
compiled    a graph's executables with their buffers: what a run does
recovery    what happens when a device fails
changes     devices that come and go between runs
sharing     the form of a graph that several devices work at
membership  the part of a session that is about devices
watchable   the part that is about looking on
planning    where graphs run, by wishes, measured speeds and what is stored
program     one graph, for whoever runs it
session     all of it together
"""

from __future__ import annotations

from hotplug.session.control import CancelToken, Control, control_of, held
from hotplug.session.fleet import Quarantine
from hotplug.session.observe import Observation, Observer
from hotplug.session.outlook import Outlook
from hotplug.session.program import Program
from hotplug.session.session import Session
from hotplug.session.sharing import Mode
from hotplug.session.trace import Span, StepTime, Trace

__all__ = [
    "CancelToken",
    "Control",
    "Mode",
    "Observation",
    "Observer",
    "Outlook",
    "Program",
    "Quarantine",
    "Session",
    "Span",
    "StepTime",
    "Trace",
    "control_of",
    "held",
]
