"""What was found, as HTML. Every text from a file or a model is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esi_fast.search import EcgHit
    from esi_fast.signal.measurements import Measurements
    from esi_fast.signal.quality import QualityFlags
    from esi_fast.view.describe import Finding, Findings

BANNER = (
    "<b>Research software, not a medical device.</b> Nothing on this page may be used for "
    "diagnosis or treatment. Measurements are automatic; findings and captions are a model's guess."
)
# Name in the table, attribute, unit.
_VALUES = (
    ("Heart rate", "heart_rate", "bpm"),
    ("PR interval", "pr", "ms"),
    ("QRS duration", "qrs", "ms"),
    ("QT interval", "qt", "ms"),
    ("QTc (Bazett)", "qtc_bazett", "ms"),
    ("QTc (Fridericia)", "qtc_fridericia", "ms"),
    ("P axis", "p_axis", "°"),
    ("QRS axis", "qrs_axis", "°"),
    ("T axis", "t_axis", "°"),
    ("Beats", "num_beats", ""),
    ("Premature beats", "num_premature", ""),
    ("Wide beats", "num_wide", ""),
    ("Paced beats", "num_paced", ""),
)
_QUALITY = {
    "flat": "flat or not recorded",
    "missing": "samples missing",
    "clipped": "clipped",
    "out_of_range": "beyond ±20 mV",
    "limb_leads": "limb leads contradict each other",
    "reversal": "electrodes possibly exchanged",
    "mains": "mains hum",
    "wander": "baseline wander",
    "amplitude": "amplitudes",
}
_SHOWN = 10  # findings

CSS = """
.esi-banner {background: #fff4d6; color: #4a3400; border: 1px solid #e0b84c; border-radius: 8px;
  padding: 10px 14px}
.esi-banner b {color: inherit}
.esi-error {background: #fde8e8; color: #7a1212; border: 1px solid #e39a9a; border-radius: 8px;
  padding: 10px 14px}
.esi {margin-bottom: 18px}
.esi table {width: 100%; border-collapse: collapse; font-size: 0.95rem}
.esi table, .esi tbody, .esi tr {border: 0 !important}
.esi td, .esi th {padding: 4px 8px; border: 0 !important; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary) !important}
.esi td.number, .esi th.number {text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums}
.esi .note {color: var(--body-text-color); opacity: 0.75; font-size: 0.85rem; margin: 6px 0 10px}
.esi .tag {background: #e7e0ff; color: #34217a; border-radius: 4px; padding: 1px 6px;
  font-size: 0.8rem; margin-right: 6px}
.esi .bar {background: var(--border-color-primary); border-radius: 3px; height: 8px; width: 90px;
  margin-top: 7px}
.esi .bar div {background: #4a6fd1; border-radius: 3px; height: 8px}
.esi h3 {margin: 0 0 6px}
"""


def error_box(message: str) -> str:
    """What is wrong, in one line."""
    return f'<div class="esi-error" role="alert">{escape(" ".join(message.split()))}</div>'


def note_box(text: str) -> str:
    """A remark above the page."""
    return f'<div class="esi"><p class="note">{escape(text)}</p></div>'


def measurement_table(measurements: Measurements, quality: QualityFlags) -> str:
    """Rate, intervals, axes and beats; what is wrong with the signal.

    A value that could not be measured is a dash, and says why when it is pointed at.
    """
    rows = []
    for title, name, unit in _VALUES:
        value = float(getattr(measurements, name))
        if math.isnan(value):
            reason = escape(measurements.reasons.get(name, ""), quote=True)
            shown = f'<span title="{reason}">&#8211;</span>'
        else:
            shown = f"{value:.0f}{unit}" if unit == "°" else f"{value:.0f} {unit}".rstrip()
        rows.append(f'<tr><td>{title}</td><td class="number">{shown}</td></tr>')
    flags = [
        f"{escape(lead)}: {escape(why)}" for lead, why in measurements.lead_quality.items() if why
    ]
    flags += [f"{_QUALITY[name]}{_named(value)}" for name, value in quality.items()]
    problems = "".join(f"<li>{flag}</li>" for flag in flags)
    signal = f"<ul>{problems}</ul>" if problems else '<p class="note">No flag.</p>'
    return _section("Measurements", f"<table>{''.join(rows)}</table>") + _section(
        "Signal quality", signal
    )


def _named(value: object) -> str:
    """The leads that a flag names."""
    if isinstance(value, str):
        return f": {escape(value)}"
    names = value.get("equations", value) if isinstance(value, dict) else value
    return f": {escape(', '.join(map(str, names)))}" if isinstance(names, dict | list) else ""


def finding_table(findings: Sequence[Finding], method: str) -> str:
    """The likeliest findings with their probabilities, and how those are made."""
    rows = [
        f'<tr><td>{escape(one.title)}</td><td><div class="bar"><div style="width: '
        f'{100 * one.probability:.1f}%"></div></div></td>'
        f'<td class="number">{_percent(one.probability)}</td>'
        f'<td class="number">{one.cosine:.2f}</td></tr>'
        for one in findings[:_SHOWN]
    ]
    head = (
        "<tr><th>Finding</th><th></th>"
        + "".join(f'<th class="number">{name}</th>' for name in ("probability", "cosine"))
        + "</tr>"
    )
    more = f" The likeliest {_SHOWN} of {len(findings)}." if len(findings) > _SHOWN else ""
    return _section(
        "Zero-shot findings",
        f"<table>{head}{''.join(rows)}</table>"
        f'<p class="note">{escape(method)} <b>Uncalibrated</b>: not the probability of a disease. '
        "A finding that the training captions never named has a number all the same."
        f"{more}</p>",
    )


def _percent(probability: float) -> str:
    percent = 100 * probability
    return "&lt; 1 %" if percent < 1 else f"{percent:.0f} %"


def caption_box(found: Findings, said: str) -> str:
    """The generated caption, marked as such, above what the source says of the recording."""
    parts = []
    if found.caption:
        parts.append(
            '<p><span class="tag">generated by the model</span>'
            f'{escape(found.caption)}</p><p class="note">{escape(found.seen)}</p>'
        )
    if said:
        parts.append(f'<p><span class="tag">from the source</span>{escape(said)}</p>')
    return _section("Caption", "".join(parts)) if parts else ""


def neighbour_table(hits: Sequence[EcgHit], total: int) -> str:
    """Records of an index by likeness, with what their source says."""
    rows = []
    for hit in hits:
        age = None if hit.age is None else f"{hit.age:.0f} years"
        who = ", ".join(part for part in (age, hit.sex, hit.split) if part)
        said = hit.caption or "; ".join(hit.statements)
        rows.append(
            f"<tr><td>{escape(hit.key)}</td><td>{escape(who)}</td><td>{escape(said)}</td>"
            f'<td class="number">{hit.score:.3f}</td></tr>'
        )
    head = '<tr><th>Record</th><th></th><th>Its caption</th><th class="number">cosine</th></tr>'
    note = f"By the cosine of the model's embeddings, among {total:,} records of the index."
    return _section(
        "Nearest recordings", f'<table>{head}{"".join(rows)}</table><p class="note">{note}</p>'
    )


def _section(title: str, body: str) -> str:
    return f'<div class="esi"><h3>{title}</h3>{body}</div>'
