"""The Gradio page of `lrc app`: its components and their event handlers."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import as_file
from importlib.resources import files as packaged
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from lrc.answering.app.fragments import findings, fragment, header, summary
from lrc.answering.app.pasting import split_question
from lrc.answering.app.session import AppSession, make_question
from lrc.answering.app.translations import PREFIX, Language, choose_language, translate, translations
from lrc.data.questions import MAX_OPTIONS, Question, option_orders
from lrc.data.tables.workbook import read_workbook
from lrc.metrics.calibration import is_guess
from lrc.models.loading import positions
from lrc.runtime.errors import LrcError, first_line
from lrc.runtime.translation import _, localized

OPTIONS_SHOWN = 4  # at first
EXAMPLES = 5
MAX_UPLOAD = "100mb"
MAX_WAITING = 64  # requests
# Fonts of the visitor's machine: the page loads nothing from elsewhere.
FONTS = ["system-ui", "Noto Sans TC", "PingFang TC", "Microsoft JhengHei", "sans-serif"]
# WCAG 2.2 requires a contrast of 4.5 for text (1.4.3) and of 3 for controls (1.4.11). Gradio's colors have less.
CONTRAST = {
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_600",
    "button_primary_background_fill_hover_dark": "*primary_700",
    "button_secondary_border_color": "*neutral_500",
    "button_secondary_border_color_dark": "*neutral_400",
    "button_border_width": "1px",
    "input_border_color": "*neutral_500",
    "input_border_color_dark": "*neutral_400",
    "input_border_width": "1px",
    "input_placeholder_color": "*neutral_600",
    "input_placeholder_color_dark": "*neutral_300",
    "block_label_text_color": "*neutral_700",
    "block_label_text_color_dark": "*neutral_200",
    "block_title_text_color": "*neutral_700",
    "block_title_text_color_dark": "*neutral_200",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
}
# One model serves all visitors, one request at a time.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
# JavaScript that clears the answer when the question is edited.
FORGET = "() => ''"
# JavaScript that scrolls to the answer, which on a phone is below all boxes.
SHOW_ANSWER = "() => document.getElementById('answer').scrollIntoView({block: 'nearest'})"
# The same for why a pasted text cannot be split; if it was, the boxes are in view.
SHOW_REFUSAL = "() => document.querySelector('#answer .findings')?.scrollIntoView({block: 'nearest'})"
KEPT = 3600  # seconds for which files that visitors upload, and the answers to them, are kept
# What a request that no page sends ends in: gradio looks up what it asks for without checking that it is there.
REFUSED = (LookupError, RequestValidationError)
_log = logging.getLogger(__name__)
_words = gr.I18n(**translations())


def make_site(session: AppSession, names: list[str], folder: Path) -> FastAPI:
    """Build the page as a web application.

    Args:
        session: the model.
        names: of the model and its adapters, as shown.
        folder: where the answers to uploaded files go.
    """
    page = _page(session, names, folder)
    page.queue(max_size=MAX_WAITING)
    # Until it has launched, which a mounted page never does, gradio lets a request name any file of this machine.
    page.has_launched = True
    for block in page.blocks.values():
        _refuse_addresses(block)
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=["ui-monospace"])
    theme.set(**CONTRAST)
    with as_file(packaged(__package__) / "app.css") as css:
        return gr.mount_gradio_app(
            FastAPI(openapi_url=None),
            page,
            path="/",
            theme=theme,
            css_paths=[css],
            i18n=_words,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            js=packaged(__package__).joinpath("app.js").read_text(encoding="utf-8"),
            pwa=False,
            show_error=False,
            max_file_size=MAX_UPLOAD,
            app_kwargs={"openapi_url": None, "exception_handlers": dict.fromkeys(REFUSED, _refuse_request)},
        )


def _refuse_request(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that no page sends."""
    text = _("request: is not one that this page sends; reload the page")
    language = choose_language(request.headers.get("accept-language"))
    return JSONResponse({"detail": localized(text, language)}, status_code=400)


def _refuse_addresses(block: Any) -> None:
    """Take no web address in place of an uploaded file: gradio, which has no setting for that, would download it."""
    move = block.async_move_resource_to_block_cache

    async def move_file(place: str | Path | None) -> str | None:
        if str(place).startswith(("http://", "https://")):  # as gradio tells them
            raise ValueError("a web address in place of a file")  # which no page sends
        moved: str | None = await move(place)
        return moved

    block.async_move_resource_to_block_cache = move_file


