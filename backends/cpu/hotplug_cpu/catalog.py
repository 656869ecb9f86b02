"""Every compiled kernel: what it is called, where its source is, which words it takes.

Knowing a kernel imports neither Numba nor the module its source is in, so that a process whose
kernels are all in the cache never pays for either.

A kernel in a plan is called as `kernel(row, thread, threads)`: `row` is the address of
`ROW_WORDS` int64 words of which the first is the kernel's own address and those from
`FIRST_ARGUMENT` on are its arguments, addresses and sizes. All threads call it at once; each does
its share. A row ends with a barrier unless its second word is 0. A kernel whose source has a third
parameter `counter` is given the address of the row's last word, by which threads share work: see
`kernels.shares`. Such a row must lie where it can be written, with zero there at first. Other
kernels are called with their arguments alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from hotplug.errors import GraphError

__all__ = ["FIRST_ARGUMENT", "KERNELS", "ROW_WORDS", "KernelSpec", "kernel", "symbol"]

ROW_WORDS = 32
FIRST_ARGUMENT = 2


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """A compiled kernel.

    Attributes:
        name: unique; also the name under which `module.KERNELS` holds its source.
        module: where its source is.
        arguments: names of the int64 words it takes after `thread` and `threads`.
        in_plan: whether it is called by a plan's row.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    in_plan: bool = True


def _specs(module: str, rows: dict[str, str], *, in_plan: bool = True) -> list[KernelSpec]:
    path = f"hotplug_cpu.kernels.{module}"
    return [KernelSpec(name, path, tuple(words.split()), in_plan) for name, words in rows.items()]


_PRODUCT = (
    "unpack weights row_bytes rows count chunk_bytes tiles tokens "
    "out out_stride add add_stride scratch scratch_stride"
)
_WIDE_PRODUCT = (
    "unpack weights row_bytes rows count chunk_bytes x x_stride x_chunk tokens "
    "out out_stride add add_stride scratch scratch_stride"
)
_UNPACK = "source row_bytes rows"
_LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl")
_QUANTISED = (*_LEGACY, "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs")
_ALL_TYPES = ("f32", "f16", "bf16", *_QUANTISED)

_PEAK = "x steps times out"
_CACHE = "q q_stride k k_stride v v_stride positions"
_HEADS = "tokens heads kv_heads width value_width rows scale softcap window causal"
_ATTENTION = f"{_CACHE} sinks out out_stride {_HEADS} scratch scratch_stride"
_SPLIT = f"{_CACHE} {_HEADS} splits partials scratch scratch_stride"

_TABLE: list[KernelSpec] = [
    *_specs("attention", {"attention_f16": _ATTENTION, "attention_f32": _ATTENTION}),
    *_specs(
        "attention_split",
        {
            "attention_split_f16": _SPLIT,
            "attention_split_f32": _SPLIT,
            "attention_combine": ("partials sinks out out_stride tokens heads value_width splits"),
        },
    ),
    *_specs(
        "gemm",
        {
            "quantise_tiles": "x x_stride tokens blocks tiles",
            "gemm_u4": _PRODUCT,
            "gemm_u5": _PRODUCT,
            "gemm_i8": _PRODUCT,
            "gemm_halves": _PRODUCT,
        },
    ),
    *_specs(
        "gemm_wide",
        {
            "pack_rows": "x x_stride tokens width out",
            "gemm_f32": _WIDE_PRODUCT,
            "gemm_i16": _WIDE_PRODUCT,
        },
    ),
    *_specs("words", {"quantise_words": "x x_stride tokens blocks words"}),
    *_specs(
        "words",
        {f"words_{name}": f"{_UNPACK} blocks panel" for name in ("f16", "bf16", "q8_0")},
        in_plan=False,
    ),
    *_specs(
        "weights",
        {f"weights_{name}": f"{_UNPACK} blocks panel" for name in _QUANTISED},
        in_plan=False,
    ),
    *_specs(
        "floats",
        {f"floats_{name}": f"{_UNPACK} count panel" for name in _ALL_TYPES},
        in_plan=False,
    ),
    *_specs(
        "matvec",
        {
            f"matvec_{name}": "weights row_bytes rows count x x_stride tokens "
            "out out_stride add add_stride x_copies grain"
            for name in (*_QUANTISED, *(f"{name}_f32" for name in _ALL_TYPES))
        },
    ),
    *_specs(
        "rope",
        {
            "rope": "x x_token x_head tokens heads length table turned half "
            "out out_token out_head indices wide out_rows narrow",
            "rope_table": "positions wide tokens frequencies factors pairs magnitude half out",
        },
    ),
    *_specs(
        "rows",
        {
            "add": "a a_stride b b_stride rows count out out_stride",
            "quantise": "x x_stride rows blocks out copies",
            "read": "at nbytes out",
            "rms_norm": "x x_stride weight eps rows count out out_stride",
            "rms_norm_quantise": "x x_stride weight eps rows blocks out copies",
            "scatter_rows": "x x_stride rows count indices wide table table_stride table_rows half",
            "swiglu": "gate gate_stride up up_stride rows count out out_stride",
            "swiglu_quantise": "gate gate_stride up up_stride rows blocks out",
        },
    ),
    *_specs(
        "tables",
        {
            f"take_{name}": "table table_stride table_rows indices wide rows count out out_stride"
            for name in _ALL_TYPES
        },
    ),
    *_specs(
        "walk",
        {
            "alone": "plan rows threads",
            "finish": "control",
            "post": "control plan rows",
            "serve": "control thread",
            "ticks": "",
        },
        in_plan=False,
    ),
    *_specs("yardsticks", {"peak_f32": _PEAK, "peak_i8": _PEAK, "stamp": "at"}),
]

KERNELS: dict[str, KernelSpec] = {spec.name: spec for spec in _TABLE}


def kernel(name: str) -> KernelSpec:
    """The kernel of a name.

    Raises:
        GraphError: there is none.
    """
    try:
        return KERNELS[name]
    except KeyError:
        raise GraphError(f"no compiled kernel is named {name!r}") from None


def symbol(spec: KernelSpec) -> str:
    """Name of the kernel's function in its object file."""
    return f"hotplug_cpu_{spec.name}"
