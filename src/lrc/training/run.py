"""A run, from its recipe to an adapter in its `output_dir`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import set_seed

from lrc.answering.options import check_folder
from lrc.config.arguments import AdapterArguments
from lrc.config.recipe import COMMAND_LINE, Recipe, load_recipe
from lrc.config.rules import best_metric
from lrc.config.run_record import FILES, METRICS_FILE, NORMALISATIONS, NOT_RECORDED, RUN_FILE, Run, train_roles
from lrc.config.trackers import close_trackers
from lrc.data.score_files import read_scores
from lrc.data.soft_labels import SoftLabels
from lrc.metrics.predictions import OUTCOMES_FILE, Outcome, write_outcomes
from lrc.metrics.training_log import read_curves
from lrc.models.fingerprint import fingerprint_base
from lrc.models.from_recipe import (
    build_lora_config,
    check_adapted,
    check_formats,
    check_modules,
    check_stored,
    clamp_max_length,
    load_base_model,
)
from lrc.models.loading import check_size, check_vocabulary, load_config, load_tokenizer
from lrc.reporting.hub import publish_folder
from lrc.reporting.model_card import write_card
from lrc.reporting.summary import print_summary, untrained_figures, validation_figures
from lrc.runtime.devices import require_kernels
from lrc.runtime.errors import DataError, MachineError, RecipeError
from lrc.runtime.exit_status import exit_on_error
from lrc.runtime.outputs import checksum
from lrc.runtime.packages import versions
from lrc.runtime.processes import lock_together
from lrc.runtime.progress import escape_unencodable, notify, silence
from lrc.runtime.rendezvous import rendezvous
from lrc.runtime.signals import deferred, ending_with
from lrc.runtime.translation import _, alternatives, message_of
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_cache import tokenizer_digest
from lrc.tokenization.token_dataset import Corpus, Portion, join
from lrc.training.base_trainer import refuse_other_upstream
from lrc.training.callbacks import (
    DiskSpaceCallback,
    MetricsCallback,
    Patience,
    StopOnSignalCallback,
    early_stopping_step,
    epoch_at,
    keep_training,
)
from lrc.training.checkpoint import find_damage
from lrc.training.compilation import check_compilation
from lrc.training.contrastive_loss import Objective
from lrc.training.dataloader import Sampling, SequenceSource
from lrc.training.launch_record import record_launch
from lrc.training.optimizer import LoraPlus, check_optimizer, unread_arguments
from lrc.training.output_dir import OutputDir, refuse_sources_in, refuse_taken
from lrc.training.preflight import split_config_flag
from lrc.training.resume import changed_versions, nondeterminism, run_of
from lrc.training.trainer import Packing, TreeTrainer
from lrc.training.training_data import (
    check_contrasts,
    find_shared_passages,
    is_compared,
    read_training_files,
    read_validation_file,
    training_files,
)
from lrc.training.validation import AUTO, FittedScoring, Validation

SCRIPT_SAMPLE = 1000  # records by which Traditional and Simplified Chinese are told apart
SHORTENED = _("{file}: {count} passages shortened to fit max_length {max_length}: {ids}")
LEFT_OUT = _("{file}: {count} questions left out to fit max_length {max_length}: {ids}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `--config RECIPE [--key value …]`; on an error, print a line for each finding and exit with status 1.

    Args:
        arguments: the command line; by default that of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    escape_unencodable()
    warnings.simplefilter("ignore", FutureWarning)  # about upstream's own deprecations
    try:
        with exit_on_error(_("lower lora_r or max_length, or quantize the base model")):
            path, overrides = split_config_flag(words)
            with rendezvous():  # the processes meet when the training arguments are built
                recipe = load_recipe(path, overrides)
            train(recipe)
    except KeyboardInterrupt:
        sys.exit(130)


def train(recipe: Recipe) -> None:
    """Train a recipe, from its data to an adapter in its `output_dir`.

    Raises:
        LrcError: something in the recipe, the data, the model or the machine prevents the run.
        SystemExit: a signal stopped it after the current step and a checkpoint; the status is 128 + the signal's
            number.
    """
    data, args, base = recipe.data, recipe.training, recipe.model
    refuse_other_upstream()
    check_processes(args.world_size)
    require_kernels(args.device.type)
    if args.process_index:
        silence()
    name, revision, remote_code = base.model_name_or_path, base.model_revision, args.trust_remote_code
    if remote_code and args.process_index == 0:
        notify(_("trust_remote_code: code that comes with {name} runs on this machine").format(name=name))
    if (folder := Path(name).expanduser()).is_dir():
        check_folder(folder, revision)
    tokenizer = load_tokenizer(name, revision, trust_remote_code=remote_code)
    prompt = Prompt(tokenizer, data.template, data.answer_style, data.list_options)
    if args.process_index == 0:
        for note in (*recipe.notices, *prompt.notes):
            notify(note)
    config = load_config(name, revision, trust_remote_code=remote_code)
    _refuse_on_cpu(recipe)
    check_formats(recipe, config)
    check_stored(recipe)
    check_optimizer(args)
    check_compilation(args)
    if args.process_index == 0 and (unread := unread_arguments(args)):
        text = _("optim_args: {names} changes nothing of {optim}")
        notify(text.format(names=tuple(unread), optim=args.optim.value))
    clamp_max_length(recipe, config)
    output = Path(args.output_dir)
    # Before the data is read, which may take long.
    check_size(tokenizer, data.expected_vocab_size)
    _refuse_broken(args.resume_from_checkpoint)
    refuse_taken(output, overwrite=data.overwrite_output_dir)
    files, validation = read_training_files(recipe, prompt), read_validation_file(recipe, prompt)
    check_contrasts(recipe, files)
    if args.process_index == 0:
        _report_data(recipe, files, validation)
        _report_leak(data.validation_file, files, validation)
    # Trackers print, and stdout is for the result alone.
    with lock_together(output / RUN_FILE, output), redirect_stdout(sys.stderr):
        _train(recipe, prompt, files, validation)
    if args.process_index == 0:
        print_summary(output, name)


def _train(recipe: Recipe, prompt: Prompt, files: Sequence[Corpus], validation: Corpus) -> None:
    """Train into the recipe's `output_dir`, whose lock this process holds, and publish the result if asked to."""
    args, training = recipe.training, join(files, recipe.data.train_shares)
    folder = _folder(recipe, prompt, files, training.portions, validation)
    pushed, args.push_to_hub = args.push_to_hub, False  # upstream would upload files that lrc keeps private
    if folder.finished:
        text = _("{folder}: this run has already finished; nothing to do")
        text = _("{folder}: this run has already finished; publishing it") if pushed else text
        if args.process_index == 0:
            notify(text.format(folder=folder.path))
    else:
        with folder.discard_if_refused(first=args.process_index == 0):
            _train_in(folder, recipe, prompt, training, validation)
    if pushed and args.process_index == 0:
        notify(publish_folder(folder.path, args.hub_model_id, bool(args.hub_private_repo)))


