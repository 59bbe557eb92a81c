"""The options of answering, and checks of them before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lrc.config.run_record import DTYPES, NORMALISATIONS, STYLES, TEMPLATE_NAMES, Run, lists_options, read_run
from lrc.runtime.arguments import require_choice, require_count
from lrc.runtime.errors import ModelError, RecipeError
from lrc.runtime.hub_connection import go_offline_if_alone, is_cached
from lrc.runtime.json_objects import read_json
from lrc.runtime.translation import _

CONFIG, ADAPTER = "config.json", "adapter_config.json"
DEFAULT_REVISION = "main"
_CHOICES = {
    "template": TEMPLATE_NAMES,
    "answer_style": STYLES,
    "score_normalisation": NORMALISATIONS,
    "dtype": DTYPES,
}


@dataclass(frozen=True)
class ScoringOptions:
    """How questions are answered; None takes what the run file of the model says.

    Args:
        adapters: folders of adapters, whose scores are averaged.
        votes: over how many orders of the options scores are averaged.
        template: see `Prompt`.
        answer_style: see `Prompt`.
        list_options: see `Prompt`.
        row_tokens: token budget of a packed row; None takes a default for the device.
        score_normalisation: see `Scorer`.
        load_in_4bit: quantize the model to 4 bits; see `quantization.quantization_config`.
        dtype: in which the model computes; see `devices.answering_dtype`.
        average_weights: average the weights of the adapters instead of their scores.

    Raises:
        RecipeError: a value is out of range.
    """

    adapters: tuple[Path, ...] = ()
    votes: int = 1
    template: str | None = None
    answer_style: str | None = None
    list_options: bool | None = None
    row_tokens: int | None = None
    score_normalisation: str | None = None
    load_in_4bit: bool | None = None
    dtype: str | None = None
    average_weights: bool = False

    def __post_init__(self) -> None:
        require_count("votes", self.votes, 1, RecipeError)
        if self.row_tokens is not None:
            require_count("row_tokens", self.row_tokens, 1, RecipeError)
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) is not None:
                require_choice(name, value, choices, RecipeError)


def check_options(model: str, options: ScoringOptions) -> None:
    """Refuse folders that do not exist or hold something else, and a model without a record of its prompt.

    Raises:
        ModelError: with a finding for each.
    """
    findings = [
        *_check_model(model),
        *(line for adapter in options.adapters for line in _check_adapter(adapter)),
    ]
    real = [adapter.resolve() for adapter in options.adapters]
    if twice := next((adapter for place, adapter in enumerate(options.adapters) if real[place] in real[:place]), None):
        findings.append(
            _("{adapter}: is given twice, and would count twice; give each --adapter once").format(adapter=twice)
        )
    if options.average_weights and len(options.adapters) < 2:
        findings.append(
            _("--average-weights: there is nothing to average; give --adapter several times, or leave it out")
        )
    if findings:
        raise ModelError(*findings)
    runs_of(model, options)


def check_adapter(folder: Path) -> None:
    """Refuse a folder that does not exist or holds no adapter.

    Raises:
        ModelError: it does not.
    """
    if findings := _check_adapter(folder, _("name the folder of a trained adapter")):
        raise ModelError(*findings)


def check_published(folder: Path) -> None:
    """Refuse a folder that holds neither an adapter nor a model.

    Raises:
        ModelError: it does not.
    """
    if not any((folder / name).is_file() for name in (ADAPTER, CONFIG)):
        text = _("{folder}: no {adapter_config} and no {config}; name an adapter or a merged model")
        raise ModelError(text.format(folder=folder, adapter_config=ADAPTER, config=CONFIG))


def check_base(name: str, revision: str | None = None) -> None:
    """Refuse a base to train on that is neither a folder nor can be fetched; the rest shows when it is loaded.

    Args:
        name: a folder, or a name on the Hub.
        revision: of a name on the Hub; what was fetched of another one than the default is not looked for.

    Raises:
        ModelError: it is not; or it is a folder, and a revision is given, or its config.json cannot be right.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_folder(folder, revision)
        return
    if revision not in (None, DEFAULT_REVISION):
        return
    if not folder.exists() and name.count("/") == 1:
        _ask_hub_for(name)
        if not _offline():
            return  # whether the Hub has it, the Hub knows
    if findings := _explain_missing(name, folder, CONFIG):
        raise ModelError(*findings)


def check_folder(folder: Path, revision: str | None = None) -> None:
    """Refuse a revision of a base in a folder, which has none, and a config.json that cannot be right.

    Raises:
        ModelError: there is a revision, or the file holds no JSON object or a `quantization_config` that is none.
    """
    if revision not in (None, DEFAULT_REVISION):
        text = _(
            "{folder}: is a folder, which has no revisions, but model_revision is {revision}; remove it, or name a "
            "base on the Hub"
        )
        raise ModelError(text.format(folder=folder, revision=revision))
    if (folder / CONFIG).is_file():
        check_quantization(folder / CONFIG)


