"""A report as plain data, written as Markdown with picture files and as one self-contained HTML."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FIGURES = "figures"  # the folder of the pictures, beside the report


@dataclass(frozen=True, slots=True)
class Table:
    """A table of finished cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG: ``name`` is its file name without suffix, ``alt`` its text."""

    name: str
    alt: str
    png: bytes

    @property
    def base64(self) -> str:
        """The bytes as they stand in a data URI."""
        return base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, then paragraphs, tables, pictures and listings in this order."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Picture, ...] = ()
    listings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report; ``notices`` stand highlighted above the first section."""

    title: str
    sections: tuple[Section, ...]
    notices: tuple[str, ...] = ()


def picture(figure: Figure, name: str, alt: str) -> Picture:
    """Render a matplotlib figure at its own size and resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(name, alt, buffer.getvalue())


def write_document(document: Document, out: Path) -> None:
    """Write ``out/report.md`` with ``out/figures/*.png``, and ``out/report.html`` on its own.

    The HTML holds its style and pictures and refers to nothing outside itself.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: text.replace("|", r"\|").replace("\n", " ")
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    for section in document.sections:
        for figure in section.figures:
            (out / FIGURES / f"{figure.name}.png").write_bytes(figure.png)
    for name in ("report.md", "report.html"):
        text = environment.get_template(f"{name}.jinja").render(document=document)
        (out / name).write_text(text, encoding="utf-8")
