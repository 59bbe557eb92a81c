"""The command line: parses flags, calls one command, and prints errors. It imports only the command that is run."""

from __future__ import annotations

import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from gettext import gettext
from pathlib import Path
from types import FrameType
from typing import Any

import click

import lrc
from lrc.commands.help import TranslatedCommand, summary
from lrc.commands.options import (
    FILE,
    MODEL,
    TEXT,
    TakesSeveral,
    accelerate_config,
    answering,
    force,
    given,
    on_error,
    table,
)
from lrc.runtime import progress
from lrc.runtime.exit_status import exit_on_error, is_first, is_step, several_processes
from lrc.runtime.launch_variables import check_launch, forget_launch
from lrc.runtime.packages import FOR_MODELS, check_installed
from lrc.runtime.progress import importing
from lrc.runtime.steps import end_with_caller
from lrc.runtime.threads import wait_asleep
from lrc.runtime.translation import CHINESE, _, language, localized, translate_library

# Commands whose work the processes of a launch share; all others run in one process, however they are started.
SHARED = ("generate", "evaluate")
# Commands that only read and write files, for which PyTorch is not needed, except to check a recipe.
WITHOUT_MODELS = ("check", "compare", "completion", "convert", "init", "schema", "vote")
# What is printed when a command is interrupted: what is safe, and how to resume. All others write nothing.
SAFE: dict[str, str] = {
    "convert": _("nothing half-written has a file's name; run the same command again"),
    "evaluate": _("with --output the scores so far are kept beside it, and the same command goes on from there"),
    "generate": _("the scores so far are kept beside the output, and the same command goes on from there"),
    "merge": _("nothing half-written stays; run the same command again"),
    "publish": _("what was not finished is not seen on the Hub; run the same command again"),
    "sweep": _("finished trials are kept, and the same command goes on from there"),
    "train": _("checkpoints are kept, and the same command goes on from the last one"),
    "demo": _("begin again with --force"),
    "run": _("what is done stays, and the same command goes on from there"),
    "app": "",  # the page says it
}
WRITES_NOTHING = _("run the same command again")
INTERRUPTED, TERMINATED = _("lrc: interrupted"), _("lrc: terminated")


class Verb(TranslatedCommand):
    """A command that checks the installed packages before it runs, but not for its help."""

    def invoke(self, ctx: click.Context) -> Any:
        """Check, then run."""
        if self.name in WITHOUT_MODELS:
            return self._invoke_without_models(ctx)
        check_installed()
        if self.name in SHARED:
            check_launch()
        return super().invoke(ctx)

    def _invoke_without_models(self, ctx: click.Context) -> Any:
        check_installed(dispensable=FOR_MODELS)
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError:
            check_installed()
            raise


class Several(TakesSeveral, Verb):
    """A command whose repeatable flags take several values at once."""


class OneFile(Verb):
    """A command that takes one file, and explains what to do with several."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse further files first, whatever else is wrong."""
        if self.make_parser(ctx).parse_args(list(args))[1]:
            text = _(
                "takes one file; run it once for each; a workbook without answers needs none, `lrc generate --data` "
                "reads it as it is"
            )
            raise click.UsageError(localized(text), ctx)
        return super().parse_args(ctx, args)


class TakesKeys(Verb):
    """A command whose last words are keys of a recipe; one in the place of an argument is refused."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse such a key."""
        rest = super().parse_args(ctx, args)
        arguments = [one for one in self.params if isinstance(one, click.Argument) and one.nargs == 1]
        for argument in arguments:
            if (word := str(ctx.params.get(argument.name or ""))).startswith("-") and not ctx.resilient_parsing:
                names = [one.make_metavar(ctx) for one in arguments]
                usage = " ".join(["lrc", str(ctx.info_name), *names, "--key value"])
                text = _("{word}: is in the place of {argument}; keys of the recipe go last: {usage}")
                raise click.UsageError(
                    localized(text.format(word=word, argument=names[arguments.index(argument)], usage=usage)), ctx
                )
        return rest


