"""`hotplug doctor`: a real computation on every device, compared with the oracle's."""

from __future__ import annotations

import argparse
import json
import threading
from dataclasses import dataclass
from typing import Any

from hotplug import ops
from hotplug.backend import DeviceInfo
from hotplug.devices import list_devices, wanted
from hotplug.graph import Graph
from hotplug.registry import BackendStatus, default
from hotplug.registry.guard import guarded, reason_of
from hotplug.testing.conformance import Case, Outcome, Result, check

__all__ = ["DoctorCommand", "command"]


@dataclass(frozen=True, slots=True)
class Finding:
    """How one device did.

    Attributes:
        ok: whether it computed something, and nothing wrong.
        reason: what is wrong; or what it left out.
    """

    info: DeviceInfo
    ok: bool
    reason: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "id": self.info.id,
            "name": self.info.name,
            "ok": self.ok,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
        }


class DoctorCommand:
    """Tries every device, or those that are named, and says which backends are broken."""

    name = "doctor"
    help = "compute something on every device and check the result"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "-d", "--device", metavar="SELECTOR", help="devices to try (HOTPLUG_DEVICE, or all)"
        )
        parser.add_argument(
            "--timeout",
            type=_seconds,
            default=120.0,
            metavar="SECONDS",
            help="how long a device may take, kernels being compiled if need be (%(default)g)",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, arguments: argparse.Namespace) -> int:
        """Try; 0 if there is a device, each computes right and no backend is broken, else 1."""
        selector = wanted(arguments.device)
        default().load_all()  # asked for here, whatever HOTPLUG_AUTOLOAD says
        infos = list_devices() if selector == "auto" else default().select(selector).devices
        findings = [examine(info, arguments.timeout) for info in infos]
        broken = [status for status in default().statuses() if status.state.is_fault]
        ok = bool(findings) and all(finding.ok for finding in findings) and not broken
        if arguments.json:
            answer = {
                "ok": ok,
                "devices": [finding.to_json() for finding in findings],
                "broken_backends": [status.to_json() for status in broken],
            }
            print(json.dumps(answer))
        else:
            _print(findings, broken)
        return 0 if ok else 1


def examine(info: DeviceInfo, limit: float) -> Finding:
    """Run the cases on a device, for at most `limit` seconds."""
    answer = guarded(lambda: _results(info), limit)
    if answer.timed_out:
        return Finding(info, False, f"no answer within {limit:g} s", answer.seconds)
    if answer.error is not None:
        return Finding(info, False, reason_of(answer.error), answer.seconds)
    results = answer.value or []
    wrong = [f"{r.case}: {r.reason}" for r in results if r.outcome is Outcome.FAILED]
    left_out = [f"{r.case} left out: {r.reason}" for r in results if r.outcome is Outcome.SKIPPED]
    ok = not wrong and len(left_out) < len(results)
    return Finding(info, ok, "; ".join(wrong + left_out), answer.seconds)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= threading.TIMEOUT_MAX:  # NaN compares false
        raise ValueError(text)
    return value


def _results(info: DeviceInfo) -> list[Result]:
    with default().open(info, "hotplug doctor") as handle:
        return [check(handle.device, case) for case in _cases()]


def _cases() -> list[Case]:
    """A sum, which any device can do, and what a transformer layer is made of, small."""
    x = ops.input(name="x", dtype="f32", shape=(5, 64))
    w = ops.weight(name="w", dtype="f32", shape=(48, 64))
    packed = ops.weight(name="w", dtype="q8_0", shape=(48, 64))
    norm = ops.rms_norm(x, ops.weight(name="w", dtype="f32", shape=(64,)))
    q, k, v = (ops.input(name=name, dtype="f32", shape=(1, 2, 6, 16)) for name in "qkv")
    results = {
        "sum": ops.add(x, x),
        "matmul": ops.matmul(x, w, transpose_b=True),
        "quantised matmul": ops.matmul(x, packed, transpose_b=True, precision="exact"),
        "norm": ops.silu(norm),
        "attention": ops.scaled_dot_product_attention(q, k, v, causal=True),
    }
    return [
        Case(name, Graph.build({"y": result}), tolerance=1e-4) for name, result in results.items()
    ]


def _print(findings: list[Finding], broken: list[BackendStatus]) -> None:
    for finding in findings:
        verdict = "PASS" if finding.ok else "FAIL"
        text = f"{verdict} {finding.info.id} {finding.info.name} ({finding.seconds:.2f} s)"
        print(f"{text}: {finding.reason}" if finding.reason else text)
    for status in broken:
        remedy = f" ({status.remedy})" if status.remedy else ""
        print(f"FAIL backend {status.name}: {status.reason}{remedy}")
    if not findings:
        print("FAIL no device can be used; see `hotplug devices`")


command = DoctorCommand()
