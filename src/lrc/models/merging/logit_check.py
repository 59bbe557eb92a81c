"""Checks on a few texts that a merged model gives the same logits as base and adapter."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from lrc.models.fingerprint import VOCABULARIES
from lrc.models.loading import load_base, load_config, load_tokenizer, positions
from lrc.models.merging.writing import main_dtype
from lrc.models.weights import WeightFiles
from lrc.runtime.errors import MachineError, ModelError
from lrc.runtime.memory import out_of_memory
from lrc.runtime.translation import Message, _

# Written for this check: prose, a question with options, digits, and rare characters.
PROBES = (
    "文章：清晨的市場裡，賣魚的老伯一邊刮鱗，一邊和熟客聊著昨夜的風雨。\n問題：老伯在做什麼？\n答案：",
    "小明有三枝鉛筆，又買了五枝，送給妹妹兩枝。請問他還剩下幾枝？\n1: 四枝\n2: 五枝\n3: 六枝\n4: 八枝\n",
    "根據紀錄，2019 年的平均氣溫是 23.6 度，比前一年高 0.4 度。",
    "The library closes at nine; 龘靐齉 are rare characters. 🙂",
)
# Rounding all weights once more moves logits about as far as the rounding in the merge did; a difference of more than
# TIMES as much is an error. In float32, another order of summation moves them by up to FLOOR of the largest logit.
TIMES, FLOOR = 8.0, 1e-4
UNCHECKED = _("merge with --no-verify, which compares no logits, or on a machine with more memory")
PROBE_TOKENS = 48  # the length of the probe if there is no tokenizer


@dataclass(frozen=True)
class LogitDifference:
    """How far the logits of a merged model are from those of base and adapter."""

    texts: int  # how many were compared
    difference: float  # the largest absolute difference of a logit
    largest: float  # the largest absolute logit
    rounding: float  # the largest change of a logit when all weights are rounded once more to the merged model's dtype

    @property
    def text(self) -> Message:
        """The difference beside what rounding alone would make."""
        text = _(
            "largest difference of a logit from base + adapter on {texts} texts: {difference:.2e} (rounding: "
            "{rounding:.2e}, largest logit: {largest:.2f})"
        )
        if self.texts == 1:
            text = _(
                "largest difference of a logit from base + adapter on one text: {difference:.2e} (rounding: "
                "{rounding:.2e}, largest logit: {largest:.2f})"
            )
        return text.format(**asdict(self))


def compare_logits(merged: Path, base: Path, adapter: Path, tokenizer: Path, name: Path) -> LogitDifference:
    """Compare the logits of a merged model with those of base and adapter, both computed in float32.

    Args:
        merged: the merged model's folder.
        base: the base model's folder.
        adapter: the adapter's folder.
        tokenizer: a folder with a tokenizer; if it has none, evenly spaced token ids are compared.
        name: the final path of the merged model, for messages.

    Raises:
        ModelError: a folder cannot be loaded, or the models differ by more than rounding.
        MachineError: memory ran out.
    """
    probes = _probes(load_config(str(base)), tokenizer)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the merge has reported on this adapter already
            adapted = PeftModel.from_pretrained(load_base(str(base), dtype=torch.float32, cure=UNCHECKED), str(adapter))
        expected = _logits(adapted, probes)
        del adapted  # one model in memory at a time
        model = load_base(str(merged), dtype=torch.float32, cure=UNCHECKED)
        found = _logits(model, probes)
        _round_again(model, main_dtype(WeightFiles(merged)))
        moved = _logits(model, probes)
    except (MemoryError, RuntimeError) as error:  # torch's allocator raises the latter
        if out_of_memory(error) is None:
            raise
        raise MachineError(_("comparing the logits ran out of memory; merge with --no-verify")) from error
    largest = max(float(logits.abs().max()) for logits in expected)
    compared = LogitDifference(len(probes), _max_difference(expected, found), largest, _max_difference(found, moved))
    allowed = max(TIMES * compared.rounding, FLOOR * compared.largest)
    if not compared.difference <= allowed:  # also true of NaN
        raise ModelError(
            _(
                "{name}: its logits differ by up to {difference:.3g} from those of base and adapter, "
                "where rounding explains {allowed:.3g}; answer with --adapter instead"
            ).format(name=name, difference=compared.difference, allowed=allowed)
        )
    return compared


def _probes(config: Any, tokenizer: Path) -> list[torch.Tensor]:
    """The tokens of the texts, (1, length) each, cut to the positions that the model has."""
    rows = config.get_text_config().vocab_size
    if any((tokenizer / name).is_file() for name in VOCABULARIES):
        encode = load_tokenizer(str(tokenizer))
        probes = [torch.tensor([encode(text)["input_ids"]]) for text in PROBES]
    else:
        probes = [torch.linspace(0, rows - 1, PROBE_TOKENS).long()[None]]
    return [ids[:, : positions(config)] for ids in probes]


def _round_again(model: nn.Module, dtype: torch.dtype) -> None:
    """Change every weight at random by up to half the relative precision of the dtype, as rounding to it does."""
    generator = torch.Generator().manual_seed(0)
    half = torch.finfo(dtype).eps / 2 if dtype.is_floating_point else 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            for row in parameter if parameter.ndim > 1 else parameter[None]:  # a row at a time takes little memory
                row.mul_(torch.rand(row.shape, generator=generator).mul_(2 * half).add_(1 - half))


def _logits(model: nn.Module, probes: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model.eval()(input_ids=ids).logits.float() for ids in probes]


def _max_difference(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True))
