"""The worst errors of a model on the clinical page: what a reader of a report looks at first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.document import Picture, picture
from esi_fast.evaluation.results import LabelResult
from esi_fast.evaluation.titles import task_title
from esi_fast.leads import STANDARD_LEADS
from esi_fast.plot import plot_ecg

NUM_LABELS = 2


@dataclass(frozen=True, slots=True)
class _Page:
    """What :func:`esi_fast.plot_ecg` takes."""

    signal: npt.NDArray[np.float32]
    fs: float
    leads: tuple[str, ...] = STANDARD_LEADS


def worst_errors(
    result: LabelResult,
    read: Callable[[str], npt.NDArray[np.float32]],
    *,
    fs: float,
    min_positives: int = 1,
) -> tuple[Picture, ...]:
    """Draw the first contender's worst errors: four pages at most.

    For each of the two labels with the most positive records (and fewer positives than negatives)
    they are the negative record that scored highest and the positive one that scored lowest. A
    label that is scored without an error has none.

    Args:
        result: with scores of at least one contender.
        read: key to signal (12, T) float32 mV, missing samples NaN, standard leads.
        fs: of the signals, Hz.
        min_positives: labels with fewer positive records are passed over.
    """
    contender, scores = next(iter(result.scores.items()))
    positives = result.labels.sum(axis=0)
    usable = [
        k
        for k in np.argsort(-positives, kind="stable").tolist()
        if min_positives <= positives[k] <= len(result.labels) - positives[k]
        and not np.isnan(scores[:, k]).any()
    ]
    pages: list[Picture] = []
    for k in usable[:NUM_LABELS]:
        column, positive = scores[:, k], result.labels[:, k]
        false = int(np.where(positive, -np.inf, column).argmax())
        missed = int(np.where(positive, column, np.inf).argmin())
        if column[false] < column[missed]:
            continue
        for row, is_it in ((false, "not labelled"), (missed, "labelled")):
            place = int((column > column[row]).sum()) + 1
            own = [t for t, has in zip(result.titles, result.labels[row], strict=True) if has]
            key = str(result.keys[row])
            text = (
                f"{result.titles[k]}: scored {column[row]:.3g}, place {place} of {len(column)}, "
                f"and {is_it} so. Its labels: {', '.join(own) or 'none'}."
            )
            page = plot_ecg(_Page(read(key), fs), title=f"Record {key}", caption=text)
            alt = f"{task_title(result.task)}, {contender}, record {key}. {text}"
            pages.append(picture(page, f"{result.task}-error-{len(pages) + 1}", alt))
    return tuple(pages)
