"""Time to open a model file, against the `gguf` package; prints one JSON object.

    python benchmarks/gguf_open.py [model.gguf] [--repeats 5]

Opened are the model (by default the demo model) and a generated file with a vocabulary of 262,144
tokens. Measured are opening alone, and opening with every token decoded to a string. The two
readers take turns, so that a busy machine slows both; times are medians in seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf
from demo import demo_model

from hotplug.formats.gguf import GGUFFile, Typed, write

VOCABULARY = 262_144
TOKENS = "tokenizer.ggml.tokens"


def ours_open(path: Path) -> None:
    GGUFFile.open(path).close()


def ours_tokens(path: Path) -> int:
    with GGUFFile.open(path) as file:
        return len(list(file.fields().require_array(TOKENS, str)))


def theirs_open(path: Path) -> None:
    gguf.GGUFReader(path)


def theirs_tokens(path: Path) -> int:
    field = gguf.GGUFReader(path).get_field(TOKENS)
    return len(field.contents())


def seconds(action: Callable[[Path], object], path: Path) -> float:
    start = time.perf_counter()
    action(path)
    return time.perf_counter() - start


def compare(
    ours: Callable[[Path], object], theirs: Callable[[Path], object], path: Path, repeats: int
) -> dict[str, float]:
    pairs = [(seconds(ours, path), seconds(theirs, path)) for _ in range(repeats)]
    our_time, their_time = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "hotplug": round(our_time, 4),
        "gguf": round(their_time, 4),
        "ratio": round(statistics.median(b / a for a, b in pairs), 1),
    }


def measure(path: Path, repeats: int) -> dict[str, object]:
    with GGUFFile.open(path) as file:
        tokens = len(file.fields().require_array(TOKENS, str))
    return {
        "tokens": tokens,
        "open": compare(ours_open, theirs_open, path, repeats),
        "open_and_decode_tokens": compare(ours_tokens, theirs_tokens, path, repeats),
    }


def write_vocabulary(path: Path) -> None:
    """A file with as many tokens, scores and types as the largest vocabularies have."""
    random_ = random.Random(0)
    letters = "etaoinshrdlucmfw"
    words = ["".join(random_.choices(letters, k=random_.randint(1, 16))) for _ in range(VOCABULARY)]
    metadata = {
        "general.architecture": "gemma3",
        TOKENS: words,
        "tokenizer.ggml.scores": [-float(i) for i in range(VOCABULARY)],
        "tokenizer.ggml.token_type": Typed([1] * VOCABULARY, "i32"),
    }
    write(path, metadata, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    model = arguments.model or demo_model()
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocabulary.gguf"
        write_vocabulary(vocabulary)
        results = {
            model.name: measure(model, arguments.repeats),
            "generated vocabulary": measure(vocabulary, arguments.repeats),
        }
    print(json.dumps({"benchmark": "gguf_open", "unit": "s", "results": results}, indent=2))


if __name__ == "__main__":
    main()
