"""How the page looks and what its parts call; the work itself is in `srkit.demo.work`."""

from __future__ import annotations

import functools
import html
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gradio as gr

from srkit.demo.views import Box, SlideMap
from srkit.demo.work import Result, Workbench
from srkit.errors import DataError, SrkitError
from srkit.imaging.files import write_image
from srkit.inference.settings import VolumeSettings

CSS = """
.gradio-container { max-width: 1320px !important; margin: 0 auto !important; }
#head h1 { margin-bottom: 0; font-weight: 650; letter-spacing: -0.01em; }
#head p { color: var(--body-text-color-subdued); margin-top: 2px; }
#status { min-height: 76px; }
#status ul { padding-left: 1.1em; }
#limit { font-weight: 600; padding: 0; }
#download, #status, #found, #limit { overflow-wrap: anywhere; }
#map, #microns { border: 0 !important; }
#model input { text-overflow: ellipsis; padding-right: 2em; }
@media (min-width: 720px) { #compared-2 { flex: 0 1 calc(50% - 8px); } }
footer { display: none !important; }
"""
_HEAD = """# srkit
Enlarge a picture, a slide or a NIfTI volume with a trained model. Files stay on the machine that runs this page.
Nothing here is a medical device."""
_EMPTY = "The result appears here. Give a file first."
_AXES = ["the one with thick slices", "0", "1", "2"]
_PLANES = 3
_JOB = {"concurrency_id": "job", "concurrency_limit": 1, "api_visibility": "private"}
_LIMIT = """<script>
for (const kind of ["change", "drop"]) addEventListener(kind, (event) => {
  const files = event.dataTransfer?.files ?? event.target.files, said = document.querySelector("#limit");
  const large = [...(files ?? [])].find((file) => file.size > MEGABYTES * 1e6);
  if (!files || !said) return;
  said.textContent = "";
  if (!large) return;
  event.stopImmediatePropagation();
  event.preventDefault();
  said.textContent = `${large.name} has ${(large.size / 1e6).toFixed(1)} MB, this page takes MEGABYTES MB at most; ` +
    "give a smaller file, or start the page with a larger --max_upload_mb.";
}, true);
</script>"""
_AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_log = logging.getLogger("srkit")


def upload_limit(max_upload_mb: int) -> str:
    """For the head of the page: a file above the limit is refused with a sentence before it is sent.

    The server refuses it as well, to which gradio only shows "Error".
    """
    return _LIMIT.replace("MEGABYTES", str(max_upload_mb))


def theme() -> gr.themes.Base:
    """gradio's default with the fonts of the system, so that none is fetched."""
    sans, mono = gr.themes.Font("system-ui"), gr.themes.Font("ui-monospace")
    return gr.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=[sans, gr.themes.Font("sans-serif")],
        font_mono=[mono, gr.themes.Font("monospace")],
    )


