"""What single drivers do differently, in one table; everything else goes by what a driver says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["QUIRKS", "Quirk", "quirks_of"]


@dataclass(frozen=True, slots=True)
class Quirk:
    """Something about the drivers of a platform.

    Attributes:
        platform: pattern that is found in the platform's name.
        what: what is different, and why that matters.
        source: where that is known from.
        device: pattern that is found in the device's name.
        refusal: why such a device is not used; empty if it is.
        remedy: what helps where the platform shows no device.
        last: whether its devices are others' too, and used only where those are not there.
        lost: codes of errors after which the device does nothing any more.
    """

    platform: str
    what: str
    source: str
    device: str = ""
    refusal: str = ""
    remedy: str = ""
    last: bool = False
    lost: frozenset[int] = frozenset()


QUIRKS = (
    Quirk(
        platform=r"^NVIDIA CUDA",
        what="A kernel that goes astray ends the context. Whatever waits for it next says "
        "CL_OUT_OF_RESOURCES or -9999, which is NVIDIA's own, and so does all that follows.",
        source="https://github.com/openwall/john/issues/4343",
        lost=frozenset({-5, -9999}),
    ),
    Quirk(
        platform=r"^rusticl",
        what="Mesa's driver shows no device before it is told for which hardware it may.",
        source="https://docs.mesa3d.org/rusticl",
        remedy="set RUSTICL_ENABLE to your GPU's driver in Mesa, such as radeonsi or iris",
    ),
    Quirk(
        platform=r"^Clover",
        what="Mesa's older driver has OpenCL 1.1 and is no longer maintained.",
        source="https://www.phoronix.com/news/Mesa-Delete-Clover-Discussion",
        refusal="Mesa's Clover has OpenCL 1.1 alone; its successor is rusticl",
    ),
    Quirk(
        platform=r"^OpenCLOn12",
        what="A layer over Direct3D 12 that shows the GPUs once more which their vendors' drivers "
        "show, without an id by which they could be known as the same.",
        source="https://github.com/darktable-org/darktable/pull/15044",
        last=True,
    ),
    Quirk(
        platform=r"FPGA Emulation",
        what="Intel's emulator of an FPGA, installed along with the runtime for processors, is the "
        "same processor once more, and slower.",
        source="https://github.com/intel/llvm/pull/869",
        refusal="it emulates an FPGA on the processor",
    ),
)


def quirks_of(platform: Any, device: Any = None) -> list[Quirk]:
    """Quirks of PyOpenCL's platform, or of a device of it."""
    return [
        quirk
        for quirk in QUIRKS
        if re.search(quirk.platform, platform.name)
        and (device is None or re.search(quirk.device, device.name))
    ]
