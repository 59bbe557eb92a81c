"""Trains a small base from nothing on stories of the little world: `python examples/build_demo_base.py`.

What it reads are passages with sentences that say again what the passage says, and at first lists of words, said three
times. It is never shown an examination: no question, no options, and no word that is kept for held-out passages. In
1,700 steps, 173 seconds of one thread, it learnt to copy words of the right kind, and not yet who did what: it has to
be trained longer before an adapter can teach it to answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

import torch
from lrc.examples.little_world import KINDS, words, write_passage
from tokenizers import AddedToken, Tokenizer, decoders, models
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<s>", "</s>", "<pad>"]
WORDING = (
    "把交給從拿到了一個是向要來的本來想去後離開搬沒有比高矮和分別前者過不如送出收現在誰什麼哪裡，。？：\n、文章問題答案"
    "這個正確嗎否請選項0123456789"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character of the little world, and for each byte of any other."""
    characters = sorted({*WORDING, *"".join(one for pair in KINDS.values() for one in pair)})
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    model = models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[], byte_fallback=True)
    backend = Tokenizer(model)
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of four layers with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


Pieces = list[tuple[str, bool]]  # of text, and whether what stands before them says something about them


def write_document(random: Random, sentences: int) -> Pieces:
    """A passage, then sentences that say again what it says."""
    passage = write_passage(random, held_out=False, sentences=sentences)
    pieces = [(passage.text + "\n", False)]
    for fact in random.sample(passage.facts, min(len(passage.facts), 8)):
        pieces += [(fact.stated, True), (fact.answer + "。", True)]
    return pieces


def write_repetition(random: Random) -> Pieces:
    """A list of words, three times: what teaches to look back for what followed before."""
    said = "".join(random.choice(_WORDS) for _ in range(10))
    return [(said, False), (said, True), (said, True)]


_WORDS = [word for kind in KINDS for word in words(kind, held_out=False)]


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, size: int, steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and the weight of each as a target, both (documents, tokens); repetition and short passages first."""
    random = Random(seed)
    vocabulary = tokenizer.get_vocab()
    for step in count():
        rows, weights = [], []
        for _ in range(size):
            row, weight = [tokenizer.bos_token_id], [0.0]
            repeats = random.random() < 0.6 - step / 1000
            longest = 1 + min(3, 6 * step // steps)
            shortest = max(1, longest - 1)
            pieces = write_repetition(random) if repeats else write_document(random, random.randint(shortest, longest))
            for text, known in pieces:
                row += [vocabulary[character] for character in text]
                weight += [1.0 if known else 0.1] * len(text)
            rows.append(torch.tensor(row))
            weights.append(torch.tensor(weight))
        pad = tokenizer.pad_token_id
        yield (
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad),
            torch.nn.utils.rnn.pad_sequence(weights, batch_first=True),
        )


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, size: int, rate: float) -> None:
    """Train on next characters, above all on those that the passage tells."""
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    # Warm-up, constant, and a linear decay over the last fifth.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 100, (steps - step) / (0.2 * steps))
    )
    start = time.process_time()
    for step, (ids, weights) in zip(range(steps), batches(tokenizer, 0, size, steps), strict=False):
        logits = model(input_ids=ids[:, :-1]).logits
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weight = weights[:, 1:].flatten()
        ((losses * weight).sum() / weight.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            told = losses[weight == 1].mean().item()
            line = f"step {step}  loss of what the passage tells {told:.3f}  {time.process_time() - start:.0f} s"
            print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "little_world")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--documents", type=int, default=8, help="of a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    args = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    train(model, tokenizer, args.steps, args.documents, args.learning_rate)
    model.half().save_pretrained(args.folder)
    tokenizer.save_pretrained(args.folder)


if __name__ == "__main__":
    main()
