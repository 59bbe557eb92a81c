"""Exact ids, boundary and mask of every template; user text stays text; sentencepiece's own ids."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from small_models import save_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from lrc.data.alpaca import Record, to_record
from lrc.data.questions import Question
from lrc.data.sources import read_records
from lrc.models.loading import load_tokenizer, tokenizer_backend
from lrc.runtime.errors import DataError, RecipeError
from lrc.tokenization.prompt import Prompt, reordered

DATA = Path(os.environ.get("LRC_SHARED_DATA", Path(__file__).parents[3] / "shared/data"))
CHINESE = DATA / "chinese-llama-2-tokenizer"
needs_chinese = pytest.mark.skipif(not CHINESE.is_dir(), reason="no Chinese-LLaMA-2 tokenizer here")

SYSTEM = "[INST] <<SYS>>\nYou are a helpful assistant. 你是一个乐于助人的助手。\n<</SYS>>\n\n"
ASKED = "請根據以下輸入回答選擇題，並以數字回答:\n"
LISTED = "貓在睡覺。\n問題：誰在睡？\n1: 狗\n2: 貓\n3: 魚\n4: 鳥"
QUESTION = Question("7", "貓在睡覺。", "誰在睡？", ("狗", "貓", "魚", "鳥"), 2)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Everything that any of the tokenizers takes for a control token when it is let.
CONTROL = "甲</s>乙<s>丙<|im_end|>丁<|im_start|>[/INST]<<SYS>><unk><pad>"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Knows every byte, <s> 256, </s> 257 and the tokens of a chat, 258 and 259."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    made = AutoTokenizer.from_pretrained(folder)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = CHAT
    return made


@pytest.fixture(scope="module")
def chinese() -> Any:
    return load_tokenizer(str(CHINESE))


def text_of(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize(
    ("template", "style", "list_options", "prompt", "completion"),
    [
        ("chinese-alpaca-2", "digit", None, f"{SYSTEM}{ASKED}\n{LISTED} [/INST]", "2"),
        (
            "chinese-alpaca-2",
            "text",
            True,
            f"{SYSTEM}請根據以下輸入回答選擇題:\n\n{LISTED} [/INST]",
            "貓",
        ),
        (
            "alpaca",
            "digit",
            None,
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{ASKED}\n\n### Input:\n{LISTED}\n\n### Response:\n",
            "2",
        ),
        ("plain", "text", None, "文章：貓在睡覺。\n問題：誰在睡？\n答案：", "貓"),
        ("plain", "digit", None, f"文章：{LISTED}\n答案：", "2"),
    ],
)
def test_ids_boundary_and_mask(
    tokenizer: Any, template: str, style: str, list_options: bool | None, prompt: str, completion: str
) -> None:
    made = Prompt(tokenizer, template, style, list_options)
    sequence = made.sequence(to_record(QUESTION))
    plain = [*tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    answer = [*tokenizer(completion, add_special_tokens=False)["input_ids"]]
    # The bytes' tokenizer adds no BOS of its own, so its base is taken to have had none.
    assert sequence.tokens.tolist() == [*plain, *answer, 257]
    assert sequence.prompt_length == len(plain)
    assert made.prompt(to_record(QUESTION)) == plain


def test_chat(tokenizer: Any) -> None:
    sequence = Prompt(tokenizer, "chat", "digit").sequence(to_record(QUESTION))
    wanted = f"<|im_start|>user\n{ASKED}\n{LISTED}<|im_end|>\n<|im_start|>assistant\n"
    assert sequence.tokens.tolist() == tokenizer(f"{wanted}2<|im_end|>", add_special_tokens=False)["input_ids"]
    assert text_of(tokenizer, sequence.tokens[: sequence.prompt_length]) == wanted
    assert sequence.tokens[-1] == 259  # the turn's own end is learnt, not </s>


@pytest.mark.parametrize("template", ["chinese-alpaca-2", "alpaca", "plain", "chat", "chat that writes it"])
def test_exactly_one_bos(tokenizer: Any, template: str) -> None:
    adding = copy.deepcopy(tokenizer)  # as most tokenizers do, which shows that their base was trained with it
    adding.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    if template == "chat that writes it":
        adding.chat_template = "{{ bos_token }}" + CHAT
    ids = Prompt(adding, template.split()[0], "digit").sequence(to_record(QUESTION)).tokens.tolist()
    without = Prompt(tokenizer, template.split()[0], "digit").sequence(to_record(QUESTION)).tokens.tolist()
    assert ids == [256, *without] and 256 not in without


@pytest.mark.parametrize("template", ["chinese-alpaca-2", "alpaca", "chat", "plain"])
@pytest.mark.parametrize("style", ["digit", "text"])
def test_control_tokens_in_user_text_stay_text(tokenizer: Any, template: str, style: str) -> None:
    question = Question("1", CONTROL, CONTROL, (CONTROL, "乙"), 1)
    prompt = Prompt(tokenizer, template, style, True)
    ours = prompt.sequence(to_record(QUESTION)).tokens
    theirs = prompt.sequence(to_record(question))
    control = [i for i in theirs.tokens.tolist() if i >= 256]
    assert control == [i for i in ours.tolist() if i >= 256]  # those of the template and the end, and no more
    assert text_of(tokenizer, theirs.tokens).count(CONTROL) >= 3
    for option in prompt.candidates(to_record(question)):
        tail = option.tokens[option.prompt_length :]
        assert max(tail) < 256


@pytest.mark.parametrize("template", ["chinese-alpaca-2", "alpaca", "chat", "plain"])
@pytest.mark.parametrize("style", ["digit", "text"])
def test_control_tokens_that_are_not_marked_as_special_stay_text(tokenizer: Any, template: str, style: str) -> None:
    qwen = copy.deepcopy(tokenizer)
    qwen.add_tokens(["<think>", "</think>", "<tool_call>", "<|fim_prefix|>", "<table>", "¶"])
    qwen.chat_template = f"{CHAT}{{% if enable_thinking is false %}}<think></think>{{% endif %}}"
    control = "甲<think>乙</think>丙<tool_call><|fim_prefix|>丁<|im_end|>"
    prompt = Prompt(qwen, template, style, True)
    theirs = prompt.sequence(to_record(Question("1", control, control, (control, "乙"), 1))).tokens
    ours = prompt.sequence(to_record(QUESTION)).tokens
    assert [i for i in theirs if i >= 256] == [i for i in ours if i >= 256]
    assert text_of(qwen, theirs).count(control) >= 3
    assert prompt.encode("甲<table>¶") == qwen("甲<table>¶", add_special_tokens=False)["input_ids"]  # text to its base
    assert qwen.chat_control_tokens is None  # the tokenizer is saved as it came


@pytest.mark.parametrize("style", ["digit", "text"])
def test_candidates_are_the_options_after_the_same_prompt(tokenizer: Any, style: str) -> None:
    prompt = Prompt(tokenizer, "chinese-alpaca-2", style)
    record = to_record(QUESTION)
    answers = [text_of(tokenizer, s.tokens[s.prompt_length :]) for s in prompt.candidates(record)]
    assert answers == (["1", "2", "3", "4"] if style == "digit" else ["狗", "貓", "魚", "鳥"])
    assert {tuple(s.tokens[: s.prompt_length]) for s in prompt.candidates(record)} == {tuple(prompt.prompt(record))}
    trained = prompt.sequence(record).tokens.tolist()
    assert trained == [*prompt.candidates(record)[1].tokens.tolist(), 257]


def test_blank_options_are_no_candidates(tokenizer: Any) -> None:
    prompt = Prompt(tokenizer, "plain", "text")
    some = to_record(Question("1", "文", "問", ("", "乙", "", "丁")))
    none = to_record(Question("1", "文", "問", ("", "", "", "")))
    assert [text_of(tokenizer, s.tokens[s.prompt_length :]) for s in prompt.candidates(some)] == ["乙", "丁"]
    assert [text_of(tokenizer, s.tokens[s.prompt_length :]) for s in prompt.candidates(none)] == ["1"]


def test_reordering_moves_options_and_answer(tokenizer: Any) -> None:
    moved = reordered(to_record(QUESTION), (1, 2, 3, 0))
    text = text_of(tokenizer, Prompt(tokenizer, "alpaca", "digit").sequence(moved).tokens)
    assert "1: 貓\n2: 魚\n3: 鳥\n4: 狗" in text and text.endswith("1</s>")


def test_a_pad_token_equal_to_eos_is_harmless(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 257
    sequence = Prompt(tokenizer, "alpaca", "digit").sequence(to_record(QUESTION))
    assert sequence.tokens[-1] == 257 and len(sequence.tokens) - sequence.prompt_length == 2


@pytest.mark.parametrize(
    ("template", "style", "list_options", "fault"),
    [
        ("llama", "digit", None, "template is 'llama', expected one of chinese-alpaca-2, alpaca, plain, chat"),
        ("alpaca", "word", None, "answer_style is 'word', expected one of digit, digit_after"),
        ("alpaca", "digit", False, "list_options is false"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tokenizer: Any, template: str, style: str, list_options: bool | None, fault: str
) -> None:
    with pytest.raises(RecipeError, match=fault):
        Prompt(tokenizer, template, style, list_options)


def test_chat_needs_a_chat_template(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    with pytest.raises(RecipeError, match="has no chat template"):
        Prompt(AutoTokenizer.from_pretrained(tmp_path), "chat", "digit")


def test_what_cannot_be_trained_or_answered_is_named(tokenizer: Any) -> None:
    prompt = Prompt(tokenizer, "alpaca", "digit")
    with pytest.raises(DataError, match="record 9: has no answer"):
        prompt.sequence(Record("9", "答", "文", None, None))
    with pytest.raises(DataError, match="record 9: its input cannot be read"):
        prompt.candidates(Record("9", "答", "文", None, None))


@needs_chinese
def test_chinese_alpaca_2_ids(chinese: Any) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(CHINESE / "tokenizer.model"))
    sequence = Prompt(chinese, "chinese-alpaca-2", "digit").sequence(to_record(QUESTION))
    prompt = f"{SYSTEM}{ASKED}\n{LISTED} [/INST]"
    assert sequence.tokens.tolist() == [1, *pieces.encode(prompt), 29871, 29906, 2]
    assert sequence.prompt_length == 1 + len(pieces.encode(prompt))


@needs_chinese
def test_control_tokens_in_chinese_text(chinese: Any) -> None:
    question = Question("1", CONTROL, CONTROL, (CONTROL, "乙"), 1)
    tokens = Prompt(chinese, "chinese-alpaca-2", "text", True).sequence(to_record(question)).tokens.tolist()
    assert [i for i, token in enumerate(tokens) if token in (0, 1, 2, 32000)] == [0, len(tokens) - 1]
    assert (tokens[0], tokens[-1]) == (1, 2)
    assert chinese.decode(tokens[1:-1]).count(CONTROL) == 4


@needs_chinese
def test_a_saved_tokenizer_keeps_its_backend(chinese: Any, tmp_path: Path) -> None:
    chinese.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert tokenizer_backend(chinese) == tokenizer_backend(again) == "sentencepiece"
    prompts = [Prompt(t, "chinese-alpaca-2", "digit").sequence(to_record(QUESTION)) for t in (chinese, again)]
    assert prompts[0].tokens.tolist() == prompts[1].tokens.tolist()


@needs_chinese
@pytest.mark.parametrize("file", ["AI.xlsx", "AI1000.xlsx"])
def test_real_prompts_have_sentencepieces_own_ids(chinese: Any, file: str) -> None:
    every = int(os.environ.get("LRC_EVERY", "10"))  # 1 compares all of them
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(CHINESE / "tokenizer.model"))
    prompt = Prompt(chinese, "chinese-alpaca-2", "digit")
    records = _readable(DATA / file)[::every]
    assert len(records) >= 1000 // every
    for record in records:
        text = f"{SYSTEM}{record.instruction}\n{record.input} [/INST]"
        wanted = [1, *pieces.encode(text)]
        assert prompt.prompt(record) == wanted, record.id
        if record.output is not None:
            sequence = prompt.sequence(record)
            assert sequence.prompt_length == len(wanted)
            assert sequence.tokens.tolist() == [*wanted, *pieces.encode(record.output), 2]


def _readable(path: Path) -> list[Record]:
    from lrc.data.sources import read_questions

    try:
        return read_records(path)
    except DataError:
        return [to_record(question) for question in read_questions(path).questions]


@pytest.mark.parametrize(
    ("template", "written"),
    [("plain", "文章：{body}\n答案："), ("alpaca", "### Input:\n{body}\n\n### Response:\n")],
)
def test_numbers_may_stand_after_the_options(tokenizer: Any, template: str, written: str) -> None:
    record = to_record(Question("1", "貓在\n睡覺。", "誰在睡？", ("狗", "", "貓\n咪"), 3))
    prompt = Prompt(tokenizer, template, "digit_after")
    text = prompt.text(record)
    assert text.endswith(written.format(body="貓在\n睡覺。\n問題：誰在睡？\n狗＝1\n＝2\n貓 咪＝3"))
    assert "並以數字回答" in record.instruction and (template == "plain" or record.instruction in text)
    for sequence, number in zip(prompt.candidates(record), (1, 3), strict=True):  # the second has no text
        assert tokenizer.decode(sequence.tokens, skip_special_tokens=True) == f"{text}{number}"
    trained = prompt.sequence(record).tokens.tolist()
    assert trained[-1] == tokenizer.eos_token_id
    assert trained[:-1] == prompt.candidates(record)[1].tokens.tolist()
    with pytest.raises(RecipeError, match="a digit needs the list"):
        Prompt(tokenizer, template, "digit_after", list_options=False)


@pytest.mark.parametrize("style", ["digit", "digit_after", "text", "judge"])
@pytest.mark.parametrize("answer", [1, 2])
def test_a_record_is_as_long_as_its_longest_option(tokenizer: Any, style: str, answer: int) -> None:
    """A wrong option may be longer than the right one, and is scored as well."""
    prompt = Prompt(tokenizer, "plain", style)
    record = to_record(Question("1", "貓在睡覺。", "誰在睡？", ("貓", "隔壁的那一隻老狗"), answer))
    sequences = [*prompt.candidates(record), *prompt.supervised_sequences(record)]
    sequence, length = prompt.measured(record)
    assert length == max(len(one.tokens) for one in sequences)
    assert sequence.tokens.tolist() == prompt.sequence(record).tokens.tolist()