def _train_in(folder: OutputDir, recipe: Recipe, prompt: Prompt, training: Corpus, validation: Corpus) -> None:
    """Train unless only the evaluation is missing, evaluate, and record that the run is finished."""
    args = recipe.training
    checkpoint = _checkpoint(recipe, folder)
    set_seed(args.seed)
    trainer = _build_trainer(recipe, prompt, training, validation)
    trainer.run = folder.run
    trainer.write_card = partial(write_card, name=folder.path.resolve().name, run=folder.run, prompt=prompt)
    if recipe.adapter.pissa and recipe.model.use_peft:
        trainer.start_with_pissa(recipe.adapter.pissa, checkpoint or (str(folder.path) if folder.trained else None))
    if _is_left_to_evaluate(folder, trainer):
        if args.process_index == 0:
            notify(_("{folder}: already trained; continuing with the evaluation").format(folder=folder.path))
        trainer.add_callback(MetricsCallback())
        step = folder.run.step
        trainer.load_trained(folder.path, step, epoch_at(folder.path, step))
        if args.process_index == 0:
            keep_training(folder.path)
    else:
        _run(trainer, recipe, folder, checkpoint)
        trainer.load_best_checkpoint()
        folder.keep(trainer)
        trainer.round_as_saved()
    text = _("the model is safe in {folder}; the same command finishes the evaluation")
    if recipe.model.use_peft:
        text = _("the adapter is safe in {folder}; the same command finishes the evaluation")
    with ending_with(text.format(folder=folder.path)):
        decided = _conclude(trainer, prompt, recipe.data.score_normalisation, folder.path)
        if decided:
            decided["validation"]["shared_passages"] = len(find_shared_passages([training], validation))
        close_trackers(trainer)
        inputs = [record.input for record in training.records[:SCRIPT_SAMPLE]]
        folder.finish(trainer, **decided, launch=record_launch(recipe, inputs))


