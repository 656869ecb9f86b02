"""Writes docs/ops.md: every op of the table, and where each op of ggml is found here.

    python tools/make_ops_page.py          writes the page
    python tools/make_ops_page.py --check  ends with 1 if it is not up to date

GGML lists ggml 0.25 (`enum ggml_op`, `ggml_unary_op` and `ggml_glu_op` in `ggml.h`), but for ops
that only training needs and those that call a user's function.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hotplug.ops import OPS, Op, composed

PAGE = Path(__file__).parents[1] / "docs" / "ops.md"

GGML = {
    "DUP": "contiguous, cast", "ADD": "add", "ADD_ID": "add_rows_by_id",
    "ADD1": "add, of a scalar", "ACC": "composed.add_to_slice", "SUB": "sub", "MUL": "mul",
    "DIV": "div", "SQR": "square", "SQRT": "sqrt", "LOG": "log", "SIN": "sin", "COS": "cos",
    "SUM": "sum, of a tensor reshaped to one axis", "SUM_ROWS": "sum", "CUMSUM": "cumsum",
    "MEAN": "mean", "ARGMAX": "argmax", "COUNT_EQUAL": "count_equal", "REPEAT": "repeat",
    "CONCAT": "concat", "NORM": "layer_norm", "RMS_NORM": "rms_norm", "GROUP_NORM": "group_norm",
    "L2_NORM": "l2_norm", "MUL_MAT": "matmul", "MUL_MAT_ID": "matmul_grouped",
    "OUT_PROD": "matmul, of transpose; outer for vectors", "SCALE": "scale",
    "SET": "composed.set_slice", "CPY": "cast, contiguous; scatter_rows into a state",
    "CONT": "contiguous", "RESHAPE": "reshape", "VIEW": "slice", "PERMUTE": "permute",
    "TRANSPOSE": "transpose", "GET_ROWS": "take", "SET_ROWS": "scatter_rows", "DIAG": "diag",
    "DIAG_MASK_INF": "triangular, with value -inf", "DIAG_MASK_ZERO": "triangular",
    "SOFT_MAX": "softmax", "ROPE": "rope", "CLAMP": "clamp",
    "CONV_TRANSPOSE_1D": "conv_transpose", "IM2COL": "im2col", "IM2COL_3D": "im2col",
    "COL2IM_1D": "col2im", "CONV_2D": "conv", "CONV_3D": "conv",
    "CONV_2D_DW": "conv, with groups", "CONV_TRANSPOSE_2D": "conv_transpose",
    "POOL_1D": "max_pool, avg_pool without count_include_pad", "POOL_2D": "max_pool, avg_pool",
    "UPSCALE": "interpolate", "PAD": "pad", "PAD_REFLECT_1D": "pad_reflect", "ROLL": "roll",
    "ARANGE": "arange", "TIMESTEP_EMBEDDING": "composed.timestep_embedding",
    "ARGSORT": "argsort", "TOP_K": "top_k", "LEAKY_RELU": "leaky_relu", "TRI": "triangular",
    "FILL": "fill", "FLASH_ATTN_EXT": "scaled_dot_product_attention",
    "SSM_CONV": "composed.causal_conv1d", "SSM_SCAN": "selective_scan",
    "WIN_PART": "composed.window_partition", "WIN_UNPART": "composed.window_unpartition",
    "GET_REL_POS": "composed.get_rel_pos", "ADD_REL_POS": "composed.add_rel_pos",
    "RWKV_WKV6": "wkv6", "GATED_LINEAR_ATTN": "gated_linear_attention", "RWKV_WKV7": "wkv7",
    "SOLVE_TRI": "solve_triangular", "GATED_DELTA_NET": "gated_delta_rule",
    "LIGHTNING_INDEXER": "composed.lightning_indexer",
    "DSV4_HC_COMB": "composed.hyper_connection_mix",
    "DSV4_HC_PRE": "composed.hyper_connection_read",
    "DSV4_HC_POST": "composed.hyper_connection_combine",
    "CROSS_ENTROPY_LOSS": "composed.cross_entropy_loss",
    "UNARY_ABS": "abs", "UNARY_SGN": "sign", "UNARY_NEG": "neg", "UNARY_STEP": "step",
    "UNARY_TANH": "tanh", "UNARY_ELU": "elu", "UNARY_RELU": "relu", "UNARY_SIGMOID": "sigmoid",
    "UNARY_GELU": "gelu", "UNARY_GELU_QUICK": "gelu_quick", "UNARY_SILU": "silu",
    "UNARY_HARDSWISH": "hardswish", "UNARY_HARDSIGMOID": "hardsigmoid", "UNARY_EXP": "exp",
    "UNARY_EXPM1": "expm1", "UNARY_SOFTPLUS": "softplus", "UNARY_GELU_ERF": "gelu_erf",
    "UNARY_XIELU": "xielu", "UNARY_FLOOR": "floor", "UNARY_CEIL": "ceil",
    "UNARY_ROUND": "round", "UNARY_TRUNC": "trunc",
    "GLU_REGLU": "reglu", "GLU_GEGLU": "geglu", "GLU_SWIGLU": "swiglu",
    "GLU_SWIGLU_OAI": "swiglu_clamped", "GLU_GEGLU_ERF": "geglu_erf",
    "GLU_GEGLU_QUICK": "geglu_quick",
    "GLU_SWIGLU_CLAMP": "swiglu_clamped, with shift 0 and alpha 1",
}  # fmt: skip

LEFT_OUT = (
    "REPEAT_BACK", "SILU_BACK", "RMS_NORM_BACK", "GET_ROWS_BACK", "SOFT_MAX_BACK", "ROPE_BACK",
    "IM2COL_BACK", "POOL_2D_BACK", "FLASH_ATTN_BACK", "CROSS_ENTROPY_LOSS_BACK",
    "OPT_STEP_ADAMW", "OPT_STEP_SGD", "MAP_CUSTOM1", "MAP_CUSTOM2", "MAP_CUSTOM3", "CUSTOM",
)  # fmt: skip

HEAD = """# Ops

