"""What tests of the text side share."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from hotplug.backend import DeviceInfo, DeviceType
from hotplug.dtypes import get
from hotplug.formats.gguf import GGUFFile, write
from hotplug.tensor import HostTensor, TensorType
from hotplug_llm.chat import ChatTemplate
from hotplug_llm.generation import Generation, Stopping
from hotplug_llm.sampling import SamplingOptions
from hotplug_llm.tokenizers import from_gguf


@pytest.fixture(scope="session")
def facts():
    """Reads what other programs say, from data/ (tools/make_tokenizer_facts.py wrote it)."""

    def read(name):
        path = Path(__file__).parent / "data" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    return read


@pytest.fixture(scope="session")
def demo_metadata(demo_model):
    """Metadata of the demo model, as plain values."""
    with GGUFFile.open(demo_model) as file:
        names = [key for key in file.metadata if key.startswith(("tokenizer.", "llama."))]
        return {name: file.metadata[name] for name in names}


@pytest.fixture(scope="session")
def demo_tokenizer(demo_model):
    with GGUFFile.open(demo_model) as file:
        return from_gguf(file.metadata)


BYTES = [
    *(chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))),
    *(chr(256 + place) for place in range(68)),
]
"""GPT-2's spelling of all bytes, in no particular order."""


VOCABULARY = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": [*BYTES, "<|im_start|>", "<|im_end|>", "<|endoftext|>", "\u0120word"],
    "tokenizer.ggml.token_type": [1] * 256 + [3, 3, 3, 1],
    "tokenizer.ggml.merges": ["\u0120 w"],
    "tokenizer.ggml.eos_token_id": 257,
}


class ScriptedModel:
    """Says a given text, character by character, after any prompt. Its context is 64 tokens.

    Attributes:
        evaluated: how many tokens each evaluation took.
    """

    context = 64
    deterministic = False
    load_seconds = 0.25
    name = "scripted"
    path = Path("scripted.gguf")

    def __init__(self, script="", template=None):
        self.tokenizer = from_gguf(VOCABULARY)
        self.chat_template = template and ChatTemplate(template)
        self.devices = [DeviceInfo("fake", 0, "Fake", DeviceType.CPU)]
        self.closed = False
        self.lock = threading.RLock()
        self.evaluated = []
        self.past = []
        self.say(script)

    def say(self, *parts):
        """What to answer next: texts and token ids."""
        self.script = [
            token
            for part in parts
            for token in ([part] if isinstance(part, int) else self.tokenizer.encode(part))
        ]

    # As an evaluator:

    def reuse(self, ids):
        common = 0
        while common < min(len(self.past), len(ids) - 1) and self.past[common] == ids[common]:
            common += 1
        del self.past[common:]
        return common

    def finds(self, largest):
        return False

    def prepare(self, count, largest=0, control=None):
        pass

    def last_logits(self, ids, *, proceed=None, control=None):
        self.past += ids
        self.evaluated.append(len(ids))
        if proceed is not None:
            proceed(len(ids))
        logits = np.zeros(300, np.float32)  # padded, as embeddings may be
        logits[280] = 9
        token = self.script.pop(0)
        if isinstance(token, BaseException):
            raise token
        logits[token] = 5
        return logits

    # As a model:

    def generate(self, prompt, *, raw=False, **stopping):
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt)
        else:
            ids = self.tokenizer.encode(self.chat_template.render(prompt))
        sampling = stopping.pop("sampling", None) or SamplingOptions(temperature=0)
        stop = Stopping(
            stopping.get("max_tokens"),
            tuple(stopping.get("stop", ())),
            stopping.get("ignore_eos", False),
        )
        return Generation(self, self, ids, sampling, stop)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.closed = True


@pytest.fixture
def scripted():
    return ScriptedModel


TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}a:"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A model of two layers with random weights: it runs at once, and talks nonsense."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path, layers=2, width=32, context=64)
    return path


@pytest.fixture(scope="session")
def deep_model(tmp_path_factory):
    """The same with eight layers of 148 kB and a context of 4096 tokens, 1 kB each."""
    path = tmp_path_factory.mktemp("model") / "deep.gguf"
    write_model(path, layers=8, width=64, context=4096)
    return path


def write_model(path, *, layers, width, context):
    source = np.random.default_rng(3)
    inner, vocabulary = 2 * width, len(VOCABULARY["tokenizer.ggml.tokens"])
    block = {
        "attn_norm": (width,),
        "attn_q": (width, width),
        "attn_k": (width // 2, width),
        "attn_v": (width // 2, width),
        "attn_output": (width, width),
        "ffn_norm": (width,),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }
    shapes = {"token_embd": (vocabulary, width), "output_norm": (width,)}
    shapes |= {f"blk.{i}.{name}": shape for i in range(layers) for name, shape in block.items()}
    tensors = {
        f"{name}.weight": HostTensor(
            TensorType(get("f32"), shape),
            source.standard_normal(shape).astype(np.float32).view(np.uint8).reshape(-1),
        )
        for name, shape in shapes.items()
    }
    metadata = {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "llama.context_length": context,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": inner,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.chat_template": TEMPLATE,
        **VOCABULARY,
    }
    write(path, metadata, tensors)


# Started by a process of its own: a child's peak begins with what its parent has at the fork.
_MEASURE = """
import os, subprocess, sys, time
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
peak = own = 0
status = f"/proc/{process.pid}/status"
while process.poll() is None:
    if os.path.exists(status):
        with open(status) as file:
            own = max([own, *[int(line.split()[1]) for line in file if line[:8] == "RssAnon:"]])
    time.sleep(0.005)
if os.name == "posix":
    import resource
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024), own * 1024)
sys.exit(process.returncode)
"""


@pytest.fixture
def run_measured():
    """Runs `hotplug`: exit code, standard error, peak bytes, and those that are no file's.

    Bytes are 0 where nobody tells.
    """

    def run(arguments):
        command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "hotplug", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, *map(int, done.stdout.split())

    return run
