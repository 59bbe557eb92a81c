"""Does a merged model say what its base and adapter say? Logits of both on a few texts."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn

from lrc.errors import MachineError, ModelError
from lrc.merged import main_dtype
from lrc.models import load_base, load_tokenizer
from lrc.weights import Checkpoint

# Written for this check: prose, a question with options, digits, and rare characters.
PROBES = (
    "文章：清晨的市場裡，賣魚的老伯一邊刮鱗，一邊和熟客聊著昨夜的風雨。\n問題：老伯在做什麼？\n答案：",
    "小明有三枝鉛筆，又買了五枝，送給妹妹兩枝。請問他還剩下幾枝？\n1: 四枝\n2: 五枝\n3: 六枝\n4: 八枝\n",
    "根據紀錄，2019 年的平均氣溫是 23.6 度，比前一年高 0.4 度。",
    "The library closes at nine; 龘靐齉 are rare characters. 🙂",
)
# Of the largest logit: what rounding alone may do to the weights, in the dtype that the model was written in.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}


def compare_logits(merged: Path, base: Path, adapter: Path, tokenizer: Path) -> tuple[float, float]:
    """Compare the logits of a merged model with those of base and adapter, both computed in float32.

    Args:
        merged: the merged model's folder.
        base: the base model's folder.
        adapter: the adapter's folder.
        tokenizer: a folder that holds the tokenizer.

    Returns:
        the largest difference of two logits, and the largest logit.

    Raises:
        ModelError: a folder cannot be loaded, or the models differ by more than rounding.
        MachineError: memory ran out.
    """
    encode = load_tokenizer(str(tokenizer))
    probes = [torch.tensor([encode(text)["input_ids"]]) for text in PROBES]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the merge has said what there is to say about this adapter
            adapted = PeftModel.from_pretrained(load_base(str(base), dtype=torch.float32), str(adapter))
        expected = _logits(adapted, probes)
        del adapted  # one model in memory at a time
        found = _logits(load_base(str(merged), dtype=torch.float32), probes)
    except MemoryError as error:
        raise MachineError("comparing the logits ran out of memory; merge without --verify") from error
    difference = max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))
    largest = max(float(logits.abs().max()) for logits in expected)
    if not difference <= TOLERANCE.get(main_dtype(Checkpoint(merged)), 1e-3) * largest:  # NaN is not, either
        raise ModelError(f"{merged.name}: its logits differ by {difference:.3g} from those of base and adapter")
    return difference, largest


def _logits(model: nn.Module, probes: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model.eval()(input_ids=ids).logits.float() for ids in probes]
