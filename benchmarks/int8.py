"""lrc's scorer on a CPU with the layers' weights in int8 by torchao, beside bfloat16, interleaved in one process.

    pip install torchao
    python benchmarks/int8.py [--layers 4] [--tokens 1000 2000] [--questions 8] [--rounds 3]

The model has random weights and the widths of Qwen2.5-0.5B. A row is one question: a prompt of so many tokens, and four
options of one token. The sides are torchao's own configurations, without torch.compile. Scores are compared question
by question; random ones lie closer together than those of a trained model.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

from bench import interleave, machine, report_ratio

WIDTHS = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}
VOCABULARY = 4000


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1000, 2000])
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    import torch

    from lrc.packing.log_probs import sequence_scores

    print(machine())
    models = sides(flags.layers)
    for tokens in flags.tokens:
        questions = ask(tokens, flags.questions)
        found: dict[str, list[Any]] = {}

        def score(name: str, model: Any, asked: Any = questions, found: Any = found) -> None:
            with torch.inference_mode():
                found[name] = [sequence_scores(model, options, torch.device("cpu"), 2048) for options in asked]

        runs = {name: lambda name=name, model=model: score(name, model) for name, model in models.items()}
        seconds = interleave(runs, flags.rounds)
        products(tokens)
        for name in list(models)[1:]:
            report_ratio(f"{tokens} tokens a row, {name} against bfloat16", seconds["bfloat16"], seconds[name])
            equal = sum(a.argmax() == b.argmax() for a, b in zip(found["bfloat16"], found[name], strict=True))
            print(f"equal predictions: {equal} of {flags.questions}", flush=True)


def sides(layers: int) -> dict[str, Any]:
    """The same model in each format."""
    import torch
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
    from transformers import AutoModelForCausalLM, LlamaConfig

    from lrc.packing.last_layer import prune_last_layer

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, tie_word_embeddings=True, **WIDTHS)
    models = {"bfloat16": AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()}
    kinds = {"int8, dynamic": Int8DynamicActivationInt8WeightConfig(), "int8, weights only": Int8WeightOnlyConfig()}
    for name, kind in kinds.items():
        models[name] = copy.deepcopy(models["bfloat16"])
        quantize_(models[name].model, kind)  # the head stays as it is
    for model in models.values():
        prune_last_layer(model)
    return models


def ask(tokens: int, count: int) -> list[Any]:
    """So many questions of four options: one prompt, and four answers of a token."""
    import numpy as np

    from lrc.packing.tree import TokenSequence

    random = np.random.default_rng(0)
    prompts = random.integers(5, VOCABULARY, (count, tokens - 4))
    return [[TokenSequence(np.append(prompt, k), len(prompt)) for k in range(4)] for prompt in prompts]


def products(tokens: int) -> None:
    """What of it the products alone would allow."""
    import torch

    hidden, up = torch.randn(tokens, 896).bfloat16(), torch.randn(4864, 896).bfloat16()
    rows, columns = (torch.randint(-127, 127, shape, dtype=torch.int8) for shape in ((tokens, 896), (896, 4864)))
    both = {"bfloat16": lambda: torch.nn.functional.linear(hidden, up), "int8": lambda: torch._int_mm(rows, columns)}
    seconds = interleave(both, 10)
    report_ratio(f"{tokens} x 896 x 4864, int8 product against bfloat16", seconds["bfloat16"], seconds["int8"])


if __name__ == "__main__":
    main()
