"""The decoder as a graph: pre-norm transformer blocks with grouped-query attention and SwiGLU.

A graph serves a fixed number of tokens and reads its place in the sequence from its inputs, so that
one graph serves every step of that width:

    tokens      (T,) i32     ids; 0 where padded
    positions   (T,) i32     place of each token in the sequence; -1 marks padding
    outputs     (O,) i32     rows of the batch whose logits are wanted
    k.<layer>, v.<layer>     states, (cache rows, kv heads, head length); row = position
"""

from __future__ import annotations

from collections.abc import Mapping

from hotplug import ops
from hotplug.errors import ModelError
from hotplug.graph import Graph
from hotplug.node import Node
from hotplug.tensor import TensorType
from hotplug_llm.architectures import Hyperparameters

__all__ = ["Decoder"]


class Decoder:
    """Builds a model's graphs from its hyperparameters and the types of its tensors.

    Attributes:
        context: rows of the KV cache.
    """

    def __init__(
        self,
        shape: Hyperparameters,
        tensors: Mapping[str, TensorType],
        *,
        context: int,
        cache_dtype: str = "f16",
        precision: str = "default",
        vocabulary: int | None = None,
    ) -> None:
        """Check that the file's tensors are those of the architecture, no more and no fewer.

        Args:
            shape: the model's hyperparameters.
            tensors: types of its tensors by name.
            context: rows of the KV cache.
            cache_dtype: dtype of keys and values.
            precision: of products with quantised weights.
            vocabulary: logits that are tokens'; None for all. Embeddings may be padded.

        Raises:
            ModelError: a tensor is missing, of another shape, or would be ignored.
        """
        self.context = context
        self._shape = shape
        self._tensors = tensors
        self._cache_dtype = cache_dtype
        self._precision = precision
        self._vocabulary = vocabulary
        self._weights: dict[str, Node] = {}
        self._graphs: dict[tuple[int, int, int], Graph] = {}
        self._trunks: dict[int, tuple[Node, dict[str, Node]]] = {}
        self.graph(tokens=1)
        self._refuse_unused()

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table, and length of the logits."""
        return self._tensors["token_embd.weight"].shape[0]

    def graph(self, tokens: int, outputs: int = 1, largest: int = 0) -> Graph:
        """The graph for so many tokens; made once.

        Its output is "logits" (outputs, vocabulary), besides new states; or of a single row the
        largest ones alone: "ids" (largest,) i32 and their "logits" (largest,), largest first.

        Args:
            tokens: width of the batch.
            outputs: rows whose logits are wanted.
            largest: how many of one row's logits are wanted; 0 for all.
        """
        wanted = tokens, outputs, largest
        if wanted not in self._graphs:
            self._graphs[wanted] = self._build(*wanted)
        return self._graphs[wanted]

    def _build(self, count: int, rows: int, largest: int) -> Graph:
        outputs = ops.input(name="outputs", dtype="i32", shape=(rows,))
        if count not in self._trunks:
            self._trunks[count] = self._trunk(count)
        x, updates = self._trunks[count]
        x = self._norm(ops.take(x, outputs), "output_norm", self._shape.width)
        logits = ops.matmul(x, self._head(), transpose_b=True, precision=self._precision)
        results = self._largest(logits, largest) if largest else {"logits": logits}
        return Graph.build(results, updates)

    def _trunk(self, count: int) -> tuple[Node, dict[str, Node]]:
        """All blocks, which graphs of one width have in common, and the new states."""
        tokens = ops.input(name="tokens", dtype="i32", shape=(count,))
        positions = ops.input(name="positions", dtype="i32", shape=(count,))
        updates: dict[str, Node] = {}
        x = self._float(ops.take(self._embedding(), tokens))
        for layer in range(self._shape.layers):
            x = self._block(x, positions, layer, updates)
        return x, updates

    def _largest(self, logits: Node, count: int) -> dict[str, Node]:
        """So many of a row's largest logits, with their ids. What is no token is left out."""
        tokens = self._vocabulary or logits.shape[-1]
        row = ops.slice(logits, starts=(0, 0), stops=(1, tokens))
        ids = ops.argmax(row, axis=-1) if count == 1 else ops.top_k(row, k=count)
        ids = ops.reshape(ids, shape=(count,))
        column = ops.reshape(row, shape=(tokens, 1))
        return {"ids": ids, "logits": ops.reshape(ops.take(column, ids), shape=(count,))}

    def _block(
        self,
        x: Node,
        positions: Node,
        layer: int,
        updates: dict[str, Node],
    ) -> Node:
        prefix = f"blk.{layer}."
        width = self._shape.width
        h = self._norm(x, prefix + "attn_norm", width)
        x = ops.add(x, self._attention(h, positions, layer, updates))
        h = self._norm(x, prefix + "ffn_norm", width)
        return ops.add(x, self._feed_forward(h, prefix))

    def _attention(
        self,
        h: Node,
        positions: Node,
        layer: int,
        updates: dict[str, Node],
    ) -> Node:
        shape = self._shape
        prefix = f"blk.{layer}."
        q = self._heads(h, prefix + "attn_q", shape.heads, shape.key_length)
        k = self._heads(h, prefix + "attn_k", shape.kv_heads, shape.key_length)
        v = self._heads(h, prefix + "attn_v", shape.kv_heads, shape.value_length)
        if shape.architecture.query_key_norm:
            q = self._norm(q, prefix + "attn_q_norm", shape.key_length)
            k = self._norm(k, prefix + "attn_k_norm", shape.key_length)
        keys = self._remember(f"k.{layer}", self._turn(k, positions), positions, updates)
        values = self._remember(f"v.{layer}", v, positions, updates)
        mixed = ops.scaled_dot_product_attention(
            self._turn(q, positions),
            keys,
            values,
            positions=positions,
            causal=True,
            window=shape.window,
        )
        joined = ops.reshape(mixed, shape=(h.shape[0], shape.heads * shape.value_length))
        return self._linear(joined, prefix + "attn_output", shape.width)

    def _heads(self, h: Node, name: str, heads: int, length: int) -> Node:
        projected = self._linear(h, name, heads * length)
        return ops.reshape(projected, shape=(h.shape[0], heads, length))

    def _turn(self, x: Node, positions: Node) -> Node:
        rope = self._shape.rope
        factors = None
        if "rope_freqs.weight" in self._tensors:
            factors = self._weight("rope_freqs.weight", (rope.dims // 2,))
        return ops.rope(
            x,
            positions,
            factors,
            layout=self._shape.architecture.rope_layout,
            dims=rope.dims,
            base=rope.base,
            frequency_scale=rope.frequency_scale,
            original_context=rope.original_context,
            extrapolation=rope.extrapolation,
            magnitude=rope.magnitude,
            beta_fast=rope.beta_fast,
            beta_slow=rope.beta_slow,
        )

    def _remember(self, name: str, rows: Node, positions: Node, updates: dict[str, Node]) -> Node:
        """Write rows into a cache at their positions; padding, at -1, is dropped."""
        cache = ops.state(name=name, dtype=self._cache_dtype, shape=(self.context, *rows.shape[1:]))
        updates[name] = ops.scatter_rows(cache, positions, rows)
        return updates[name]

    def _feed_forward(self, h: Node, prefix: str) -> Node:
        if self._shape.experts:
            return self._experts(h, prefix)
        inner = self._shape.feed_forward
        gate = self._linear(h, prefix + "ffn_gate", inner)
        up = self._linear(h, prefix + "ffn_up", inner)
        return self._linear(ops.swiglu(gate, up), prefix + "ffn_down", self._shape.width)

    def _experts(self, h: Node, prefix: str) -> Node:
        """A mixture of the experts that a router finds likeliest, by their likelihoods.

        (Shazeer et al., arXiv 1701.06538; as in Mixtral and Qwen3, likelihoods of those that are
        chosen are made to sum to 1.)
        """
        count, used, width = self._shape.experts, self._shape.experts_used, self._shape.width
        tokens, inner = h.shape[0], self._shape.feed_forward
        likely = ops.softmax(self._linear(h, prefix + "ffn_gate_inp", count))
        ids = ops.top_k(likely, k=used)
        rows = ops.arange(start=0, stop=tokens * count, step=count, dtype="i32")
        places = ops.add(ids, ops.reshape(rows, shape=(tokens, 1)))
        column = ops.reshape(likely, shape=(tokens * count, 1))
        chosen = ops.take(column, ops.reshape(places, shape=(tokens * used,)))
        shares = ops.reshape(chosen, shape=(tokens, used))
        shares = ops.div(shares, ops.sum(shares, axis=-1, keepdims=True))
        x = ops.reshape(h, shape=(tokens, 1, width))
        gate = self._grouped(x, prefix + "ffn_gate_exps", inner, ids)
        up = self._grouped(x, prefix + "ffn_up_exps", inner, ids)
        down = self._grouped(ops.swiglu(gate, up), prefix + "ffn_down_exps", width, ids)
        return ops.sum(ops.mul(down, ops.reshape(shares, shape=(tokens, used, 1))), axis=1)

    def _grouped(self, x: Node, name: str, width: int, ids: Node) -> Node:
        weight = self._weight(f"{name}.weight", (self._shape.experts, width, x.shape[-1]))
        return ops.matmul_grouped(x, weight, ids, precision=self._precision)

    def _linear(self, x: Node, name: str, width: int) -> Node:
        weight = self._weight(f"{name}.weight", (width, x.shape[-1]))
        product = ops.matmul(x, weight, transpose_b=True, precision=self._precision)
        if f"{name}.bias" not in self._tensors:
            return product
        return ops.add(product, self._float(self._weight(f"{name}.bias", (width,))))

    def _norm(self, x: Node, name: str, width: int) -> Node:
        weight = self._float(self._weight(f"{name}.weight", (width,)))
        return ops.rms_norm(x, weight, eps=self._shape.norm_eps)

    def _embedding(self) -> Node:
        rows = self._type("token_embd.weight").shape[0]
        return self._weight("token_embd.weight", (rows, self._shape.width))

    def _head(self) -> Node:
        """The output matrix; files of models that tie it to the embedding do not repeat it."""
        tied = "output.weight" not in self._tensors
        name = "token_embd.weight" if tied else "output.weight"
        return self._weight(name, self._type("token_embd.weight").shape)

    def _float(self, x: Node) -> Node:
        return x if x.dtype.name == "f32" else ops.cast(x, dtype="f32")

    def _type(self, name: str) -> TensorType:
        found = self._tensors.get(name)
        if found is None:
            raise ModelError(f"the model lacks its tensor {name}", key=name)
        return found

    def _weight(self, name: str, shape: tuple[int, ...]) -> Node:
        found = self._type(name)
        if found.shape != shape:
            raise ModelError(
                f"tensor {name} is {found}, where the metadata asks for {list(shape)}", key=name
            )
        if name not in self._weights:
            self._weights[name] = ops.weight(name=name, dtype=found.dtype.name, shape=shape)
        return self._weights[name]

    def _refuse_unused(self) -> None:
        """A tensor left out means another model than the file's: better none than a wrong one."""
        unused = sorted(set(self._tensors) - set(self._weights))
        if unused:
            more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
            raise ModelError(
                f"the {self._shape.architecture.name} decoder does not know what to do with "
                f"{', '.join(unused[:3])}{more}",
                key=unused[0],
            )
