"""Kernels in Python, compiled by `jit`. Importing any of these modules imports Numba."""
