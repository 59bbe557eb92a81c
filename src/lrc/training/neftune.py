"""NEFTune (Jain et al. 2023) on packed rows: uniform noise on the embeddings during training.

Its magnitude is alpha / sqrt(length · width), with the sample's length and the width of the embedding. A packed row
holds many samples: each token takes the length of its own sample, or of the longest of those that share it. Upstream's
hook would take the whole row for one sample, and the noise would shrink as rows grow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrc.packing.tree import PackedRow


class NeftuneNoise:
    """Adds noise to a model's input embeddings in training mode, by a forward hook.

    Args:
        model: a PEFT or transformers model.
        alpha: `neftune_noise_alpha`.
    """

    def __init__(self, model: Any, alpha: float) -> None:
        self.alpha = alpha
        self._scale: torch.Tensor | None = None  # (L,) alpha / sqrt(length) of each token of the current row
        model.get_input_embeddings().register_forward_hook(self._add)

    def set_row(self, row: PackedRow, device: torch.device) -> None:
        """Set the row of the next forward."""
        self._scale = torch.from_numpy(self.alpha / np.sqrt(sample_lengths(row))).to(device, torch.float32)

    def _add(self, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training or self._scale is None:
            return output
        own = torch.nn.functional.pad(self._scale, (0, output.shape[1] - len(self._scale)))  # the row may be padded
        magnitude = (own / output.shape[-1] ** 0.5)[None, :, None].to(output.dtype)
        return output + magnitude * torch.empty_like(output).uniform_(-1, 1)


def sample_lengths(row: PackedRow) -> NDArray[np.int64]:
    """(L,) for each token of a row, the length of the longest sample that it is part of, completion included."""
    longest = row.position_ids + 2  # positions start at 0, and a sample's last token is not in the row
    for token in range(len(row) - 1, -1, -1):
        child, end = token + 1, row.subtree_end[token]
        while child < end:
            longest[token] = max(longest[token], longest[child])
            child = row.subtree_end[child]
    return longest
