"""Makes a tiny Llama with random weights and a byte-level tokenizer that is trained on given texts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lrc.runtime.signals import end_at_once
from lrc.runtime.steps import end_with_caller

if __name__ == "__main__":  # before the imports, which take seconds
    end_at_once()
    end_with_caller()

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lrc.data.sources import read_records
from lrc.models.loading import silence_bars
from lrc.runtime.outputs import new_folder

VOCABULARY = 1024
# Llama initializes embeddings with 0.02; at that scale, frozen layers above them hardly tell tokens apart.
EMBEDDING_STD = 0.5


def make_tokenizer(texts: Iterable[str], vocab_size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which can read any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def make_base(folder: Path, texts: Iterable[str], *, seed: int = 0, force: bool = False) -> None:
    """Write a tiny base model with its tokenizer.

    Args:
        folder: where it goes.
        texts: what the tokenizer is trained on.
        seed: for the weights.
        force: replace what is in the folder.

    Raises:
        OutputError: the folder exists, and `force` is false.
    """
    tokenizer = make_tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_STD)
    silence_bars()
    with new_folder(folder, force=force) as staged:
        model.save_pretrained(staged)
        tokenizer.save_pretrained(staged)


def main(words: Sequence[str]) -> None:
    """Run `python -m lrc.models.tiny DATA.json FOLDER`: make a base that can be trained, but knows nothing."""
    data, folder = map(Path, words)
    make_base(folder, [record.input for record in read_records(data)])


if __name__ == "__main__":
    main(sys.argv[1:])
