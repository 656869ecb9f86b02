"""llama.cpp as a measured peer: loads a model, then times what standard input asks for.

Runs in an environment of its own, made by `make bench-peers`. One JSON object per line each way:
{"prefill": ids} or {"decode": count} -> {"seconds": ...}. Calls go to the C API, so that no Python
of the binding is timed.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from importlib import metadata

import llama_cpp


def main(path: str, threads: int, context: int) -> None:
    llama_cpp.llama_backend_init()
    quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    began = time.perf_counter()
    model = llama_cpp.llama_model_load_from_file(
        path.encode(), llama_cpp.llama_model_default_params()
    )
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = context
    options.n_batch = options.n_ubatch = 512
    options.n_threads = options.n_threads_batch = threads
    state = llama_cpp.llama_init_from_model(model, options)
    loaded = time.perf_counter() - began
    say({"version": metadata.version("llama-cpp-python"), "load_seconds": loaded})
    for line in sys.stdin:
        wanted = json.loads(line)
        ids = wanted.get("prefill") or [1] * wanted["decode"]
        steps = [ids] if "prefill" in wanted else [[token] for token in ids]
        if "prefill" in wanted:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(state), True)
        began = time.perf_counter()
        for step in steps:
            decode(state, step)
        say({"seconds": time.perf_counter() - began})


def decode(state: object, ids: list[int]) -> None:
    array = (llama_cpp.llama_token * len(ids))(*ids)
    batch = llama_cpp.llama_batch_get_one(array, len(ids))
    if llama_cpp.llama_decode(state, batch) != 0:
        raise RuntimeError("llama_decode failed")
    llama_cpp.llama_get_logits_ith(state, -1)


def say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