def check_quantization(path: Path) -> None:
    """Refuse a config.json whose `quantization_config` is no JSON object; transformers says so of the tokenizer.

    Raises:
        ModelError: it is something else, or the file holds no JSON object.
    """
    config = read_json(path)
    text_part = config.get("text_config")
    for part in (config, text_part if isinstance(text_part, dict) else {}):
        found = part.get("quantization_config")
        if found is not None and not isinstance(found, dict):
            text = _(
                "{path}: quantization_config is {value}, expected a JSON object; download the file again, or remove "
                "the entry if the weights are ordinary ones"
            )
            raise ModelError(text.format(path=path, value=json.dumps(found, ensure_ascii=False)[:60]))


def runs_of(model: str, options: ScoringOptions) -> list[Run]:
    """The runs in which the model was trained: those of its adapters, else of the merged model, else by the options.

    With several adapters, the prompt of the first is used for all.

    Raises:
        ModelError: there is no run file, and the options do not say how to prompt the model.
    """
    folders = [*options.adapters, Path(model)]
    found = [run for run in map(read_run, options.adapters) if run]
    if runs := found or [run for run in (read_run(Path(model)),) if run]:
        return runs
    if options.template is None or options.answer_style is None:
        raise ModelError(
            _("{folders}: has no lrc_run.json that says how it was trained; give --template and --answer-style").format(
                folders=folders[0]
            )
        )
    return [Run(options.template, options.answer_style, lists_options(options.answer_style, options.template))]


def _check_model(model: str) -> list[str]:
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return _explain_missing(model, folder, CONFIG)
    if (folder / CONFIG).is_file():
        try:
            check_quantization(folder / CONFIG)
        except ModelError as error:
            return list(error.lines())
        return []
    if (folder / ADAPTER).is_file():
        return [
            _("{model}: is an adapter, not a model; write --model {base_of} --adapter {model}").format(
                model=model, base_of=_base_of(folder)
            )
        ]
    inside = sorted(part.parent.name for part in folder.glob(f"*/{CONFIG}"))
    if inside:
        return [_("{model}: no {name}; did you mean {near}?").format(model=model, name=CONFIG, near=folder / inside[0])]
    return [_("{model}: no {name}; name a folder that holds a model").format(model=model, name=CONFIG)]


def _check_adapter(adapter: Path, model_cure: str = "") -> list[str]:
    if not adapter.is_dir():
        cure = _nearest(adapter, ADAPTER) or _("name the folder of a trained adapter")
        return [_("{adapter}: no such folder; {cure}").format(adapter=adapter, cure=cure)]
    if (adapter / ADAPTER).is_file():
        return []
    if (adapter / CONFIG).is_file():
        cure = model_cure or _("write --model {adapter} without --adapter").format(adapter=adapter)
        return [_("{adapter}: is a model, not an adapter; {cure}").format(adapter=adapter, cure=cure)]
    return [
        _("{adapter}: no {adapter2}; name the folder of a trained adapter").format(adapter=adapter, adapter2=ADAPTER)
    ]


def _explain_missing(name: str, folder: Path, holds: str) -> list[str]:
    """The error for a model that is not a folder; empty if it may be a name on the Hub."""
    if folder.exists():
        return [_("{name}: is a file; name the folder that it is in, {parent}").format(name=name, parent=folder.parent)]
    near = _nearest(folder, holds)
    if name.count("/") == 1 and not name.startswith((".", "~", "/")) and "\\" not in name:
        if not folder.parent.is_dir():
            _ask_hub_for(name)
        if is_cached(name, CONFIG) or not (folder.parent.is_dir() or _offline()):
            return []
    elif "/" not in name and is_cached(name, CONFIG):  # the Hub's oldest models have no owner in their names
        return []
    text = _("{name}: no such folder; {cure}")
    cure = _("give a folder that holds a model, or OWNER/NAME for one on the Hub")
    if _offline():
        text = _("{name}: no such folder and none that was fetched before; {cure}")
        if name.count("/") == 1:
            cure = _("give a folder that holds a model, or connect to the Hub, which cannot be asked now")
    return [text.format(name=name, cure=near or cure)]


def _nearest(folder: Path, holds: str) -> str | None:
    """A "did you mean" with the folder of the most similar name that has a file called `holds`; None without one."""
    near = _most_similar(folder, lambda place: (place / holds).is_file())
    return _("did you mean {near}?").format(near=near) if near else None


def _most_similar(folder: Path, fits: Callable[[Path], bool]) -> Path | None:
    """An existing folder that fits, with the most similar name; its parents may be misspelt, too."""
    parent = folder.parent if folder.parent.is_dir() else _most_similar(folder.parent, Path.is_dir)
    try:
        names = [place.name for place in parent.iterdir() if fits(place)] if parent else []
    except OSError:
        return None
    near = get_close_matches(folder.name, names, n=1) or [
        name for name in names if name.lower().startswith(folder.name.lower())
    ]
    return parent / near[0] if parent and near else None


def _ask_hub_for(name: str) -> None:
    """Find out now whether a model can be fetched if it has to be; what loads it would ask seconds later."""
    if not is_cached(name, CONFIG):
        go_offline_if_alone(name)


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _base_of(adapter: Path) -> str:
    """The base that an adapter's configuration names; `BASE` if it cannot be found."""
    try:
        name = json.loads((adapter / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError):
        return "BASE"
    if not isinstance(name, str) or not Path(name).is_dir() and _explain_missing(name, Path(name), CONFIG):
        return "BASE"
    return name
