"""The page itself: gradio's components, and a server that only this machine can reach."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from esi_fast.plot import plot_ecg
from esi_fast.signal.inputs import FILE_SUFFIXES
from esi_fast.view import markup
from esi_fast.view.describe import Describer, Findings, measure_record
from esi_fast.view.folder import Chosen, Folder, read_uploaded

if TYPE_CHECKING:
    from PIL.Image import Image

    from esi_fast.search import EcgIndex

HOST = "127.0.0.1"
MOST_LISTED = 500  # names in the list at once; the search box finds the others
_DPI = 130
# What a file can do to whoever reads it. Anything else is a defect, and its traceback is logged.
_REFUSALS = (ValueError, OSError, ModuleNotFoundError)
# What the page shows of a record: message, page, measurements, findings, caption, neighbours.
Shown = tuple[str, "Image | None", str, str, str, str]
NUM_NEIGHBOURS = 5


def show(
    chosen: Callable[[], Chosen], describer: Describer | None, index: EcgIndex | None = None
) -> Shown:
    """Message, 12-lead page, measurements, findings, caption and neighbours of a record.

    Args:
        chosen: reads it. Where it cannot be read or described, there is the message alone.
        describer: None: page and measurements only.
        index: of the describer's model; None: no neighbours.
    """
    try:
        what = chosen()
        record = what.record
        found = measure_record(record) if describer is None else describer.describe(record)
        page = _picture(what, found.measurements)
        neighbours = "" if index is None else _neighbours(what, found, index)
    except _REFUSALS as error:
        return markup.error_box(str(error)), None, "", "", "", ""
    status = "" if record.status == "ok" else f"{what.name}: {record.status}"
    findings = markup.finding_table(found.findings, describer.method) if describer else ""
    return (
        markup.note_box(status) if status else "",
        page,
        markup.measurement_table(found.measurements, found.quality),
        findings,
        markup.caption_box(found, what.said),
        neighbours,
    )


def _neighbours(what: Chosen, found: Findings, index: EcgIndex) -> str:
    """The nearest records of the index, but the one that is shown."""
    assert found.embedding is not None
    hits = index.query_vector(found.embedding, NUM_NEIGHBOURS + 1)
    others = [hit for hit in hits if hit.key != what.name]
    return markup.neighbour_table(others[:NUM_NEIGHBOURS], len(index))


def _picture(what: Chosen, measurements: Any) -> Image:
    from PIL import Image

    figure = plot_ecg(what.record, title=what.name, measurements=measurements)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    return Image.open(png)


def build_page(
    folder: Folder, describer: Describer | None = None, index: EcgIndex | None = None
) -> Any:
    """A ``gradio.Blocks`` over a folder; without a model it shows page and measurements only."""
    import gradio as gr

    first = folder.find("", MOST_LISTED)

    def list_names(text: str) -> Any:
        names = folder.find(text or "", MOST_LISTED)
        return gr.Dropdown(choices=names, label=_list_label(len(names), len(folder.names)))

    def show_named(name: str | None) -> Shown:
        return show(lambda: folder.read(name or ""), describer, index)

    def show_files(paths: Sequence[str] | None, fs: str, unit: str) -> Shown:
        if not paths:  # they were taken away
            return "", None, "", "", "", ""
        known = None if unit == _UNKNOWN else unit
        return show(lambda: read_uploaded(paths, _rate(fs), known), describer, index)

    # No telemetry, no history in the browser: recordings are patients' data.
    with gr.Blocks(title="esi_fast: ECG viewer", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(f'<div class="esi-banner">{markup.BANNER}</div>')
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                find = gr.Textbox(label="Find", placeholder="part of a name", elem_id="find")
                names = gr.Dropdown(
                    choices=first,
                    value=first[0],
                    label=_list_label(len(first), len(folder.names)),
                    elem_id="names",
                )
                with gr.Accordion("Upload a recording", open=True):
                    gr.Markdown("WFDB (`.hea` with its `.dat`), csv, npy, EDF or DICOM")
                    files = gr.File(
                        file_count="multiple",
                        file_types=[".hea", ".dat", ".mat", *FILE_SUFFIXES],
                        show_label=False,
                        height=150,
                        elem_id="files",
                    )
                    fs = gr.Textbox(
                        label="Rate in Hz",
                        placeholder="where the file does not say it",
                        elem_id="fs",
                    )
                    unit = gr.Radio([_UNKNOWN, "mV", "uV"], value=_UNKNOWN, label="Unit")
                    again = gr.Button("Show the upload", elem_id="again")
            with gr.Column(scale=4):
                message = gr.HTML(elem_id="message")
                picture = gr.Image(
                    format="png",
                    type="pil",
                    show_label=False,
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="page",
                )
                caption = gr.HTML(elem_id="caption")
                with gr.Row():
                    findings = gr.HTML(elem_id="findings")
                    measurements = gr.HTML(elem_id="measurements")
                neighbours = gr.HTML(elem_id="neighbours")
        shown = [message, picture, measurements, findings, caption, neighbours]
        find.change(list_names, find, names, show_progress="hidden", api_visibility="private")
        # One at a time in the order of the clicks, none left out ("once", gradio's own, leaves out
        # a choice made while the one before is drawn): the last choice is what stays in sight.
        in_order: dict[str, Any] = {
            "trigger_mode": "multiple",
            "concurrency_id": "show",
            "concurrency_limit": 1,
        }
        for event in (page.load, names.input):
            event(show_named, names, shown, api_visibility="private", **in_order)
        for event in (files.upload, files.clear, again.click):
            event(show_files, [files, fs, unit], shown, api_visibility="private", **in_order)
    return page


_UNKNOWN = "as the file says"


def _rate(text: str) -> float | None:
    """A rate as it was typed, Hz; None where nothing was."""
    if not text.strip():
        return None
    try:
        return float(text.strip().lower().removesuffix("hz"))
    except ValueError:
        raise ValueError(f"the rate {text!r} is not a number: give it in Hz, like 500") from None


def _list_label(num_listed: int, total: int) -> str:
    return (
        f"Recording ({num_listed:,} of {total:,})"
        if num_listed < total
        else f"Recording ({total:,})"
    )


def bind(port: int) -> socket.socket:
    """A socket on the loopback interface, which keeps callers waiting until the page is served.

    Port 0 takes any that is free.

    Raises:
        OSError: the port is taken, or needs privileges.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise OSError(
            f"port {port} of {HOST} cannot be used ({error.strerror}): give --port"
        ) from None
    return bound


def serve(page: Any, bound: socket.socket) -> None:
    """Serve the page on a bound socket until it is interrupted.

    Only names of this machine are answered to, so that no other site that the browser shows can
    reach the page under a name of its own (DNS rebinding).
    """
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    system = ["system-ui", "sans-serif"]
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=HOST,
        server_port=bound.getsockname()[1],
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size="64mb",
        # gradio's own fonts come from a server elsewhere.
        theme=gr.themes.Default(font=system, font_mono=["ui-monospace", "monospace"]),
        css=markup.CSS,
    )
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[bound])