def _build_trainer(recipe: Recipe, prompt: Prompt, training: Corpus, validation: Corpus) -> TreeTrainer:
    """Load the base model, and build its trainer."""
    data, args = recipe.data, recipe.training
    measured = _validation(recipe, prompt, validation)  # before the base is loaded, which may take long
    model = load_base_model(recipe)
    check_vocabulary(prompt.tokenizer, model)
    check_modules(recipe, model)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="peft")  # `check_adapted` refuses
            trainer = TreeTrainer(
                model=model,
                args=args,
                peft_config=build_lora_config(recipe),
                processing_class=prompt.tokenizer,
                train_dataset=training.dataset,
                source=SequenceSource.of(training, prompt, data, args.seed, _soft_labels(recipe)),
                validation=measured,
                sampling=Sampling(data.group_passages, training.portions),
                packing=Packing(data.tree_packing, data.row_tokens, data.attention),
                objective=Objective(data.option_contrast or 0.0, data.contrast_temperature or 1.0),
                loraplus=_loraplus(recipe.adapter),
            )
    except ValueError as error:  # from TRL or PEFT, about keys that do not fit together, or do not fit the model
        raise RecipeError(
            _("{path}: {reason}").format(path=recipe.path or COMMAND_LINE, reason=message_of(error))
        ) from error
    check_adapted(recipe, trainer.model)
    return trainer


def _is_left_to_evaluate(folder: OutputDir, trainer: TreeTrainer) -> bool:
    """Whether only evaluation is missing, and the weights can be loaded from the folder (sharded ones cannot)."""
    return folder.trained and not trainer.lockstep


def _run(trainer: TreeTrainer, recipe: Recipe, folder: OutputDir, checkpoint: str | None) -> None:
    """Train to the end, or until a signal stops it.

    Raises:
        SystemExit: a signal stopped it, after the current step and a checkpoint.
    """
    args = recipe.training
    if args.early_stopping_patience is not None:
        trainer.add_callback(Patience(args.early_stopping_patience, args.early_stopping_threshold))
        if checkpoint and (ended := early_stopping_step(Path(checkpoint))):
            args.max_steps = ended  # the run was killed after early stopping, before it was finished
    line = _("stopping after this step, with a checkpoint")
    if args.world_size == 1:
        line = _("stopping after this step, with a checkpoint; a second one ends at once")
    with deferred(insist=args.world_size == 1, line=line) as request:
        stopping = StopOnSignalCallback(request)
        for callback in (DiskSpaceCallback(), MetricsCallback(), stopping):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=checkpoint)
    if stopping.signal:
        if args.process_index == 0:
            text = _("{folder}: stopped after step {step}; run again to resume from there")
            notify(text.format(folder=folder.path, step=trainer.state.global_step))
        sys.exit(128 + stopping.signal)


def _loraplus(adapter: AdapterArguments) -> LoraPlus | None:
    ratio = adapter.loraplus_lr_ratio
    return None if ratio is None else LoraPlus(ratio, adapter.loraplus_lr_embedding)


def _soft_labels(recipe: Recipe) -> SoftLabels | None:
    data = recipe.data
    if data.soft_labels is None:
        return None
    files = [Path(file) for file in data.train_files]
    return SoftLabels.read(Path(data.soft_labels), files, data.soft_label_weight, data.soft_label_temperature)


def _validation(recipe: Recipe, prompt: Prompt, corpus: Corpus) -> Validation | None:
    data = recipe.data
    if not corpus.records:
        return None
    found = Validation(corpus.records, prompt, data.score_normalisation, data.eval_questions)
    metric = "loss" if recipe.training.eval_strategy == "no" else best_metric(recipe.given)
    if metric != "loss" and all(corpus.records[place].question is None for place in found.sampled):
        text = _("{file}: has no question to choose by {metric}; set metric_for_best_model: loss, or remove it")
        raise DataError(text.format(file=data.validation_file, metric=metric))
    if data.option_contrast == 1.0 and not any(is_compared(corpus.records[place]) for place in found.sampled):
        text = _(
            "{file}: none of the {count:,} questions to evaluate on has two options to choose from, so that there is "
            "no loss with option_contrast: 1; give others, set option_contrast below 1, or remove validation_file"
        )
        if len(found.sampled) < len(corpus.records):
            text = _(
                "{file}: none of the {count:,} questions that eval_questions takes has two options to choose from, so "
                "that there is no loss with option_contrast: 1; raise eval_questions, or remove it"
            )
        raise DataError(text.format(file=data.validation_file, count=len(found.sampled)))
    if len(found.sampled) < len(corpus.records) and recipe.training.process_index == 0:
        asked, every = len(found.sampled), len(corpus.records)
        text = _("{file}: evaluating on {asked:,} of its {every:,} questions, at the end on all")
        notify(text.format(file=data.validation_file, asked=asked, every=every))
    return found


