"""llama.cpp as a measured peer; runs in an environment of its own, made by `make bench-peers`.

    peer_llama.py MODEL THREADS CONTEXT      serve: one JSON object per line each way
        {"prefill": ids}    read them into an empty cache
        {"keep": length}    have a cache of so many tokens; what is there already is kept
        {"decode": count}   make tokens one by one
        -> {"seconds": ...}
    peer_llama.py MODEL --quantise TARGET TYPE

Calls go to the C API, so that no Python of the binding is timed.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from importlib import metadata

import llama_cpp


class Peer:
    def __init__(self, path: str, threads: int, context: int) -> None:
        model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = context
        options.n_batch = options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        self.state = llama_cpp.llama_init_from_model(model, options)
        self.cache = llama_cpp.llama_get_memory(self.state)
        self.length = 0

    def prefill(self, ids: list[int]) -> None:
        self.cut(0)
        for start in range(0, len(ids), 512):
            self.read(ids[start : start + 512])

    def keep(self, length: int) -> None:
        if self.length < length:
            self.prefill([2] * length)
        self.cut(length)

    def decode(self, count: int) -> None:
        for _ in range(count):
            self.read([2])

    def cut(self, length: int) -> None:
        if length:
            llama_cpp.llama_memory_seq_rm(self.cache, 0, length, -1)
        else:
            llama_cpp.llama_memory_clear(self.cache, True)
        self.length = length

    def read(self, ids: list[int]) -> None:
        array = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(self.state, llama_cpp.llama_batch_get_one(array, len(ids))):
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_get_logits_ith(self.state, -1)
        self.length += len(ids)


def serve(path: str, threads: int, context: int) -> None:
    began = time.perf_counter()
    peer = Peer(path, threads, context)
    loaded = time.perf_counter() - began
    say({"version": metadata.version("llama-cpp-python"), "load_seconds": loaded})
    for line in sys.stdin:
        ((work, amount),) = json.loads(line).items()
        began = time.perf_counter()
        getattr(peer, work)(amount)
        say({"seconds": time.perf_counter() - began})


def quantise(source: str, target: str, kind: str) -> None:
    options = llama_cpp.llama_model_quantize_default_params()
    name = "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{name}")
    options.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options)):
        sys.exit(f"llama.cpp cannot make {kind} of {source}")


def say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    llama_cpp.llama_backend_init()
    quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    if sys.argv[2] == "--quantise":
        quantise(sys.argv[1], *sys.argv[3:])
    else:
        serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
