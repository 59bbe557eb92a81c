"""The matrix products that packed rows need, and how fast the machine multiplies matrices of these shapes.

What is counted is what the result needs and no more, two operations (a product and a sum) for each:

- a weight and token: forward, and in training backward to the token's activations. The gradient of a frozen weight is
  not needed, nor is what would go back into the embeddings from the first layer's queries, keys and values; a LoRA
  weight's own gradient is.
- the last layer: keys and values of all tokens, the rest at the positions where the head runs, and the head there, too.
- attention: a query and key that it sees, forward twice (scores, values) and backward four times; computing the scores
  anew in the backward pass is not counted.

The share of the machine's rate is the time that these products would take alone over the time that a run took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Products:
    """Operations of the layers and of the head, and the shapes that they come in."""

    layers: float
    head: float
    row_tokens: int  # the mean of the rows
    row_heads: int  # likewise

    def alone(self, config: Any) -> Callable[[], None]:
        """A run of nothing but as many operations, in products of these shapes whose results lie ready in memory."""
        import torch

        hidden, heads = (torch.randn(count, config.hidden_size) for count in (self.row_tokens, self.row_heads))
        up = torch.randn(config.hidden_size, config.intermediate_size)
        down, vocabulary = up.T.contiguous(), torch.randn(config.vocab_size, config.hidden_size).T
        inner, outer, logits = hidden @ up, torch.empty_like(hidden), heads @ vocabulary
        layer_times = round(self.layers / (4 * hidden.numel() * config.intermediate_size))
        head_times = round(self.head / (2 * heads.numel() * config.vocab_size))

        def run() -> None:
            for _ in range(layer_times):
                torch.mm(hidden, up, out=inner)
                torch.mm(inner, down, out=outer)
            for _ in range(head_times):
                torch.mm(heads, vocabulary, out=logits)

        return run


def needed(rows: Sequence[Any], config: Any, *, training: bool, rank: int = 0) -> Products:
    """What packed rows need of a Llama whose seven projections have LoRA adapters of this rank; 0 for none."""
    width, inner = config.hidden_size, config.intermediate_size
    keys = config.num_key_value_heads * config.head_dim

    def linear(ways_in: int, ways_out: int, *, back: bool = True) -> float:
        """Operations a token of one projection and its adapter; `back` says whether its input takes a gradient."""
        frozen, lora = ways_in * ways_out, rank * (ways_in + ways_out)
        if not training:
            return 2.0 * (frozen + lora)
        return 2.0 * (2 * frozen + 3 * lora if back else frozen + 3 * lora - rank * ways_in)

    tokens, heads = sum(map(len, rows)), sum(len(row.heads) for row in rows)
    first = linear(width, width, back=False) + 2 * linear(width, keys, back=False)
    attending = linear(width, width) + 2 * linear(width, keys)
    after = linear(width, width) + 2 * linear(width, inner) + linear(inner, width)
    middle = config.num_hidden_layers - 2
    layers = tokens * (first + after + middle * (attending + after) + 2 * linear(width, keys))
    layers += heads * (linear(width, width) + after)
    seen = sum(int((row.position_ids + 1).sum()) for row in rows)
    seen_by_heads = sum(int((row.position_ids[row.heads] + 1).sum()) for row in rows)
    layers += (12 if training else 4) * width * ((middle + 1) * seen + seen_by_heads)
    head = (4.0 if training else 2.0) * heads * width * config.vocab_size
    return Products(layers, head, tokens // len(rows), heads // len(rows))
