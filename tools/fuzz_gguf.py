"""Feed the GGUF reader broken files for as long as you like.

    python tools/fuzz_gguf.py --seconds 600 --seed 1

Valid files are built from a seed, then damaged: bytes flipped, ranges cut, doubled or exchanged,
numbers overwritten with treacherous ones. Each must open, and everything in it must decode, or be
refused with a FormatError or UsageError; within two seconds and 50 MB. Whatever breaks that rule is
kept in the folder --keep, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
from pathlib import Path

import numpy as np

from hotplug import dtypes
from hotplug.errors import FormatError, UsageError
from hotplug.formats.gguf import GGUFFile, NestedArray, StringArray, Typed, write
from hotplug.tensor import HostTensor, TensorType

SECONDS_ALLOWED = 2.0
BYTES_ALLOWED = 50_000_000
NUMBERS = ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64")
TREACHEROUS = [0, 1, 2, 7, 8, 9, 12, 13, 31, 32, 33, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
TREACHEROUS += [2**32, 2**40, 2**61, 2**62, 2**63 - 8, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]


def random_value(random_: random.Random, depth: int = 0) -> object:
    kind = random_.randrange(6 if depth < 2 else 5)
    count = random_.randrange(6)
    if kind == 0:
        return Typed(random_.randrange(100), random_.choice(NUMBERS))
    if kind == 1:
        return Typed([random_.randrange(100) for _ in range(count)], random_.choice(NUMBERS))
    if kind == 2:
        return Typed(["x" * random_.randrange(20) for _ in range(count)], "str")
    if kind == 3:
        return random_.choice([True, False, "some text", ""])
    if kind == 4:
        return Typed([random_.random() < 0.5 for _ in range(count)], "bool")
    return Typed([["a"] * random_.randrange(3), [["b"]]][: random_.randrange(1, 3)], "str")


def random_tensor(random_: random.Random) -> HostTensor:
    row = random_.choice([row for row in dtypes.DTYPES.values() if row.gguf_id is not None])
    outer = tuple(random_.randrange(1, 4) for _ in range(random_.randrange(4)))
    tensor_type = TensorType(row, (*outer, row.block * random_.randrange(1, 3)))
    return HostTensor(tensor_type, np.zeros(tensor_type.nbytes, np.uint8))


def valid_file(random_: random.Random, path: Path) -> bytes:
    metadata = {f"key.{i}": random_value(random_) for i in range(random_.randrange(8))}
    tensors = {f"tensor.{i}": random_tensor(random_) for i in range(random_.randrange(5))}
    write(path, metadata, tensors, alignment=random_.choice([8, 32, 64]))
    return path.read_bytes()


def damage(random_: random.Random, content: bytes) -> bytes:
    """Damage a file in one to four places, mostly in its header."""
    damaged = bytearray(content)
    for _ in range(random_.randrange(1, 5)):
        reach = max(1, min(len(damaged), random_.choice([32, 128, 1024, 1 << 30])))
        position = random_.randrange(reach)
        action = random_.randrange(6)
        if action == 0 and damaged:
            damaged[position] ^= 1 << random_.randrange(8)
        elif action == 1:
            number = random_.choice(TREACHEROUS)
            width = random_.choice(["<I", "<Q"])
            packed = struct.pack(width, number & (2**32 - 1 if width == "<I" else 2**64 - 1))
            damaged[position : position + len(packed)] = packed
        elif action == 2:
            del damaged[position:]
        elif action == 3:
            del damaged[position : position + random_.randrange(16)]
        elif action == 4:
            damaged[position:position] = damaged[position : position + random_.randrange(64)]
        else:
            damaged[position:position] = random_.randbytes(random_.randrange(1, 16))
    return bytes(damaged)


def read_everything(path: Path) -> None:
    with GGUFFile.open(path) as file:
        for key, value in file.metadata.items():
            file.metadata.type_name(key)
            file.metadata.encoded(key)
            read_value(value)
        for name, info in file.tensors.items():
            assert file.tensor(name).nbytes == info.nbytes


def read_value(value: object) -> None:
    if isinstance(value, NestedArray):
        for item in value:
            read_value(item)
    elif isinstance(value, StringArray):
        assert len(list(value)) == len(value)
        if len(value):
            assert value[len(value) - 1] == value[-1]
    elif isinstance(value, np.ndarray):
        assert len(value.tolist()) == len(value)


def judge(path: Path) -> tuple[str, str | None]:
    """What became of a file, and what is wrong with that."""
    tracemalloc.reset_peak()
    start = time.perf_counter()
    outcome = "read"
    try:
        read_everything(path)
    except (FormatError, UsageError) as exc:
        outcome = "refused"
        if str(path) not in str(exc):
            return outcome, f"the message does not name the file: {exc}"
    except Exception:  # noqa: BLE001  # every other exception is what is looked for
        return "crashed", traceback.format_exc()
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    if seconds > SECONDS_ALLOWED:
        return outcome, f"it took {seconds:.1f} s"
    if peak > BYTES_ALLOWED:
        return outcome, f"it took {peak} bytes"
    return outcome, None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], help="start from these too")
    arguments = parser.parse_args()

    random_ = random.Random(arguments.seed)
    corpus = [path.read_bytes() for path in arguments.corpus]
    outcomes: dict[str, int] = {}
    findings = 0
    tracemalloc.start()
    deadline = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        base, path = Path(folder) / "base.gguf", Path(folder) / "case.gguf"
        while time.monotonic() < deadline:
            content = valid_file(random_, base)
            if corpus and random_.random() < 0.1:
                content = random_.choice(corpus)
            for _ in range(50):
                case = damage(random_, content)
                path.write_bytes(case)
                outcome, trouble = judge(path)
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                if trouble:
                    findings += 1
                    arguments.keep.mkdir(exist_ok=True)
                    kept = arguments.keep / f"{arguments.seed}-{findings}.gguf"
                    kept.write_bytes(case)
                    print(f"{kept}: {trouble}", file=sys.stderr)
    print(outcomes, f"{findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