class Verbs(TranslatedCommand, click.Group):
    """The commands of lrc."""

    command_class = Verb

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their whole first paragraph, which click would truncate."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, summary(command)) for name, command in commands if command is not None and not command.hidden]
        with formatter.section(gettext("Commands")):
            formatter.write_dl(rows)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(lrc.__version__, prog_name="lrc", help="Show the version and exit.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def cli(quiet: bool) -> None:
    """LoRA for reading comprehension: from a workbook to an adapter, its answers, and a submission."""
    if quiet:
        progress.silence()
        os.environ[progress.QUIET] = "1"


@cli.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--annotate", type=FILE, help="Write a copy of the workbook with every finding in its cell.")
@click.option("--fix", type=FILE, help="Write the repaired workbook, with the changed cells marked.")
@table
@force
def check(files: tuple[Path, ...], **options: Any) -> None:
    """Validate workbooks, JSON files and recipes; exit 1 if convert or train would refuse them."""
    if len(files) > 1 and (options["annotate"] or options["fix"]):
        raise click.UsageError(localized(_("--annotate and --fix take one workbook; run it once for each")))
    from lrc.commands.check import check

    sys.exit(0 if check(files, **options) else 1)


@cli.command(cls=OneFile)
@click.argument("file", type=FILE)
@click.option("--output-dir", required=True, type=FILE, help="Folder for the JSON files.")
@table
@click.option(
    "--layout",
    type=click.Choice(["lines", "reference"]),
    default="lines",
    show_default=True,
    help="Put each part of a question on a line of its own, or run them together as in the reference run.",
)
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="The share of the questions to validate on; 0 keeps all for training.",
)
@click.option("--folds", type=click.IntRange(min=2), help="Also write K cross-validation folds.")
@click.option("--seed", type=int, default=42, show_default=True, help="The seed of the split.")
@on_error
@force
def convert(file: Path, **options: Any) -> None:
    """Turn a workbook into Alpaca JSON, split by passage."""
    from lrc.commands.convert import convert

    convert(file, **options)