def _conclude(trainer: TreeTrainer, prompt: Prompt, normalisation: str, folder: Path) -> dict[str, Any]:
    """Evaluate the trained model and write its outcomes.

    Returns:
        The fields of `Run` that this decides: normalisation, temperature, and the validation figures.
    """
    scores = trainer.final_scores()
    if not scores:
        return {}
    found = FittedScoring.of(scores, prompt, normalisation)
    trainer.log(found.metrics)
    outcomes = [Outcome.of(question, score) for question, score in found.scores]
    if trainer.is_world_process_zero():
        notify(found.describe())
        write_outcomes(folder / OUTCOMES_FILE, outcomes, force=True)
    return {
        "score_normalisation": found.score_normalisation,
        "temperature": found.temperature,
        "validation": validation_figures(outcomes) | untrained_figures(read_curves(folder / METRICS_FILE)),
    }


def check_processes(world_size: int) -> None:
    """Refuse a launch that asked for more processes than actually train together.

    Args:
        world_size: the number of processes according to accelerate.

    Raises:
        MachineError: the launcher's environment asks for another number.
    """
    asked = os.environ.get("WORLD_SIZE")
    # When asked for several processes, accelerate's one-process launcher sets MASTER_ADDR, and starts one all the same.
    alone = asked is None and "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ
    if alone or (asked is not None and int(asked) != world_size):
        raise MachineError(
            _(
                "launch: {asked} processes were asked for, {world_size} would train together; use "
                "accelerate_configs/cpu_2.yaml, multi_gpu.yaml or torchrun (or unset MASTER_ADDR for one "
                "process)"
            ).format(asked=asked or _("several"), world_size=world_size)
        )


def _refuse_on_cpu(recipe: Recipe) -> None:
    """Refuse FlexAttention of transformers on a CPU, where it would end in a traceback.

    Raises:
        RecipeError: the recipe asks for it.
    """
    if recipe.training.device.type == "cpu" and recipe.model.attn_implementation == "flex_attention":
        text = _("{path}: attn_implementation is flex_attention, which has no backward pass on a CPU; leave it out")
        raise RecipeError(text.format(path=recipe.path or COMMAND_LINE))


def _report_data(recipe: Recipe, files: Sequence[Corpus], validation: Corpus) -> None:
    """Report which files were tokenized already, and what was shortened or left out."""
    max_length = recipe.training.max_length
    names = [*training_files(recipe), recipe.data.validation_file]
    for file, corpus in zip(names, [*files, validation], strict=False):
        if corpus.reused:
            text = _("{file}: {count} questions, tokenized by an earlier run")
            notify(text.format(file=file, count=corpus.count))
        for text, ids in ((SHORTENED, corpus.shortened), (LEFT_OUT, corpus.skipped)):
            if ids:
                notify(text.format(file=file, count=len(ids), max_length=max_length, ids=tuple(ids)))


def _report_leak(file: str | None, files: Sequence[Corpus], validation: Corpus) -> None:
    """Report a validation file that is trained on, or has passages that are."""
    if file is None:
        return
    if validation.sha256 in [one.sha256 for one in files]:
        notify(_("{file}: is the training data, so its accuracy says nothing about new questions").format(file=file))
    elif shared := find_shared_passages(files, validation):
        text = _(
            "{file}: the passages of {count:,} of its {every:,} questions (first {first}) are trained on, too, so that "
            "its accuracy may be too high for new passages; lrc convert splits by passage"
        )
        notify(text.format(file=file, count=len(shared), every=len(validation.records), first=shared[0]))


