"""What a run trains on: nothing cut off, everything left out named, option orders drawn anew each epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_models import save_tokenizer
from transformers import AutoTokenizer

from lrc.data.alpaca import Record, dump_records, to_record
from lrc.data.questions import Question
from lrc.runtime.errors import DataError
from lrc.tokenization.max_length import LengthPolicy
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import Corpus, read_corpus, tokenize
from lrc.training.dataloader import SequenceSource

NEAR = "小明在台北工作。"
LONG = Question("long", "天氣很好。" * 40 + NEAR, "小明在哪裡？", ("台北", "高雄", "台中", "台南"), 3)
SHORT = Question("short", NEAR, "小明在哪裡？", ("台北", "高雄", "台中", "台南"), 1)
FOREIGN = Record("foreign", "翻譯", "貓", "cat", None)


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Prompt:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Prompt(AutoTokenizer.from_pretrained(folder), "alpaca", "digit")


def length(record: Record, prompt: Prompt) -> int:
    return len(prompt.sequence(record).tokens)


def read(folder: Path, records: list[Record], prompt: Prompt, lengths: LengthPolicy) -> Corpus:
    """The records as they fit, out of a file."""
    path = folder / "a.json"
    path.write_text("".join(dump_records(records)), encoding="utf-8")
    return read_corpus(path, prompt, lengths, stage="read")


def test_what_fits_is_left_as_it_is(prompt: Prompt, tmp_path: Path) -> None:
    records = [to_record(SHORT), to_record(LONG), FOREIGN]
    corpus = read(tmp_path, records, prompt, LengthPolicy(length(records[1], prompt)))
    assert list(corpus.records) == records and corpus.shortened == corpus.skipped == []
    assert list(read(tmp_path, records, prompt, LengthPolicy()).records) == records


def test_shortening_keeps_question_options_and_answer(prompt: Prompt, tmp_path: Path) -> None:
    limit = length(to_record(LONG), prompt) - 1
    corpus = read(tmp_path, [to_record(SHORT), to_record(LONG)], prompt, LengthPolicy(limit, "shorten"))
    assert corpus.shortened == ["long"] and corpus.records[0] == to_record(SHORT)
    short = corpus.records[1]
    assert length(short, prompt) <= limit
    assert short.output == "3" and short.question is not None
    assert short.question.source_passage == LONG.passage
    assert replace(short.question, passage=LONG.passage, full_passage=None) == LONG
    assert NEAR in short.question.passage and len(short.question.passage) > 0.9 * len(LONG.passage)
    assert short.question.passage in short.input


def test_skipping_names_what_is_left_out(prompt: Prompt, tmp_path: Path) -> None:
    limit = length(to_record(LONG), prompt) - 1
    corpus = read(tmp_path, [to_record(LONG), to_record(SHORT)], prompt, LengthPolicy(limit, "skip"))
    assert corpus.skipped == ["long"] and list(corpus.records) == [to_record(SHORT)]


@pytest.mark.parametrize(
    ("records", "limit", "on_too_long", "fault"),
    [
        ([to_record(SHORT), to_record(LONG)], 600, "refuse", "record long: longer than max_length 600"),
        ([to_record(SHORT)], 50, "shorten", "record short: longer than max_length 50"),
        ([FOREIGN], 50, "shorten", "record foreign: longer than max_length 50"),
        ([to_record(SHORT)], 50, "skip", "no record fits max_length 50"),
    ],
)
def test_records_that_cannot_fit_are_refused(
    prompt: Prompt, records: list[Record], limit: int, on_too_long: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=fault):
        read(tmp_path, records, prompt, LengthPolicy(limit, on_too_long))


def test_every_option_has_to_fit_in_the_text_style(prompt: Prompt, tmp_path: Path) -> None:
    text = Prompt(prompt.tokenizer, "plain", "text")
    record = to_record(Question("1", NEAR, "問", ("短", "長" * 50), 1))
    limit = max(len(s.tokens) for s in text.candidates(record)) - 1
    assert length(record, text) < limit
    assert read(tmp_path, [record], text, LengthPolicy(limit, "shorten")).shortened == ["1"]


def test_tokenized_rows_are_the_prompts_sequences(prompt: Prompt) -> None:
    records = [to_record(SHORT), to_record(LONG), FOREIGN, to_record(replace(SHORT, id="b", question="誰？"))]
    rows = tokenize(records, prompt, stage="tokenize")
    assert rows["id"][:] == ["short", "long", "foreign", "b"]
    assert rows["passage"][:] == [0, 1, 2, 0]
    for row, record in zip(rows, records, strict=True):
        sequence = prompt.sequence(record)
        assert (row["tokens"], row["prompt_length"]) == (sequence.tokens.tolist(), sequence.prompt_length)


def drawing(prompt: Prompt, records: list[Record], option_orders: int, seed: int = 0) -> SequenceSource:
    return SequenceSource(tokenize(records, prompt, stage="tokenize"), records, prompt, option_orders, seed)


def asked(draw: SequenceSource, place: int, epoch: int) -> list[str]:
    return [str(draw.prompt.tokenizer.decode(s.tokens)) for s in draw((place, epoch))]


def test_one_order_is_the_question_as_it_is(prompt: Prompt) -> None:
    draw = drawing(prompt, [to_record(SHORT)], 1)
    (sequence,) = draw((0, 5))
    wanted = prompt.sequence(to_record(SHORT))
    assert sequence.tokens.tolist() == wanted.tokens.tolist() and sequence.prompt_length == wanted.prompt_length


@pytest.mark.parametrize("count", [2, 4, 9])
def test_orders_move_the_right_option_and_its_digit(prompt: Prompt, count: int) -> None:
    draw = drawing(prompt, [to_record(SHORT)], count)
    for epoch in range(3):
        texts = asked(draw, 0, epoch)
        assert len(set(texts)) == min(count, 4)
        places = [int(text.removesuffix("</s>")[-1]) for text in texts]
        assert len(set(places)) == len(places)  # rotations: the answer stands in another place in each
        for text, place in zip(texts, places, strict=True):
            assert f"{place}: 台北\n" in text


def test_orders_are_drawn_anew_each_epoch_and_by_seed(prompt: Prompt) -> None:
    draw = drawing(prompt, [to_record(SHORT)], 2)
    epochs = [tuple(asked(draw, 0, epoch)) for epoch in range(6)]
    assert len(set(epochs)) > 1
    assert [tuple(asked(draw, 0, epoch)) for epoch in range(6)] == epochs
    other = drawing(prompt, [to_record(SHORT)], 2, seed=1)
    assert [tuple(asked(other, 0, epoch)) for epoch in range(6)] != epochs


@pytest.mark.parametrize("option", ["以上皆是", "1和2", "1、2皆正確", "(1)及(2)都對", "A、B均非"])
def test_options_that_refer_to_positions_keep_their_order(prompt: Prompt, option: str) -> None:
    all_of_them = to_record(Question("1", NEAR, "問", ("甲", "乙", option), 3))
    records: list[Any] = [all_of_them, FOREIGN]
    draw = drawing(prompt, records, 3)
    for place, record in enumerate(records):
        (sequence,) = draw((place, 1))
        assert sequence.tokens.tolist() == prompt.sequence(record).tokens.tolist()
