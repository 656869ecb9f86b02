"""llama.cpp's own RPC as a measured peer; runs in the environment of `make bench-peers-rpc`.

peer_llama_rpc.py --serve PORT THREADS FOLDER     its server, with a cache of tensors in FOLDER
peer_llama_rpc.py MODEL THREADS CONTEXT PORT      as peer_llama.py, all layers on that server
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import llama_cpp
import peer_llama

_ALL_LAYERS = 999
_CPU = 0  # GGML_BACKEND_DEVICE_TYPE_CPU


def library() -> ctypes.CDLL:
    """libggml, with the calls that are used here declared; all backends are loaded."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    # Wheels hold copies instead of links, each with devices of its own: llama.cpp uses this one.
    paths = [
        *folder.glob("libggml.so.0"),
        *folder.glob("libggml.0.dylib"),
        *folder.glob("ggml.dll"),
    ]
    found = ctypes.CDLL(str(paths[0]))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("ggml_backend_reg_by_name", pointer, [text]),
        ("ggml_backend_reg_get_proc_address", pointer, [pointer, text]),
        ("ggml_backend_dev_by_type", pointer, [ctypes.c_int]),
        ("ggml_backend_register", None, [pointer]),
        ("ggml_backend_load_all", None, []),
    ):
        call = getattr(found, name)
        call.restype, call.argtypes = result, arguments
    found.ggml_backend_load_all()
    return found


def rpc_call(ggml: ctypes.CDLL, name: str, *signature: object) -> object:
    """A function of the RPC backend."""
    registration = ggml.ggml_backend_reg_by_name(b"RPC")
    if not registration:
        sys.exit("this llama.cpp has no RPC backend: make bench-peers-rpc")
    address = ggml.ggml_backend_reg_get_proc_address(registration, name.encode())
    return ctypes.CFUNCTYPE(*signature)(address)  # type: ignore[arg-type]


def serve(port: int, threads: int, folder: str) -> None:
    ggml = library()
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    start = rpc_call(
        ggml, "ggml_backend_rpc_start_server", None, ctypes.c_char_p, ctypes.c_char_p, size, size,
        ctypes.POINTER(pointer),
    )  # fmt: skip
    devices = (pointer * 1)(ggml.ggml_backend_dev_by_type(_CPU))
    start(f"127.0.0.1:{port}".encode(), folder.encode(), threads, 1, devices)  # type: ignore[operator]


def connect(port: int) -> None:
    ggml = library()
    add = rpc_call(ggml, "ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
    ggml.ggml_backend_register(add(f"127.0.0.1:{port}".encode()))  # type: ignore[operator]


if __name__ == "__main__":
    llama_cpp.llama_backend_init()
    if sys.argv[1] == "--serve":
        serve(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
        connect(int(sys.argv[4]))
        peer_llama.serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), layers=_ALL_LAYERS)
