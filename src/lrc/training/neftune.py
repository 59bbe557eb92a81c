"""NEFTune (Jain et al. 2023) on packed rows: uniform noise on the embeddings of what is trained.

Its strength is alpha / sqrt(tokens of the sample · width). A packed row holds many samples, so each token takes the
length of the sample that it belongs to, and the longest of those where several share it; upstream's hook would take
the row for one long sample, and the noise would fade as rows get longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrc.packing.tree import PackedRow


class Noise:
    """Adds noise to a model's embeddings while it trains.

    Args:
        model: of PEFT or transformers; its input embeddings get a hook.
        alpha: `neftune_noise_alpha`.
    """

    def __init__(self, model: Any, alpha: float) -> None:
        self.alpha = alpha
        self._reach: torch.Tensor | None = None
        model.get_input_embeddings().register_forward_hook(self._add)

    def set_row(self, row: PackedRow, device: torch.device) -> None:
        """Take the row that the model gets next."""
        self._reach = torch.from_numpy(self.alpha / np.sqrt(sample_lengths(row))).to(device, torch.float32)

    def _add(self, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training or self._reach is None:
            return output
        # Behind the row's own tokens there may be some that fill it up.
        own = torch.nn.functional.pad(self._reach, (0, output.shape[1] - len(self._reach)))
        reach = (own / output.shape[-1] ** 0.5)[None, :, None].to(output.dtype)
        return output + reach * torch.empty_like(output).uniform_(-1, 1)


def sample_lengths(row: PackedRow) -> NDArray[np.int64]:
    """(L,) the tokens, the last of the completion included, of the longest sample that each token of a row is in."""
    longest = row.position_ids + 2  # counted from 0, and a sample's last token is not in the row
    for token in range(len(row) - 1, -1, -1):
        child, end = token + 1, row.subtree_end[token]
        while child < end:
            longest[token] = max(longest[token], longest[child])
            child = row.subtree_end[child]
    return longest
