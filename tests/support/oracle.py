"""What is right, computed with transformers and PEFT alone and in the plainest way.

Nothing of lrc is used here: no tree, no packing, no pruned layer, no merge. A sequence is run by itself from its first
token to its last, and an adapter is run beside its base. It is slow, and there is nothing in it to get wrong.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

Sample = tuple[Sequence[int], Sequence[int]]  # the tokens of a prompt and of its completion
Step = tuple[float, dict[str, torch.Tensor]]  # the loss, and the gradient of each parameter that is trained


def logits(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """The logits at every position of one sequence, in a forward of its own: (tokens, vocabulary)."""
    return model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]


@torch.inference_mode()
def log_likelihood(model: Any, sample: Sample) -> float:
    """The log-probability of a completion after its prompt."""
    prompt, completion = sample
    log_probs = logits(model, [*prompt, *completion]).double().log_softmax(-1)
    return sum(log_probs[len(prompt) + i - 1, token].item() for i, token in enumerate(completion))


def option_scores(model: Any, options: Sequence[Sample], divisors: Sequence[float] | None = None) -> list[float]:
    """The log-probability of each option among the options, one forward an option.

    Args:
        options: the prompt and completion of each.
        divisors: what the log-likelihood of each is divided by; None divides by nothing.
    """
    found = [
        log_likelihood(model, sample) / by for sample, by in zip(options, divisors or [1.0] * len(options), strict=True)
    ]
    top = max(found)
    total = top + math.log(sum(math.exp(score - top) for score in found))
    return [score - total for score in found]


def training_step(model: Any, samples: Sequence[Sample], autocast: AbstractContextManager | None = None) -> Step:
    """The cross-entropy over all completions by their number of tokens, each sample in a forward of its own."""
    model.train()
    total, count = 0.0, sum(len(completion) for _, completion in samples)
    for prompt, completion in samples:
        with autocast or nullcontext():
            found = logits(model, [*prompt, *completion])
        predicted = found[len(prompt) - 1 : -1].float()
        loss = cross_entropy(predicted, torch.tensor(list(completion)), reduction="sum") / count
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradient of each parameter that has one."""
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


def adapted(base: Path, adapter: Path, dtype: torch.dtype = torch.float64) -> Any:
    """The base with the adapter running beside it, never merged."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(model, str(adapter)).to(dtype).eval()


@torch.inference_mode()
def difference(base: Path, adapter: Path, merged: Path, dtype: torch.dtype = torch.float64) -> float:
    """How far a merged folder's logits are from those of base and adapter, by the largest logit, both in `dtype`."""
    right = adapted(base, adapter, dtype)
    found = AutoModelForCausalLM.from_pretrained(merged, dtype=dtype).eval()
    vocabulary = right.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(vocabulary, (48,), generator=torch.Generator().manual_seed(0)).tolist()
    wanted = logits(right, tokens)
    with right.disable_adapter():
        assert (logits(right, tokens) - wanted).abs().max() > 1e-2 * wanted.abs().max(), "the adapter does nothing"
    return float((logits(found, tokens) - wanted).abs().max() / wanted.abs().max())