Made by `tools/make_ops_page.py`. What an op means in full is in its rule's text:
`help(hotplug.ops.NAME.rule)`.

"""

BETWEEN = f"""
## Where ggml's ops are

Every forward op of ggml is one of the ops above or, as `composed.NAME`, a function of
`hotplug.ops.composed` that builds a few of them. States of recurrences hold one state per
sequence: for ggml's `ids` take rows first; ggml's snapshots of earlier states are not kept.
Not here, because only training needs them or they call a user's function:
{", ".join(LEFT_OUT)}.

| ggml | here |
|---|---|
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for family in dict.fromkeys(row.family for row in OPS.values()):
        rows = [row for row in OPS.values() if row.family == family]
        parts.append(f"## {family}\n\n| op | operands | parameters | what |\n|---|---|---|---|\n")
        parts += [_line(row) for row in rows]
        parts.append("\n")
    parts.append("## composed\n\n| function | what |\n|---|---|\n")
    parts += [f"| {name} | {_summary(getattr(composed, name))} |\n" for name in composed.__all__]
    parts.append(BETWEEN)
    parts += [f"| {name} | {place} |\n" for name, place in GGML.items()]
    return "".join(parts)


def _line(row: Op[...]) -> str:
    operands = ", ".join(
        f"*{o.name}" if o.variadic else f"[{o.name}]" if o.optional else o.name
        for o in row.operands
    )
    params = ", ".join(p.name if p.required else f"{p.name}={p.default!r}" for p in row.params)
    return f"| {row.name} | {operands} | {params} | {_summary(row.rule)} |\n"


def _summary(function: object) -> str:
    """The first sentence or line of a docstring, safe in a table."""
    return (function.__doc__ or "").strip().splitlines()[0].replace("|", "\\|")


def main() -> int:
    """Write or check the page; the exit status."""
    text = page()
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
