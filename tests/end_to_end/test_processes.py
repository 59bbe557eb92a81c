"""Several processes do what one does: the same adapter, the same answers, and one end for all of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fork_server
import pytest
import yaml
from fork_server import Forked
from processes import Command  # of tests/faults
from safetensors.torch import load_file, save_file
from small_runs import make_run, pairs, write_questions

from lrc.answering.load import load_scorer
from lrc.answering.options import ScoringOptions
from lrc.commands import train as train_command
from lrc.config.run_record import read_run
from lrc.data.sources import read_records
from lrc.metrics.predictions import OUTCOMES_FILE, read_outcomes
from lrc.models.loading import load_tokenizer
from lrc.models.tiny import make_base
from lrc.training.callbacks import METRICS_FILE

ROOT = Path(__file__).parents[2]
CPU_2 = ROOT / "accelerate_configs/cpu_2.yaml"
RARE = "龘"  # in one passage only
BATCH = 4  # questions a step, over all processes
PATIENCE = 120.0  # seconds until a test gives up


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, questions of which the last batch has three, three to evaluate on, and 300 to answer."""
    lengths = range(1, 6)
    where = make_run(
        tmp_path_factory.mktemp("processes"),
        pairs(11, lengths),
        pairs(3, lengths),
        template="chinese-alpaca-2",
        lora_r=4,
        lora_dropout=0.0,
        lora_target_modules=["q_proj", "v_proj", "down_proj"],
        num_train_epochs=2,
        learning_rate=1.0e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        eval_strategy="epoch",
        save_strategy="no",
        use_cpu=True,
    )
    write_questions(where / "few.json", pairs(5, lengths))
    write_questions(where / "many.json", pairs(300, lengths))
    return where


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(words: list[str | Path], logs: Path, processes: int, *, machines: int = 1) -> list[Command]:
    """The processes that a launcher would start, on so many machines that are all this one."""
    here, port = processes // machines, free_port()
    commands = []
    for rank in range(processes):
        environment = {
            "RANK": rank,
            "LOCAL_RANK": rank % here,
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": here,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        launch = {key: str(value) for key, value in environment.items()} if processes > 1 else {}
        commands.append(Command(words, logs.with_name(f"{logs.name}.log{rank}"), environment=launch))
    return commands


def finish(commands: list[Command]) -> list[str]:
    """Wait for all; what the first one said."""
    assert [command.wait() for command in commands] == [0] * len(commands), [command.told for command in commands]
    return commands[0].told


def train(folder: Path, output: Path, processes: int, *overrides: str, machines: int = 1) -> list[str]:
    words: list[str | Path] = ["train", "--config", folder / "recipe.yaml", "--output_dir", output]
    return finish(start([*words, *overrides], output, processes, machines=machines))


def batch(size: int) -> list[str]:
    return ["--per_device_train_batch_size", str(size)]


def assert_same_run(one: Path, other: Path) -> None:
    adapters = [load_file(where / "adapter_model.safetensors") for where in (one, other)]
    assert adapters[0].keys() == adapters[1].keys()
    assert any(tensor.any() for name, tensor in adapters[0].items() if "lora_B" in name)
    for name, tensor in adapters[0].items():
        assert (adapters[1][name] - tensor).abs().max() <= 1e-5, name
    evaluated = [[line for line in history(where) if "eval_loss" in line] for where in (one, other)]
    assert len(evaluated[0]) == len(evaluated[1]) > 0
    for line, same in zip(*evaluated, strict=True):
        assert same["eval_loss"] == pytest.approx(line["eval_loss"], rel=1e-4)
        assert (same["step"], same["eval_accuracy"]) == (line["step"], line["eval_accuracy"])


def history(output: Path) -> list[dict[str, float]]:
    return [yaml.safe_load(line) for line in (output / METRICS_FILE).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of one process."""
    output = tmp_path_factory.mktemp("alone") / "a"
    train(folder, output, 1, *batch(BATCH))
    return output


@pytest.mark.parametrize(("processes", "machines"), [(2, 1), (4, 1), (4, 2)])
def test_they_train_the_adapter_of_one(
    folder: Path, alone: Path, tmp_path: Path, processes: int, machines: int
) -> None:
    # The last step of an epoch has three questions: with four processes one has none. Evaluation has three, too.
    train(folder, tmp_path / "a", processes, *batch(BATCH // processes), machines=machines)
    told = read_run(tmp_path / "a")
    assert told is not None and told.finished and told.recipe["world_size"] == processes
    assert_same_run(alone, tmp_path / "a")


@pytest.mark.parametrize("contrast", [False, True])
def test_a_process_may_have_fewer_questions_than_the_others_or_none(
    folder: Path, tmp_path: Path, contrast: bool
) -> None:
    few = ["--train_file", str(folder / "few.json"), "--max_steps", "3"]
    if contrast:
        few += ["--template", "plain", "--answer_style", "text", "--option_contrast", "0.5"]
    train(folder, tmp_path / "one", 1, *few, *batch(8))
    train(folder, tmp_path / "four", 4, *few, *batch(2))
    assert_same_run(tmp_path / "one", tmp_path / "four")


def test_each_of_them_ends_with_the_best_weights(folder: Path, tmp_path: Path) -> None:
    # Every second step has one question, so that one of the two has none, and divides by its own tokens.
    output = tmp_path / "a"
    few = ["--train_file", str(folder / "few.json"), "--average_tokens_across_devices", "false", *batch(2)]
    often = ["--eval_strategy", "steps", "--eval_steps", "1", "--save_strategy", "steps", "--save_steps", "1"]
    best = ["--load_best_model_at_end", "--metric_for_best_model", "loss", "--save_total_limit", "1"]
    train(folder, output, 2, *few, *often, *best, "--max_steps", "4", "--learning_rate", "3.0")
    evaluated = {line["step"]: line["eval_loss"] for line in history(output) if "eval_loss" in line}
    step = min(evaluated, key=evaluated.__getitem__)
    assert list(evaluated) == [1, 2, 3, 4] and step < 4
    name = "adapter_model.safetensors"
    assert (output / name).read_bytes() == (output / f"checkpoint-{step}" / name).read_bytes()
    # Each process has answered its own part of these.
    kept = read_outcomes(output / OUTCOMES_FILE)
    scores = load_scorer(str(folder / "base"), ScoringOptions((output,)))(read_records(folder / "t_validation.json"))
    assert len(kept) == len(scores) == 3
    for one, other in zip(kept, scores, strict=True):
        assert one.scores == pytest.approx(other.log_probs, abs=1e-4)


def test_the_data_are_prepared_once_while_the_others_wait(folder: Path, tmp_path: Path) -> None:
    file = write_questions(tmp_path / "large_train.json", pairs(3000, range(1, 6)))
    words: list[str | Path] = ["train", "--config", folder / "recipe.yaml", "--output_dir", tmp_path / "a"]
    timeout = 10  # seconds, of whatever the processes do together
    overrides = ["--train_file", str(file), "--max_steps", "1", "--ddp_timeout", str(timeout), *batch(2)]
    cache = Path(os.environ["HF_DATASETS_CACHE"]) / "lrc"
    before = set(cache.glob("*"))
    first, second = start([*words, *overrides], tmp_path / "a", 2)
    first.pause_when(lambda: any(file.stat().st_size for file in cache.glob(".*.part/tokens.arrow")))
    time.sleep(timeout + 2)
    assert second.process.is_alive() and len(list(cache.glob(".*.part"))) == 1
    assert (first.resume(), second.wait()) == (0, 0), (first.told, second.told)
    assert [line for line in first.told if line.startswith("training questions: 3000/3000")]
    assert not [line for line in second.told if "questions" in line]
    assert len({path for path in cache.glob("*") if path.is_dir()} - before) == 1


ASK = ["--template", "alpaca", "--answer-style", "digit"]


def asking(verb: str, folder: Path, output: Path) -> list[str | Path]:
    flags: list[str | Path] = ["--model", folder / "base", "--data", folder / "many.json", *ASK]
    return [verb, *flags, "--output", output / "output", "--scores", output / "scores.jsonl"]


def written(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir()}


def accelerate(python: str | Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` with the configuration of two processes."""
    command = [python, "-m", "accelerate.commands.launch", "--config_file", CPU_2, "--main_process_port", "0"]
    return subprocess.run([str(word) for word in [*command, *words]], capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module", params=["generate", "evaluate"])
def asked(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A verb, and what one process writes."""
    output = tmp_path_factory.mktemp(request.param)
    finish(start(asking(request.param, folder, output), output, 1))
    assert written(output).keys() == {"output", "scores.jsonl"}
    return request.param, output


@pytest.mark.parametrize("processes", [2, 4])
def test_they_answer_as_one_does_to_the_byte(
    asked: tuple[str, Path], folder: Path, tmp_path: Path, processes: int
) -> None:
    verb, alone = asked
    output = tmp_path / "a"
    output.mkdir()
    commands = start(asking(verb, folder, output), output, processes)
    told = finish(commands)
    assert written(output) == written(alone)
    assert told  # by the first process alone
    assert [command.told for command in commands[1:]] == [[]] * (processes - 1)


def test_accelerate_launches_the_verbs_with_their_flags(asked: tuple[str, Path], folder: Path, tmp_path: Path) -> None:
    verb, alone = asked
    module, processes, python = {
        "generate": ("lrc.generate", "4", fork_server.python()),
        "evaluate": ("lrc.evaluation", "2", sys.executable),
    }[verb]
    done = accelerate(python, "--num_processes", processes, "-m", module, *asking(verb, folder, tmp_path)[1:])
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == written(alone)
    assert done.stdout.count("accuracy   ") == (verb == "evaluate")
    assert done.stdout.count("300 answers") == (verb == "generate")


@pytest.fixture(scope="module")
def broken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that gives no numbers for question 200, which the second of two processes answers, and the questions."""
    where = tmp_path_factory.mktemp("broken")
    questions = pairs(300, range(1, 6))
    questions[200] = replace(questions[200], passage=questions[200].passage + RARE)
    write_questions(where / "questions.json", questions)
    make_base(where / "base", [question.passage for question in questions])
    (rare,) = set(load_tokenizer(str(where / "base")).encode(RARE, add_special_tokens=False)[-1:])
    weights = load_file(where / "base/model.safetensors")
    weights["model.embed_tokens.weight"][rare] = float("nan")
    save_file(weights, where / "base/model.safetensors", {"format": "pt"})
    return where


@pytest.mark.parametrize(
    ("module", "wrong"),
    [("lrc.evaluation", "data")]
    + [("lrc.generate", wrong) for wrong in ("data", "model", "flag", "one process alone")],
)
def test_of_what_is_refused_one_line_is_said(
    module: str, wrong: str, folder: Path, broken: Path, tmp_path: Path
) -> None:
    words, line = {
        "data": (["--data", tmp_path / "missing.json"], "missing.json: No such file"),
        "model": (["--model", tmp_path / "missing"], f"{tmp_path / 'missing'}: "),
        "flag": (["--score-normalisation", "token"], "--score-normalisation is token"),
        "one process alone": (["--model", broken / "base", "--data", broken / "questions.json"], "question 200: "),
    }[wrong]
    verb = {"lrc.generate": "generate", "lrc.evaluation": "evaluate"}[module]
    done = accelerate(fork_server.python(), "-m", module, *asking(verb, folder, tmp_path)[1:], *words)
    before, _, launcher = done.stderr.partition("Traceback")  # the launcher's own account
    said = [text for text in before.splitlines() if text.startswith(line)]
    assert done.returncode == 1 and len(said) == 1, done.stderr
    assert line not in launcher and "terminated" not in done.stderr
    assert not (tmp_path / "output").exists() and not (tmp_path / "scores.jsonl").exists()


def writers(log: Path) -> list[int]:
    """The processes whose stderr is this file."""
    found = []
    for handle in Path("/proc").glob("[0-9]*/fd/2"):
        with suppress(OSError):  # it has ended, or is not ours
            if handle.readlink() == log:
                found.append(int(handle.parts[2]))
    return found


def rank(process: int) -> str | None:
    lines = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next((line.partition(b"=")[2].decode() for line in lines if line.startswith(b"RANK=")), None)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(moment: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not moment():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes of a run in /proc")
@pytest.mark.parametrize("seen_late", [False, True])
def test_one_that_is_killed_ends_all_with_a_line(folder: Path, tmp_path: Path, seen_late: bool) -> None:
    # A collective's thread aborts the others for the loss of it, sometimes before the launcher looks.
    log = tmp_path / "log"
    words = ["train", folder / "recipe.yaml", "--accelerate-config", CPU_2, "--output_dir", tmp_path / "a"]
    launcher = Forked(["-m", "lrc", *map(str, words), "--max_steps", "100000", *batch(2)], log, {})
    started: list[int] = []
    try:
        until(lambda: (tmp_path / "a" / METRICS_FILE).exists() or not launcher.is_alive())
        started = writers(log)
        first, second = (next(process for process in started if rank(process) == one) for one in "01")
        if seen_late:
            os.kill(launcher.pid, signal.SIGSTOP)
        os.kill(second, signal.SIGKILL)
        if seen_late:
            os.kill(first, signal.SIGABRT)
            until(lambda: not is_running(first) and not is_running(second))
            os.kill(launcher.pid, signal.SIGCONT)
        launcher.join(PATIENCE)
        assert launcher.exitcode == 128 + signal.SIGKILL
    finally:
        if launcher.is_alive():
            os.kill(launcher.pid, signal.SIGKILL)
    told = log.read_text(encoding="utf-8")
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("launch: ")]
    assert line.startswith("launch: process 1 of the run was ended by SIGKILL") and "run again" in line
    until(lambda: not any(map(is_running, started)))


def test_a_run_imports_nothing_from_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one process, which the command becomes, nor those that its launcher starts."""
    from accelerate.commands import launch

    seen: list[str | None] = []

    def become(command: list[str], environment: dict[str, str]) -> None:
        seen.append(environment.get("PYTHONSAFEPATH"))
        raise SystemExit(0)

    monkeypatch.setattr(train_command, "preflight", lambda *_: None)
    monkeypatch.setattr(train_command, "_replace_process", become)
    monkeypatch.setattr(launch, "launch_command", lambda args: seen.append(os.environ.get("PYTHONSAFEPATH")))
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, "1")  # to be restored
    monkeypatch.delenv("PYTHONSAFEPATH")
    with pytest.raises(SystemExit):
        train_command.train("tiny/lora", "cpu", [])
    assert train_command.train("tiny/lora", "cpu_2", []) == 0
    assert seen == ["1", "1"]
