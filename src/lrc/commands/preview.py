"""`lrc preview RECIPE`: shows the tokens, rows, steps and memory of a training without running it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from trl.trainer.utils import get_quantization_config

from lrc.config.accelerate_config import Topology, read_topology
from lrc.config.recipe import Recipe, find_recipe, load_recipe
from lrc.models.from_recipe import build_lora_config, clamp_max_length
from lrc.models.loading import load_config, load_tokenizer
from lrc.models.quantization import quantization_on_disk
from lrc.models.stored_quantization import StoredQuantization
from lrc.packing.log_probs import row_budget
from lrc.preview.memory_plan import Planner
from lrc.preview.meta_model import ModelSpec, why_not_shared
from lrc.preview.precision import Precision, choose_precision
from lrc.preview.render import Memory, Preview, Tokens, document, print_preview
from lrc.preview.suggestions import Setting, plan_of, suggest_changes
from lrc.preview.throughput import tokens_a_second
from lrc.preview.token_view import view_tokens
from lrc.preview.workload import measure_workload, supposed_row
from lrc.runtime.cards import ASSUMED, Card, read_gpu
from lrc.runtime.devices import device_type
from lrc.runtime.errors import ModelError, RecipeError
from lrc.runtime.findings import print_json, print_next
from lrc.runtime.memory import available_memory, read_memory
from lrc.runtime.progress import notify, track
from lrc.runtime.system import command_line
from lrc.runtime.translation import _, message_of
from lrc.tokenization.prompt import Prompt
from lrc.tokenization.token_dataset import join
from lrc.training.dataloader import SequenceSource
from lrc.training.optimizer import learning_rates
from lrc.training.training_data import check_contrasts, read_training_files


def preview(
    recipe: str,
    accelerate_config: str | None,
    overrides: Sequence[str],
    *,
    count: int = 3,
    gpu: str | None = None,
    gpu_memory: str | None = None,
    as_json: bool = False,
) -> None:
    """Show what a recipe would train.

    If the data, the tokenizer or the base's configuration is missing, a line says so, and the rest is shown.

    Args:
        recipe: a YAML file, or the name of a shipped one.
        accelerate_config: likewise; None takes one that suits the machine.
        overrides: `--key value` for any key of the recipe.
        count: how many questions are shown token by token.
        gpu: a GPU in `runtime.cards` and its count, such as `T4x2`; this machine need not have it.
        gpu_memory: the memory of each GPU, such as `12GB`, which overrides that of `gpu`.
        as_json: print one JSON object instead.

    Raises:
        LrcError: the recipe, its data or its base cannot be used, or too much is missing to show anything.
    """
    meant, gpus = read_gpu(gpu) if gpu else (None, None)
    capacity = read_memory(gpu_memory) if gpu_memory else meant.memory if meant else None
    loaded = load_recipe(find_recipe(recipe), overrides)
    device = device_type(use_cpu=bool(loaded.given.get("use_cpu")))
    topology = read_topology(
        accelerate_config, device="cuda" if meant else device, gpu_assumed=capacity is not None, gpus=gpus
    )
    if meant and topology.device == "cpu":
        raise RecipeError(
            _("--gpu: {gpu}, but {name} is an accelerate config without a GPU; give one of them").format(
                gpu=gpu, name=topology.name
            )
        )
    card = meant or (ASSUMED if topology.device != device else None)
    config = _config(loaded)
    if config:
        clamp_max_length(loaded, config)
    precision = choose_precision(loaded, config, topology.device, card)
    row_tokens = row_budget(torch.device(topology.device), loaded.data.row_tokens, training=True)
    build = _build(loaded, config, precision, topology, card) if config else None
    reason = why_not_shared(build) if build and loaded.data.tree_packing else None
    reason = reason if loaded.data.tree_packing else _("tree_packing is false")
    tokens = _tokens(loaded, topology, row_tokens, count, share=reason is None)
    if tokens is None and build is None:
        raise ModelError(
            _("{model_name_or_path}: neither its configuration nor its tokenizer is available here").format(
                model_name_or_path=loaded.model.model_name_or_path
            )
        )
    planner = Planner()
    memory = _memory(build, loaded, topology, row_tokens, tokens, capacity, planner) if build else None
    longest = tokens.work.longest_row if tokens else row_tokens
    speed = tokens_a_second(build, planner.model(build), meant, topology, longest) if build and meant else None
    seen = Preview(loaded, topology, precision, row_tokens, reason, tokens, memory, meant, speed)
    if as_json:
        print_json(document(seen))
    else:
        print_preview(seen)
        launch = ["--accelerate-config", accelerate_config] if accelerate_config else []
        print_next(_next(seen, [recipe, *launch, *overrides]))


def _next(seen: Preview, words: Sequence[str]) -> str:
    """The next command: to train, with the change that makes it fit if it does not, or to get what is missing."""
    if missing := [file for file in seen.recipe.data.train_files if not Path(file).exists()]:
        return command_line(["lrc", "convert", "TRAIN.xlsx", "--output-dir", str(Path(missing[0]).parent)])
    if seen.memory is None or seen.tokens is None:
        return command_line(["hf", "download", str(seen.recipe.model.model_name_or_path)])
    if seen.memory.fits is not False:
        return command_line(["lrc", "train", *words])
    changes = seen.memory.suggestion.changes if seen.memory.suggestion else ()
    keys = [re.fullmatch(r"(\w+): (\S+)", change) for change in changes]  # others are about machine or base
    if not keys or None in keys:
        return "lrc doctor"
    changed = [word for found in keys if found for word in (f"--{found[1]}", found[2])]
    return command_line(["lrc", "train", *words, *changed])


def _config(recipe: Recipe) -> Any:
    name = recipe.model.model_name_or_path
    try:
        return load_config(name, recipe.model.model_revision)
    except ModelError as error:
        notify(_("{reason}; no memory plan without it").format(reason=message_of(error)))
        return None


def _build(recipe: Recipe, config: Any, precision: Precision, topology: Topology, card: Card | None) -> ModelSpec:
    model = copy(recipe.model)
    model.dtype = None  # it may be `auto`; `precision` has the actual one
    quantization = get_quantization_config(model) or quantization_on_disk(config)
    if (stored := StoredQuantization.of(config)) is not None:
        name = model.model_name_or_path
        stored.refuse_unknown(name)
        stored.agree(name, bool(model.load_in_4bit), bool(model.load_in_8bit))
        if stored.method != "bitsandbytes":
            text = _("{name}: its weights are quantized ({stored}); the plan counts them in {dtype}, an upper bound")
            if stored.is_dequantized:
                text = _("{name}: its weights are quantized ({stored}), and training dequantizes them to {dtype}")
            dtype = str(precision.weights).removeprefix("torch.")
            notify(text.format(name=name, stored=stored, dtype=dtype))
    if quantization is not None and quantization.load_in_4bit:
        quantization.bnb_4bit_compute_dtype = precision.weights
    return ModelSpec(
        config,
        precision.weights,
        build_lora_config(recipe),
        quantization,
        recipe.model.attn_implementation,
        bool(recipe.training.gradient_checkpointing),
        precision.autocast,
        topology.device,
        recipe.data.attention,
        _capability(topology, card),
        bool(recipe.training.torch_compile or recipe.training.activation_offloading),
    )


def _capability(topology: Topology, card: Card | None) -> tuple[int, int]:
    if card is None and topology.device == "cuda":
        return torch.cuda.get_device_capability()
    return (card or ASSUMED).capability


def _tokens(recipe: Recipe, topology: Topology, row_tokens: int, count: int, *, share: bool) -> Tokens | None:
    data, args = recipe.data, recipe.training
    if missing := [file for file in data.train_files if not Path(file).exists()]:
        notify(_("{file}: no such file; no token figures without it: `lrc convert` writes it").format(file=missing[0]))
        return None
    try:
        tokenizer = load_tokenizer(recipe.model.model_name_or_path, recipe.model.model_revision)
    except ModelError as error:
        notify(_("{reason}; no token figures without it").format(reason=message_of(error)))
        return None
    prompt = Prompt(tokenizer, data.template, data.answer_style, data.list_options)
    for note in prompt.notes:
        notify(note)
    files = read_training_files(recipe, prompt)
    check_contrasts(recipe, files)
    corpus = join(files, data.train_shares)
    draw = SequenceSource.of(corpus, prompt, data, args.seed)
    work = measure_workload(corpus, draw, recipe, world_size=topology.processes, row_tokens=row_tokens, share=share)
    judged = data.answer_style == "judge"  # all verdicts are shown, whether they are supervised or compared
    drawn = (
        (record, one)
        for place, record in enumerate(islice(corpus.records, count))
        for one in (prompt.supervised_sequences(record) if judged else draw((place, 0))[:1])
    )
    rates = learning_rates(args, work.steps)
    return Tokens(prompt, corpus, view_tokens(prompt, drawn), work, rates)


def _memory(
    build: ModelSpec,
    recipe: Recipe,
    topology: Topology,
    row_tokens: int,
    tokens: Tokens | None,
    capacity: int | None,
    planner: Planner,
) -> Memory:
    optim = str(getattr(recipe.training.optim, "value", recipe.training.optim))
    row_of = tokens.work.row_of if tokens else supposed_row
    setting = Setting(build, topology, optim, row_tokens, row_of)
    if capacity is None and topology.device == "cpu":
        capacity = available_memory() // topology.processes
    with track(_("memory plan"), 1, "plans") as advance:
        plan, model = plan_of(setting, planner), planner.model(build)
        advance()
    suggestion = None
    if capacity is not None and plan.total > capacity:
        suggestion = suggest_changes(setting, capacity, planner)
    return Memory(plan, capacity, model.parameters, model.trained, suggestion)
