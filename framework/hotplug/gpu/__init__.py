"""What every GPU backend shares; it knows no vendor.

dialects/     one page of macros per language: OpenCL C, CUDA C++
kernels/      the kernels, written once in that vocabulary
sources       a kernel and its definitions -> source text
driver        the dozen calls that a vendor's package offers
tensors       where operands lie, as kernels take it
catalog/      op -> launches of kernels, or why not
cache         compiled kernels on disk
executable    a partition as a list of bound launches
device        the contract's device over a driver
"""