def build(bench: Workbench, *, max_upload_mb: int, waiting: int) -> gr.Blocks:
    """The page. `waiting` jobs may stand in the queue; more are answered that it is full."""
    first = next(iter(bench.models))
    has_n4 = importlib.util.find_spec("SimpleITK") is not None
    with gr.Blocks(title="srkit demo", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        known: Any = gr.State()  # SlideMap of the slide that is shown
        gr.Markdown(_HEAD, elem_id="head")
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                file = gr.File(
                    label=f"Picture, slide or volume, {max_upload_mb} MB at most", height=150, elem_id="file"
                )
                # gradio's own (6.31) leaves an empty file behind at each call.
                file.preprocess = _path_of  # type: ignore[method-assign]
                gr.HTML(elem_id="limit")
                found = gr.Markdown(elem_id="found")
                model = gr.Dropdown(list(bench.models), value=first, label="Model", filterable=False, elem_id="model")
                with gr.Group(visible=False) as slide_part:
                    chart = gr.Image(
                        label="Tissue outlined; a click moves the region",
                        interactive=False,
                        format="png",
                        buttons=[],
                        elem_id="map",
                    )
                    with gr.Row():
                        x, y = _numbers("x", "y")
                    with gr.Row():
                        width, height = _numbers("width", "height")
                    mpp = gr.Number(label="Read at microns per pixel (0: the finest level)", value=0, minimum=0)
                    microns = gr.Markdown(elem_id="microns", container=True)
                with gr.Group(visible=False) as volume_part:
                    axis = gr.Dropdown(_AXES, value=_AXES[0], label="Voxel axis to enlarge", filterable=False)
                    number = gr.Number(label="Volume of the series, from 0", precision=0, minimum=0, visible=False)
                    bias = gr.Checkbox(
                        label="Bias correction first (N4)",
                        info="" if has_n4 else "needs the package SimpleITK: pip install SimpleITK",
                        interactive=has_n4,
                    )
                button = gr.Button("Enlarge", variant="primary", interactive=False, elem_id="go")
            with gr.Column(scale=7, min_width=320):
                status = gr.Markdown(_EMPTY, elem_id="status", container=True)
                download = gr.DownloadButton(
                    "Download the result", visible=False, variant="primary", elem_id="download"
                )
                with gr.Row():
                    sliders = [
                        gr.ImageSlider(
                            visible=False, interactive=False, format="png", max_height=720, min_width=300,
                            buttons=["fullscreen"], elem_id=f"compared-{plane}",
                        )
                        for plane in range(_PLANES)
                    ]  # fmt: skip

        results = [status, download, *sliders]
        numbers = [x, y, width, height]

        def forget() -> list[Any]:
            hidden = gr.update(visible=False)
            return ["", None, hidden, hidden, hidden, gr.update(interactive=False), *_no_result()]

        def look(path: str | None, name: str) -> list[Any]:
            if path is None:
                return [gr.skip()] * 14
            try:
                seen = bench.look(Path(path))
                chart_of = bench.chart(Path(path), seen.slide) if seen.slide else None
            except SrkitError as error:
                # Said on the page: gradio shows no box for an error that follows a change of a file.
                _log.info("answered: %s", error)
                return [*[gr.skip()] * 13, f"**This file cannot be used.** {html.escape(str(error))}"]
            name = name if bench.fits(seen, name) else next((n for n in bench.models if bench.fits(seen, n)), name)
            start = chart_of.start if chart_of else Box(0, 0, 1, 1)
            return [
                seen.text,
                chart_of,
                chart_of.with_box(start) if chart_of else None,
                start.x, start.y, start.width, start.height,
                _microns(chart_of, start) if chart_of else "",
                gr.update(visible=seen.kind == "slide"),
                gr.update(visible=seen.kind == "volume"),
                gr.update(visible=seen.volumes > 1, value=None, label=f"Volume of the series, 0 to {seen.volumes - 1}"),
                name,
                gr.update(interactive=True),
                "Ready.",
            ]  # fmt: skip

        def move(chart_of: SlideMap | None, *sides: float | None) -> list[Any]:
            if chart_of is None or any(side is None for side in sides):
                return [gr.skip(), gr.skip()]
            box = _box(*sides)
            return [chart_of.with_box(box), _microns(chart_of, box)]

        def click(chart_of: SlideMap, w: float, h: float, event: gr.SelectData) -> list[int]:
            column, row = event.index
            box = chart_of.box_around(column, row, int(w), int(h))
            return [box.x, box.y]

        def run(
            path: str | None, name: str, chart_of: SlideMap | None, left: float, top: float, w: float, h: float,
            finest: float | None, along: str, which: float | None, n4: bool,
            progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio finds it by its default
        ) -> list[Any]:  # fmt: skip
            if path is None:
                raise DataError("there is no file; give a picture, a slide or a NIfTI volume first")
            box = _box(left, top, w, h) if chart_of else None
            volumes = VolumeSettings(
                axis=cast(Any, int(along)) if along.isdigit() else None,
                volume=None if which is None else int(which),
                bias_correct=bool(n4),
                preview=False,
            )
            progress(0, desc="Enlarging")
            made = bench.enlarge(
                Path(path),
                name,
                volumes,
                box,
                finest or None,
                lambda done, total: progress((done, total), desc="Enlarging", unit="tiles"),
            )
            return _shown(made)

        file.change(forget, None, [found, known, slide_part, volume_part, number, button, *results], **_AT_ONCE).then(
            _told(look),
            [file, model],
            [found, known, chart, *numbers, microns, slide_part, volume_part, number, model, button, status],
            show_progress_on=[status],
            **_JOB,
        )
        for side in numbers:
            side.change(move, [known, *numbers], [chart, microns], **_AT_ONCE)
        chart.select(click, [known, width, height], [x, y], **_AT_ONCE)
        button.click(lambda: _no_result("Waiting."), None, results, **_AT_ONCE).then(
            _told(run),
            [file, model, known, *numbers, mpp, axis, number, bias],
            results,
            show_progress_on=[status],
            **_JOB,
        )
    page.queue(max_size=waiting, default_concurrency_limit=1, api_open=False)
    return page


def _path_of(payload: Any) -> Any:
    return None if payload is None else payload.path


def _numbers(*labels: str) -> list[gr.Number]:
    return [gr.Number(label=label, precision=0, minimum=0, min_width=100, elem_id=f"box-{label}") for label in labels]


def _told(work: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """`work` whose foreseen errors become one message on the page, and whose bugs also show in the terminal."""

    @functools.wraps(work)
    def told(*values: Any, **named: Any) -> list[Any]:
        try:
            return work(*values, **named)
        except SrkitError as error:
            _log.info("answered: %s", error)
            raise gr.Error(
                html.escape(str(error)), duration=None, title="This cannot be done", print_exception=False
            ) from None
        except Exception as error:  # noqa: BLE001 - a bug: the page goes on, and the terminal has the traceback
            _log.exception("a bug; please report it with these lines")
            text = html.escape(f"{type(error).__name__}: {error}")
            raise gr.Error(
                f"This is a bug of srkit: {text}. The terminal shows where; please report it.",
                duration=None,
                print_exception=False,
            ) from None

    return told


def _no_result(text: str = _EMPTY) -> list[Any]:
    return [text, gr.update(visible=False, value=None), *[gr.update(visible=False, value=None)] * _PLANES]


def _shown(made: Result) -> list[Any]:
    """The parts of the page that show a result."""
    sliders = []
    for number in range(_PLANES):
        if number >= len(made.pairs):
            sliders.append(gr.update(visible=False, value=None))
            continue
        caption, pair = made.pairs[number]
        names = [str(made.out.with_name(f".{number}_{half}.png")) for half in ("before", "after")]
        for name, picture in zip(names, pair):
            write_image(name, picture)
        sliders.append(gr.update(visible=True, value=tuple(names), label=caption))
    size = made.out.stat().st_size / 1e6
    text = "\n".join(f"- {html.escape(line)}" for line in made.text)
    download = gr.update(visible=True, value=str(made.out), label=f"Download {made.out.name} ({size:.2g} MB)")
    return [text, download, *sliders]


def _box(x: float | None, y: float | None, width: float | None, height: float | None) -> Box:
    if x is None or y is None or width is None or height is None:
        raise DataError("the region of the slide is not complete; give x, y, width and height in level-0 pixels")
    return Box(int(x), int(y), int(width), int(height))


def _microns(chart: SlideMap, box: Box) -> str:
    size = f"of {chart.width:,} x {chart.height:,} pixels"
    if chart.mpp is None:
        return f"Region {size}; the slide does not say its microns per pixel."
    left, top, width, height = (f"{n * chart.mpp:,.4g}" for n in (box.x, box.y, box.width, box.height))
    return f"Region {size}: {width} x {height} µm, {left} µm from the left and {top} µm from the top."
