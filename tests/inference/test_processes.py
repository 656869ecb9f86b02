"""With the same number of threads every process computes the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import hashlib, json, sys
import hotplug_llm

def digest(model, ids):  # a prompt, then one token at a time
    evaluator = model._evaluator
    with evaluator.lock:
        evaluator.rewind(0)
        parts = [evaluator.all_logits(ids[:32]), *(evaluator.all_logits([n]) for n in ids[32:])]
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

found = {}
for threads in (2, 3):
    with hotplug_llm.load(sys.argv[1], "cpu", context=256, threads=threads) as model:
        answer = model.generate("Name three harbours and what they are known for. " * 4,
            max_tokens=16, sampling=hotplug_llm.SamplingOptions(temperature=1.0, seed=5),
            ignore_eos=True)
        text = "".join(answer)
        found[threads] = [answer.ids, text, digest(model, model.tokenize(text * 3)[:40])]
print(json.dumps(found))
"""


def found_by_a_process(model: Path) -> dict[str, Any]:
    """Ids, text, and a digest of logits, by number of threads."""
    command = [sys.executable, "-c", SCRIPT, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_processes_compute_the_same(demo_model: Path) -> None:
    first = found_by_a_process(demo_model)
    assert set(first) == {"2", "3"}
    assert all(len(ids) == 16 and text for ids, text, _ in first.values())
    assert found_by_a_process(demo_model) == first
