"""llama.cpp as a measured peer; runs in an environment of its own, made by `make bench-peers`.

    peer_llama.py MODEL THREADS CONTEXT      serve: one JSON object per line each way
        {"prefill": ids}    read them into an empty cache
        {"keep": length}    have a cache of so many tokens; what is there already is kept
        {"decode": count}   make tokens one by one
        {"nlls": ids}       negative log-likelihoods of all but the first
        -> {"seconds": ..., "nlls": [...]}
    peer_llama.py MODEL --quantise TARGET TYPE
    peer_llama.py MODEL --generate THREADS CONTEXT COUNT PROMPT
                            write the likeliest tokens, each as soon as it is there
    peer_llama.py --versions                 what is installed, and what it was built for, as JSON

Calls go to the C API, so that no Python of the binding is timed.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
import time
from importlib import metadata
from pathlib import Path

import llama_cpp
import numpy as np

_PIECE = 128  # tokens read at once where the logits of all are wanted


class Peer:
    def __init__(self, path: str, threads: int, context: int, layers: int | None = None) -> None:
        """Load; `layers` is how many go to devices that are not the processor."""
        how = llama_cpp.llama_model_default_params()
        if layers is not None:
            how.n_gpu_layers = layers
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), how)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = context
        options.n_batch = options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        self.state = llama_cpp.llama_init_from_model(self.model, options)
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
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

    def nlls(self, ids: list[int]) -> list[float]:
        self.cut(0)
        losses = []
        size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        for start in range(0, len(ids) - 1, _PIECE):
            piece = ids[start : min(start + _PIECE, len(ids) - 1)]
            self.read_all(piece, start)
            for index, target in enumerate(ids[start + 1 : start + 1 + len(piece)]):
                row = np.ctypeslib.as_array(self.logits(index), (size,)).astype(np.float64)
                top = row.max()
                losses.append(float(top + math.log(np.exp(row - top).sum()) - row[target]))
        return losses

    def logits(self, index: int) -> ctypes.Array[ctypes.c_float]:
        return llama_cpp.llama_get_logits_ith(self.state, index)  # type: ignore[no-any-return]

    def read_all(self, ids: list[int], start: int) -> None:
        """Read tokens and have logits after each."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for index, token in enumerate(ids):
            batch.token[index], batch.pos[index] = token, start + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = 1
        if llama_cpp.llama_decode(self.state, batch):
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_batch_free(batch)
        self.length += len(ids)

    def tokenize(self, text: str) -> list[int]:
        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(
            self.vocabulary, data, len(data), room, len(room), True, False
        )
        return list(room[:count])

    def likeliest(self) -> int:
        size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        return int(np.ctypeslib.as_array(self.logits(-1), (size,)).argmax())

    def text(self, token: int) -> str:
        room = ctypes.create_string_buffer(64)
        count = llama_cpp.llama_token_to_piece(self.vocabulary, token, room, len(room), 0, True)
        return room.raw[:count].decode(errors="replace")

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


def serve(path: str, threads: int, context: int, layers: int | None = None) -> None:
    began = time.perf_counter()
    peer = Peer(path, threads, context, layers)
    loaded = time.perf_counter() - began
    say({"version": metadata.version("llama-cpp-python"), "load_seconds": loaded})
    for line in sys.stdin:
        ((work, amount),) = json.loads(line).items()
        began = time.perf_counter()
        result = getattr(peer, work)(amount)
        say({"seconds": time.perf_counter() - began, work: result})


def generate(path: str, threads: int, context: int, count: int, prompt: str) -> None:
    peer = Peer(path, threads, context)
    peer.read(peer.tokenize(prompt))
    for number in range(count):
        token = peer.likeliest()
        sys.stdout.write(peer.text(token))
        sys.stdout.flush()
        if number < count - 1:
            peer.read([token])


def quantise(source: str, target: str, kind: str) -> None:
    options = llama_cpp.llama_model_quantize_default_params()
    name = "ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{name}")
    options.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options)):
        sys.exit(f"llama.cpp cannot make {kind} of {source}")


def versions() -> dict[str, object]:
    found: dict[str, object] = {"llama-cpp-python": metadata.version("llama-cpp-python")}
    for path in (Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base.*"):
        library = ctypes.CDLL(str(path))
        for call in (library.ggml_version, library.ggml_commit):
            call.restype = ctypes.c_char_p
        commit = library.ggml_commit().decode()
        found["ggml, of llama.cpp"] = f"{library.ggml_version().decode()} ({commit})"
        break
    words = llama_cpp.llama_print_system_info().decode().replace("|", ":").split(":")
    uses = [word.strip().removesuffix(" = 1") for word in words if word.strip().endswith(" = 1")]
    return {**found, "llama.cpp built for": " ".join(uses)}


def say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    llama_cpp.llama_backend_init()
    quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    if sys.argv[1] == "--versions":
        say(versions())
    elif sys.argv[2] == "--quantise":
        quantise(sys.argv[1], *sys.argv[3:])
    elif sys.argv[2] == "--generate":
        threads, context, count = map(int, sys.argv[3:6])
        generate(sys.argv[1], threads, context, count, sys.argv[6])
    else:
        serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