@cli.command(cls=TakesKeys, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("recipe", type=TEXT)
@accelerate_config
@click.option("--folds", type=click.IntRange(min=2), help="Split train_file into K folds by passage; a run each.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def train(recipe: str, accelerate_config: str | None, folds: int | None, overrides: tuple[str, ...]) -> None:
    """Train an adapter: run `accelerate launch -m lrc.sft` with RECIPE.

    RECIPE is a YAML file or the name of one that lrc ships, such as tiny/lora. Any key of it can be
    overridden: --key value. lrc's own keys: train_file, validation_file, template, answer_style,
    list_options, score_normalisation, on_too_long, option_orders, option_contrast, contrast_temperature,
    soft_labels, soft_label_weight, soft_label_temperature, pseudo_labels, pseudo_label_file,
    pseudo_label_threshold, train_shares, eval_questions, group_passages, tree_packing, attention, row_tokens,
    fold, expected_vocab_size, overwrite_output_dir. All others are those of TRL's SFTConfig and ModelConfig;
    docs/recipes.md lists them.
    """
    if folds is not None:
        from lrc.commands.train_folds import train_folds

        sys.exit(train_folds(recipe, accelerate_config, overrides, folds))
    from lrc.commands.train import train

    sys.exit(train(recipe, accelerate_config, overrides))


@cli.command(cls=TakesKeys, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("recipe", type=TEXT)
@click.option("-n", "count", type=click.IntRange(min=0), default=3, show_default=True, help="Questions to show.")
@click.option("--gpu", type=TEXT, help="Compute for this card, such as T4, T4x2 or 'RTX 4090'.")
@click.option("--gpu-memory", type=TEXT, help="Compute for GPUs with this much memory, such as 12GB.")
@accelerate_config
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def preview(recipe: str, accelerate_config: str | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Show what RECIPE would train, without training: tokens, lengths, steps and memory.

    RECIPE and the keys that override it are as in `lrc train`. Only the base's configuration and tokenizer are loaded,
    no weights.
    """
    from lrc.answering.options import check_base
    from lrc.config.recipe import find_recipe, read_given
    from lrc.runtime.cards import read_gpu
    from lrc.runtime.memory import read_memory

    if options["gpu"]:
        read_gpu(options["gpu"])
    if options["gpu_memory"]:
        read_memory(options["gpu_memory"])
    known = read_given(find_recipe(recipe), overrides)  # reports mistakes before torch is imported
    check_base(known["model_name_or_path"], known.get("model_revision"))
    with importing():
        from lrc.commands.preview import preview

    preview(recipe, accelerate_config, overrides, **options)


@cli.command("gpu-check")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="cpu runs all checks in toy sizes.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def gpu_check(**options: Any) -> None:
    """Test in two minutes what works on this GPU, how fast it is, and which recipe fits; exit 1 if something fails."""
    from lrc.commands.gpu_check import gpu_check

    sys.exit(0 if gpu_check(**options) else 1)


@cli.command()
@click.argument("file", type=FILE)
@accelerate_config
@click.option("--trials", type=click.IntRange(min=1), help="Total number of trials.  [default: the file's number]")
def sweep(file: Path, accelerate_config: str | None, trials: int | None) -> None:
    """Search for better settings: train a recipe with several values of its keys, and compare.

    FILE is a YAML file that names the recipe, the keys to search and an output_dir; examples/sweep.yaml shows one.
    Run the same command again to resume a sweep that was stopped.
    """
    with importing():
        from lrc.commands.sweep import sweep

    sweep(file, accelerate_config=accelerate_config, trials=trials)


@cli.command()
@click.option("--adapter", required=True, type=FILE, help="The folder of the adapter.")
@click.option("--output-dir", required=True, type=FILE, help="Folder for the merged model.")
@click.option("--base-model", type=MODEL, help="The base model, if not the one that the adapter names.")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Default: the base model's.")
@click.option("--verify/--no-verify", default=True, help="Compare logits with those of base + adapter afterwards.")
@force
def merge(**options: Any) -> None:
    """Merge an adapter and its unquantized base into an ordinary model folder, and verify the result."""
    from lrc.answering.options import check_adapter
    from lrc.runtime.finished_outputs import refuse_other_output

    check_adapter(options["adapter"])  # before the seconds in which torch is imported
    asked = {name: options[name] for name in ("adapter", "base_model", "dtype", "verify")}
    refuse_other_output(options["output_dir"], asked, force=options["force"])
    with importing():
        from lrc.commands.merge import merge

    merge(**options)


@cli.command()
@click.option("--model", type=MODEL, required=True, help="A base or merged model: a folder, or a name on the Hub.")
@click.option("--data", required=True, type=FILE, help="A workbook, a CSV, JSON lines or Alpaca JSON.")
@click.option(
    "--output", required=True, type=FILE, help="The CSV to write, or an .xlsx: a copy of the workbook with the answers."
)
@click.option("--scores", type=FILE, help="Write the score of every option, as JSON lines.")
@table
@answering
@force
def generate(
    model: str,
    data: Path,
    output: Path,
    scores: Path | None,
    sheet: str | None,
    columns: dict[str, str] | None,
    force: bool,
    **asked: Any,
) -> None:
    """Answer every question of a file, as a CSV with the header ID,Answer or in a copy of the workbook."""
    from lrc.answering.answered_workbook import check_output
    from lrc.answering.options import ScoringOptions, check_options
    from lrc.runtime.finished_outputs import refuse_other_output

    words = {"model": model, "data": data, "scores": scores, "sheet": sheet, "columns": columns, **asked}
    check_output(output, data)
    refuse_other_output(output, words, force=force, beside=scores)
    options = ScoringOptions(**asked)
    check_options(model, options)
    from lrc.commands.generate import generate

    generate(model, data, output, options=options, scores=scores, sheet=sheet, columns=columns, force=force)


@cli.command()
@click.option("--model", type=MODEL, help="A base or merged model: a folder, or a name on the Hub.")
@click.option(
    "--predictions", type=FILE, multiple=True, help="A CSV of answers to score instead; give two to compare them."
)
@click.option("--data", required=True, type=FILE, help="A labelled workbook, CSV, JSON lines or Alpaca JSON.")
@click.option("--output", type=FILE, help="Write the metrics as JSON.")
@click.option("--scores", type=FILE, help="Write the score of every option, as JSON lines.")
@click.option("--passage-blind", is_flag=True, help="Also ask the model without the passage, for comparison.")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
@table
@answering
@force
@click.pass_context
def evaluate(
    ctx: click.Context,
    model: str | None,
    predictions: tuple[Path, ...],
    data: Path,
    output: Path | None,
    scores: Path | None,
    passage_blind: bool,
    sheet: str | None,
    columns: dict[str, str] | None,
    as_json: bool,
    force: bool,
    **asked: Any,
) -> None:
    """Measure the accuracy of a model or of existing predictions, with its 95 percent interval."""
    if bool(model) == bool(predictions):
        raise click.UsageError(localized(_("give either --model or --predictions")))
    if len(predictions) > 2:
        raise click.UsageError(localized(_("at most two --predictions can be compared")))
    flags = given(ctx, besides=("model", "predictions", "data", "output", "sheet", "columns", "as_json", "force"))
    if predictions and flags:
        text = _("--predictions runs no model; give --model, or leave out {flags}")
        raise click.UsageError(localized(text.format(flags=tuple(flags))))
    from lrc.answering.options import ScoringOptions, check_options
    from lrc.data.sources import require_file
    from lrc.runtime.finished_outputs import refuse_other_output

    # Before the seconds in which torch is imported.
    words: dict[str, Any] = {"data": data, "sheet": sheet, "columns": columns}
    words |= {"model": model, "scores": scores, "passage_blind": passage_blind, **asked} if model else {}
    words |= {} if model else {"predictions": predictions}
    if written := output or scores:
        refuse_other_output(written, words, force=force, beside=scores if output else None)
    for path in (*predictions, data):
        require_file(path)
    options = ScoringOptions(**asked)
    if model:
        check_options(model, options)
    from lrc.commands.evaluate import evaluate_model, evaluate_predictions

    if model:
        evaluate_model(
            model,
            data,
            options=options,
            output=output,
            scores=scores,
            passage_blind=passage_blind,
            sheet=sheet,
            columns=columns,
            as_json=as_json,
            force=force,
        )
    else:
        evaluate_predictions(
            predictions, data, output=output, sheet=sheet, columns=columns, as_json=as_json, force=force
        )


@cli.command()
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option("--data", type=FILE, help="The labelled questions; needed to compare files of scores.")
@click.option("--output", type=FILE, help="Write a page with both answers to every question, side by side.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures and both answers to each question as JSON.")
@force
def compare(first: Path, second: Path, **options: Any) -> None:
    """Compare two models on the same questions: how much better one is, whether that could be chance, and where.

    FIRST and SECOND are folders of runs with a validation file, or files from `lrc evaluate --scores`. The test is
    paired, and treats the questions of a passage as one cluster.
    """
    from lrc.commands.compare import compare_models

    compare_models(first, second, **options)


@cli.command(cls=Several)
@click.argument("files", metavar="SCORES...", nargs=-1, required=True, type=FILE)
@click.option("--data", type=FILE, required=True, help="The labelled questions that SCORES belong to.")
@click.option(
    "--test-scores",
    type=FILE,
    multiple=True,
    help="The models' scores of the questions to answer, in the order of SCORES.",
)
@click.option("--test-data", type=FILE, help="The questions of --test-scores, answered in the order of this file.")
@click.option("--output", type=FILE, help="The CSV to write.")
@click.option("--scores", type=FILE, help="Write the vote's scores, as JSON lines.")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
@force
def vote(files: tuple[Path, ...], data: Path, **options: Any) -> None:
    """Combine several models' scores into one answer, with weights fitted on labelled questions.

    SCORES are files from `lrc generate --scores` or `lrc evaluate --scores`, samples of lm-evaluation-harness, or
    the folders of runs, whose validation questions --data has; one for each model. Without --test-scores, the
    labelled questions are answered, each with weights fitted on other passages.
    """
    if options["test_data"] and not options["test_scores"]:
        raise click.UsageError(localized(_("--{flag} needs --{other}").format(flag="test-data", other="test-scores")))
    from lrc.commands.vote import vote

    vote(files, data, **options)


@cli.command()
@click.option("--adapter", type=FILE, help="The folder of the adapter.")
@click.option("--merged", type=FILE, help="The folder of a merged model instead.")
@click.option(
    "--dataset", type=FILE, help="A *_manifest.json of `lrc convert`: publish a card with its counts, but no rows."
)
@click.option("--repo-id", type=TEXT, required=True, help="USER/NAME on the Hub.")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--dry-run", is_flag=True, help="Show the card and the list of files; send nothing.")
def publish(adapter: Path | None, merged: Path | None, dataset: Path | None, **options: Any) -> None:
    """Publish an adapter or a merged model, with its model card, on the Hugging Face Hub."""
    if [adapter, merged, dataset].count(None) != 2:
        raise click.UsageError(localized(_("give one of --adapter, --merged and --dataset")))
    from lrc.answering.options import check_published

    if folder := adapter or merged:
        check_published(folder)  # before the seconds in which torch is imported
    with importing():
        from lrc.commands.publish import publish, publish_dataset

    if dataset is not None:
        publish_dataset(dataset, **options)
        return

    publish(adapter or merged or Path(), **options)


@cli.command(cls=Several)
@click.argument("run_dir", type=FILE)
@click.option("--output", type=FILE, help="The page to write.  [default: RUN_DIR/report.html]")
@click.option("--scores", type=FILE, help="The run's answers to --data, from `lrc evaluate --scores`.")
@click.option("--data", type=FILE, help="The labelled questions that --scores belongs to.")
@click.option(
    "--compare-with",
    type=FILE,
    multiple=True,
    help="Other models to show next to it, such as the untrained base: scores of the same questions, or runs.",
)
@click.option("--train-scores", type=FILE, help="The run's answers to --train-data, for the accuracy on them.")
@click.option("--train-data", type=FILE, help="Labelled questions that the run was trained on.")
@force
def report(run_dir: Path, **options: Any) -> None:
    """Write one HTML page about a run, which works offline: verdict, mistakes, curves, recipe and data."""
    for scores, data in (("scores", "data"), ("train_scores", "train_data")):
        if options[scores] and not options[data]:
            text = _("--{flag} needs --{data}, the questions that it is of")
            raise click.UsageError(localized(text.format(flag=scores.replace("_", "-"), data=data.replace("_", "-"))))
    if options["train_data"] and not options["train_scores"]:
        raise click.UsageError(localized(_("--{flag} needs --{other}").format(flag="train-data", other="train-scores")))
    if options["data"] and not (options["scores"] or options["compare_with"]):
        raise click.UsageError(localized(_("--{flag} needs --{other}").format(flag="data", other="scores")))
    with importing():
        from lrc.commands.report import report

    report(run_dir, **options)


@cli.command()
@click.option("--model", type=MODEL, required=True, help="A base or merged model: a folder, or a name on the Hub.")
@click.option("--host", type=TEXT, default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="The port to listen on; 0 picks a free one.",
)
@answering
def app(model: str, host: str, port: int, **asked: Any) -> None:
    """Try a model in the browser, on single questions or on a workbook."""
    from lrc.answering.options import ScoringOptions

    with importing():
        from lrc.commands.app import app

    app(model, options=ScoringOptions(**asked), host=host, port=port)


@cli.command()
@click.argument("folder", type=FILE, default=Path())
@force
def init(folder: Path, force: bool) -> None:
    """Write editable copies of the shipped recipes, accelerate configs and samples into FOLDER (default: this one)."""
    from lrc.commands.init import init

    init(folder, force=force)


@cli.command(cls=TakesKeys, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("train", metavar="TRAIN", type=FILE)
@click.argument("test", metavar="TEST", type=FILE)
@click.option(
    "--recipe", type=TEXT, help="A YAML file, or the name of a shipped one.  [default: what suits this machine]"
)
@click.option("--output-dir", required=True, type=FILE, help="Where everything goes.")
@accelerate_config
@click.option(
    "--validation-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="The share of TRAIN to validate on.",
)
@on_error
@click.option("--columns", type=TEXT, help="Which column is which, as in `lrc convert`.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def run(train: Path, test: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Do everything: check, convert, train, evaluate, answer and report; print each step as a command.

    TRAIN has the questions with answers, TEST those to answer. If it is stopped, the same command continues from there.
    Any key of the recipe can be overridden: --key value.
    """
    from lrc.commands.run import run

    sys.exit(run(train, test, overrides=overrides, **options))


@cli.command(cls=TranslatedCommand)  # it says itself what is not installed
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def doctor(as_json: bool) -> None:
    """Look at this machine: which recipe suits it, what would be downloaded, and what to run next."""
    from lrc.commands.doctor import doctor

    sys.exit(0 if doctor(as_json=as_json) else 1)


@cli.command()
@click.option("--output", type=FILE, help="The file to write.  [default: print it]")
@force
def schema(output: Path | None, force: bool) -> None:
    """Print the JSON Schema of recipes, which lets an editor complete and check them."""
    from lrc.commands.schema import schema

    schema(output=output, force=force)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    ~/.bashrc:  eval "$(lrc completion bash)"
    ~/.zshrc:   eval "$(lrc completion zsh)"
    fish:       lrc completion fish > ~/.config/fish/completions/lrc.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # one of click's own
    print(kind(cli, {}, "lrc", "_LRC_COMPLETE").source())


@cli.command()
@click.option("--output-dir", type=FILE, default=Path("demo"), show_default=True, help="Where everything goes.")
@force
def demo(output_dir: Path, force: bool) -> None:
    """Run the whole pipeline on stories made for it, with a small base that lrc ships."""
    from lrc.runtime.outputs import refuse_existing

    refuse_existing(output_dir, force=force)
    from lrc.commands.demo import demo

    demo(output_dir, force=force)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 refused, 2 wrong usage, 130 and 143 after SIGINT and SIGTERM."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    verb = next((word for word in words if not word.startswith("-")), "")
    if verb not in (*SHARED, "train"):
        forget_launch()
    try:
        _prepare(verb)
        with exit_on_error(_("close other programs, or use a smaller model or adapter")):
            cli.main(args=words, prog_name="lrc", standalone_mode=False)
            sys.stdout.flush()  # what cannot be written is told here, and not in a traceback at the end
    except click.ClickException as error:
        if is_first():
            _show(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        if is_first():
            progress.notify(_describe_end(INTERRUPTED, verb))
        sys.exit(130)


def _prepare(verb: str) -> None:
    """What every command needs of its process; signals that were held until here are taken."""
    signal.signal(signal.SIGTERM, partial(_terminate, verb))
    if is_step():
        signal.signal(signal.SIGINT, partial(_terminate, verb))  # click would end the line of the terminal
    end_with_caller()
    wait_asleep(os.environ)
    progress.escape_unencodable()
    translate_library("click")
    warnings.simplefilter("ignore", FutureWarning)  # about upstream's own deprecations


def _show(error: click.ClickException) -> None:
    """Print a usage error in one line; `lrc` without a command shows its help."""
    context = getattr(error, "ctx", None)
    if context is None or isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    message = " ".join(line.strip() for line in error.format_message().splitlines())
    message = _punctuate(message) if language() == CHINESE else message
    progress.notify(_("Error: {message} (see {command} --help)").format(message=message, command=context.command_path))


def _punctuate(message: str) -> str:
    """Full-width punctuation where click puts the parts of a message together itself."""
    message = re.sub(r"\.$", "。", message.replace("', '", "'、'"))
    return re.sub(r"(?<=[。，：；？）]) ", "", message)


def _terminate(verb: str, signum: int, frame: FrameType | None) -> None:
    # A launcher of several ends them all where one has failed, and that one has said why.
    if not several_processes() and not is_step():
        progress.notify(_describe_end(TERMINATED, verb))
    sys.exit(128 + signum)


def _describe_end(how: str, verb: str) -> str:
    """The last line of a command that a signal has ended."""
    safe = SAFE.get(verb, WRITES_NOTHING)
    return _("{how}; {safe}").format(how=how, safe=safe) if safe else how
