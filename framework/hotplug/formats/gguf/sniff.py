"""What a file is that turned out not to be GGUF."""

from __future__ import annotations

__all__ = ["resembles"]

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer; the model itself was not fetched"),
    (b"PK\x03\x04", "a zip archive, as PyTorch checkpoints are"),
    (b"\x80\x02", "a Python pickle, as old PyTorch checkpoints are"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"\x1f\x8b", "gzip data; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data; unpack it first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"lmgg", "a GGML file, which GGUF replaced; convert the model anew"),
    (b"fmgg", "a GGMF file, which GGUF replaced; convert the model anew"),
    (b"tjgg", "a GGJT file, which GGUF replaced; convert the model anew"),
    (b"algg", "a GGLA adapter, which GGUF replaced; convert it anew"),
    (b"FUGG", "GGUF with its magic number byte-swapped"),
    (b"{", "JSON"),
)


def resembles(start: bytes) -> str | None:
    """A phrase for what a file looks like.

    Args:
        start: its first bytes; 512 will do.

    Returns:
        Such as "a zip archive", or None if it looks like nothing known.
    """
    for magic, phrase in _STARTS:
        if start.startswith(magic):
            return phrase
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < 1 << 32:
        return "a safetensors file"
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page; the download link led to one"
    if start and not any(start):
        return "a file of zeros, as an unfinished download may be"
    return None
