"""Compiling kernels written in Python, keeping them on disk, and loading them again.

target      the instruction set that kernels are made for
vectors     LLVM vectors as Numba types; `instruction` makes IR into a function
forms       what differs between instruction sets
simd        the vocabulary that kernels are written in
build       kernel -> object file (imports Numba)
cache       object files on disk
loader      object file -> address (imports llvmlite alone)
"""