def _folder(
    recipe: Recipe, prompt: Prompt, training: Sequence[Corpus], portions: Sequence[Portion], validation: Corpus
) -> OutputDir:
    """Open the recipe's `output_dir`: the first process decides about it, the others follow."""
    data, args = recipe.data, recipe.training
    labelled = {"pseudo_label_file": data.pseudo_label_file} if data.pseudo_labels else {}
    roles = {**train_roles(data.train_files), **labelled}
    files: dict[str, str | None] = {**roles, "validation_file": data.validation_file}
    corpora = dict(zip(files, [*training, validation], strict=True))
    drawn = {role: portion.drawn for role, portion in zip(files, portions, strict=False)}
    if drawn and args.process_index == 0:
        part = _("{count:,} of {every:,} of {file}")
        parts = [part.format(count=n, every=corpora[role].count, file=files[role]) for role, n in drawn.items()]
        notify(_("train_file: an epoch has {parts}").format(parts=alternatives(parts, _("{words} and {last}"))))
    run = _describe_run(recipe, prompt, files, corpora, drawn)
    if data.overwrite_output_dir:
        sources = [*files.values(), data.soft_labels, data.pseudo_labels, recipe.path, recipe.model.model_name_or_path]
        refuse_sources_in(Path(args.output_dir), [Path(source) for source in (*sources, ".") if source])
    # Machines may or may not share a disk: first the main process, then the first of each machine, then the rest.
    with args.main_process_first(local=False), args.main_process_first(local=True):
        overwrite = data.overwrite_output_dir and args.process_index == 0
        return OutputDir.open(Path(args.output_dir), run, overwrite=overwrite)


def _describe_run(
    recipe: Recipe,
    prompt: Prompt,
    files: Mapping[str, str | None],
    corpora: Mapping[str, Corpus],
    drawn: Mapping[str, int],
) -> Run:
    """What is recorded of a run: the recipe, and the data, base and software by contents and version.

    Args:
        recipe: the recipe.
        prompt: of the training.
        files: the data files, by role.
        corpora: what was read from them, by role.
        drawn: for files of which an epoch has only a part, the number of questions in it.
    """
    data, base = recipe.data, recipe.model
    labels = {"soft_labels": data.soft_labels, "pseudo_labels": data.pseudo_labels}
    return Run(
        template=data.template,
        answer_style=data.answer_style,
        list_options=prompt.list_options,
        chat_date=prompt.today,
        recipe={key: value for key, value in recipe.given.items() if key not in {*NOT_RECORDED, *FILES}}
        | {"world_size": recipe.training.world_size},
        data={
            role: {"name": Path(file).name, "sha256": corpora[role].sha256, "questions": corpora[role].count}
            | ({"drawn": drawn[role]} if role in drawn else {})
            for role, file in files.items()
            if file
        }
        | {role: _describe_scores(Path(file)) for role, file in labels.items() if file},
        base=fingerprint_base(base.model_name_or_path, base.model_revision, "model_name_or_path"),
        tokenizer={"sha256": tokenizer_digest(prompt.tokenizer)},
        versions=versions(),
        score_normalisation=NORMALISATIONS[0] if data.score_normalisation == AUTO else data.score_normalisation,
    )


def _describe_scores(scores: Path) -> dict[str, Any]:
    """What a run records about a file of scores."""
    questions = len(read_scores(scores))
    return {"name": scores.name, "sha256": checksum(scores), "questions": questions}


def _refuse_broken(named: str | None) -> None:
    """Refuse a `resume_from_checkpoint` that is not a whole checkpoint."""
    if named not in (None, "auto") and (reason := find_damage(Path(named))):
        raise RecipeError(
            _("resume_from_checkpoint: {named}: {reason}; name a whole checkpoint of lrc, or write auto").format(
                named=named, reason=reason
            )
        )


def _checkpoint(recipe: Recipe, folder: OutputDir) -> str | None:
    """The checkpoint to resume from: the first process looks for it and tells the others."""
    args = recipe.training
    named = None if args.resume_from_checkpoint in (None, "auto") else str(args.resume_from_checkpoint)
    best = args.load_best_model_at_end and not folder.trained
    chosen = [folder.checkpoint(named, best=best) if args.process_index == 0 else None]
    found: str | None = broadcast_object_list(chosen)[0]
    if found and args.process_index == 0 and not folder.trained:
        notify(_("resuming from {checkpoint}").format(checkpoint=found))
        if changed := changed_versions(run_of(Path(found)) or folder.run, folder.run):
            text = _("{checkpoint}: was made with {changed}; the result may differ in its last bits")
            notify(text.format(checkpoint=found, changed=changed))
        elif note := nondeterminism(args.device.type, bool(args.full_determinism)):
            notify(_("{checkpoint}: {note}").format(checkpoint=found, note=note))
    return found