def _page(session: AppSession, names: list[str], folder: Path) -> gr.Blocks:
    title = f"{names[0]} – lrc"
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=False, delete_cache=(KEPT, KEPT)) as page:
        top = gr.HTML(padding=False)
        with gr.Tab(label("one")):
            waiting = _one_question(session)
        with gr.Tab(label("many")):
            _many_questions(session, folder)

        def greet(request: gr.Request) -> tuple[str, str]:
            language = _language(request)
            return header(language, names, session), fragment("waiting", language)

        page.load(greet, None, [top, waiting], api_visibility="private", show_progress="hidden")
    return page


def label(key: str) -> Any:
    """A label that gradio shows in the language of the browser."""
    return _words(f"{PREFIX}{key}")


def _one_question(session: AppSession) -> gr.HTML:
    """Build the tab for one question, and return the component for its answer."""
    passage, question, *options = boxes = _boxes()
    _examples(boxes)
    with gr.Accordion(label("paste"), open=False, elem_id="paste"):
        whole = gr.Textbox(label=label("pasted"), lines=6, max_lines=14, elem_id="whole")
        fill = gr.Button(label("fill_in"), elem_id="fill")
    with gr.Row():
        with gr.Column(min_width=320):
            for box in boxes:
                box.render()
            with gr.Row():
                more = gr.Button(label("add"), elem_id="more")
                button = gr.Button(label("ask"), variant="primary", elem_id="ask")
        with gr.Column(min_width=320):
            answer = gr.HTML(elem_id="answer", padding=False)
    shown = gr.State(OPTIONS_SHOWN)
    more.click(_one_more, shown, [shown, more, *options], api_visibility="private", show_progress="hidden")
    filled = [answer, shown, more, *boxes]
    filling = fill.click(_paste, [whole, shown], filled, api_visibility="private", show_progress="hidden")
    filling.then(None, js=SHOW_REFUSAL)
    asking = [button.click, passage.submit, question.submit, *(option.submit for option in options)]
    answering = gr.on(asking, _asker(session), boxes, answer, **ONE_AT_A_TIME)
    answering.then(None, js=SHOW_ANSWER)
    changes = [box.change for box in boxes]
    # An answer on its way is to the question before the change.
    gr.on(changes, None, None, answer, js=FORGET, cancels=[answering], api_visibility="private")
    return answer


def _boxes() -> list[gr.Textbox]:
    """The boxes for passage, question and options, not yet rendered: the examples, which fill them, are above them."""
    passage = gr.Textbox(label=label("passage"), lines=7, max_lines=14, elem_id="passage", render=False)
    question = gr.Textbox(label=label("question"), max_lines=4, elem_id="question", render=False)
    options = [
        gr.Textbox(
            label=label(f"option{number}"),
            max_lines=3,
            elem_id=f"option{number}",
            visible=number <= OPTIONS_SHOWN,
            render=False,
        )
        for number in range(1, MAX_OPTIONS + 1)
    ]
    return [passage, question, *options]


def _many_questions(session: AppSession, folder: Path) -> None:
    # Without gradio's `file_types`, which would refuse other files in English only.
    file = gr.File(label=label("file"), elem_id="file", height=160)
    button = gr.Button(label("ask_all"), variant="primary", elem_id="ask-all")
    told = gr.HTML(elem_id="told", padding=False)
    with gr.Row():
        downloads = [
            gr.DownloadButton(label(name), visible=False, elem_id=name) for name in ("download", "download_workbook")
        ]
    shown = [told, *downloads]
    button.click(_file_asker(session, folder), file, shown, show_progress_on=told, **ONE_AT_A_TIME)
    file.change(lambda: ("", *_no_downloads()), None, shown, api_visibility="private")


def _no_downloads() -> tuple[gr.DownloadButton, gr.DownloadButton]:
    return gr.DownloadButton(visible=False), gr.DownloadButton(visible=False)


def _examples(inputs: list[gr.Textbox]) -> None:
    questions = _sample_questions()
    gr.Examples(
        [[one.passage, one.question, *one.options, *[""] * (MAX_OPTIONS - len(one.options))] for one in questions],
        inputs,
        example_labels=[one.question for one in questions],
        label=label("examples"),
        elem_id="examples",
        cache_examples=False,
        api_visibility="private",
    )


def _sample_questions() -> list[Question]:
    """The first question about each passage of the shipped test workbook."""
    with as_file(packaged("lrc.examples") / "sample_test.xlsx") as path:
        by_passage = {one.passage: one for one in reversed(read_workbook(path).questions)}
    return list(by_passage.values())[::-1][:EXAMPLES]


def _one_more(shown: int) -> list[Any]:
    shown = min(shown + 1, MAX_OPTIONS)
    boxes = [gr.Textbox(visible=number <= shown) for number in range(1, MAX_OPTIONS + 1)]
    return [shown, gr.Button(visible=shown < MAX_OPTIONS), *boxes]


def _paste(request: gr.Request, text: str, shown: int) -> list[Any]:
    """Fill the boxes with the parts of a pasted question, or show why it cannot be split."""
    try:
        parts = split_question(text or "")
    except LrcError as error:
        language = _language(request)
        return [findings(language, error.lines(language)), shown, *[gr.skip()] * (3 + MAX_OPTIONS)]
    shown = max(shown, len(parts.options))
    texts = [*parts.options, *[""] * (MAX_OPTIONS - len(parts.options))]
    boxes = [gr.Textbox(text, visible=number <= shown) for number, text in enumerate(texts, start=1)]
    return ["", shown, gr.Button(visible=shown < MAX_OPTIONS), parts.passage, parts.question, *boxes]


def _asker(session: AppSession) -> Callable[..., str]:
    def ask(request: gr.Request, passage: str, question: str, *options: str) -> str:
        language = _language(request)
        try:
            asked = make_question(passage, question, options)
            scores, orders, shortened = session.ask(asked)
        except Exception as error:  # whatever it is, the visitor is told
            return findings(language, _lines(error, language))
        listed = session.scorer.prompt.list_options
        return fragment(
            "answer",
            language,
            question=asked,
            scores=scores,
            votes=len(option_orders(asked, session.scorer.votes)),
            orders=orders,
            fixed=listed,
            limit=positions(session.scorer.model.config) if shortened else None,
            guess=is_guess(scores.probabilities, len(asked.choosable)),
        )

    return ask


def _file_asker(session: AppSession, folder: Path) -> Callable[..., tuple[Any, ...]]:
    def ask(file: str | None, request: gr.Request, progress: gr.Progress = _PROGRESS) -> tuple[Any, ...]:
        language = _language(request)

        def advance(done: int, total: int) -> None:
            progress(done / max(total, 1), desc=translate(language, "progress", done=done, total=total))

        if file is None:
            nothing = _("file: none was given; choose a workbook first")
            return findings(language, [localized(nothing, language)]), *_no_downloads()
        _forget(folder)
        try:
            answered = session.answer_file(Path(file), Path(mkdtemp(dir=folder)), advance)
        except Exception as error:  # whatever it is, the visitor is told
            return findings(language, _lines(error, language)), *_no_downloads()
        made = [
            gr.DownloadButton(value=path and str(path), visible=path is not None)
            for path in (answered.csv, answered.workbook)
        ]
        return summary(language, answered), *made

    return ask


def _forget(folder: Path) -> None:
    """Remove the answers to files of earlier visitors, which gradio has copied where a visitor's browser gets them.

    A folder that is empty is that of a file that is being answered, which may take longer.
    """
    for made in folder.iterdir():
        with suppress(OSError):
            if time.time() - made.stat().st_mtime > KEPT and any(made.iterdir()):
                shutil.rmtree(made)


_PROGRESS = gr.Progress()


def _language(request: gr.Request) -> Language:
    return choose_language(request.headers.get("accept-language"))


def _lines(error: Exception, language: Language) -> tuple[str, ...]:
    """An error's findings; one that is not an LrcError is the fault of model, machine or program, and is logged."""
    if isinstance(error, LrcError):
        return error.lines(language)
    _log.error("a request failed", exc_info=error)
    text = _("model: {reason}; see where lrc app was started")
    return (localized(text.format(reason=first_line(error)), language),)
