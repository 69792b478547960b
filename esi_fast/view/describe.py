"""All that there is to say of a record: measurements, quality, zero-shot findings, a caption.

How a probability is made. A finding's score is the cosine of the record's embedding and the mean of
the finding's prompts. A model that was trained with a softmax over the batch gives a softmax over
the list of findings, with the model's own temperature: how often it would take this sentence if
exactly one of them were the caption (Radford et al. 2021, section 3.1.2). Findings that a record
has together share the sum. A model that was trained with a sigmoid gives each pair its own
probability (Zhai et al. 2023). Neither is calibrated, and neither is the probability of a disease.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from esi_fast.signal.quality import QualityFlags, assess

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI
    from esi_fast.signal.measurements import Measurements
    from esi_fast.signal.records import ECGRecord

# What cardiologists ask first; names of the concept table. "Normal ECG" is one of them: without it
# the softmax of a normal record would have to fall on something abnormal.
FINDINGS = (
    "normal_ecg", "sinus_rhythm", "sinus_bradycardia", "sinus_tachycardia", "sinus_arrhythmia",
    "atrial_fibrillation", "atrial_flutter", "supraventricular_tachycardia",
    "premature_ventricular_complexes", "premature_atrial_complexes", "paced_rhythm",
    "first_degree_av_block", "third_degree_av_block", "left_bundle_branch_block",
    "right_bundle_branch_block", "incomplete_right_bundle_branch_block",
    "left_anterior_fascicular_block", "intraventricular_conduction_delay",
    "wolff_parkinson_white", "left_ventricular_hypertrophy", "right_ventricular_hypertrophy",
    "left_atrial_enlargement", "inferior_myocardial_infarction",
    "anterior_myocardial_infarction", "lateral_myocardial_infarction", "st_elevation",
    "st_depression", "t_wave_inversion", "t_wave_abnormality", "prolonged_qt",
    "low_qrs_voltage", "left_axis_deviation", "right_axis_deviation",
)  # fmt: skip

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding's score: see this module for what the probability is.

    Attributes:
        title: the finding in words.
        probability: 0 to 1, uncalibrated.
        cosine: -1 to 1, of the record and the finding's prompts.
    """

    title: str
    probability: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a record.

    Attributes:
        measurements: of the whole record, at its own rate.
        quality: what is wrong with the signal.
        findings: likeliest first; empty without a model.
        caption: the model's own words; "" without a model.
        embedding: ``(D,)`` float32 of unit length; None without a model.
        seen: what of the record the model was given, in words; "" without a model.
    """

    measurements: Measurements
    quality: QualityFlags
    findings: tuple[Finding, ...] = ()
    caption: str = ""
    embedding: npt.NDArray[np.float32] | None = None
    seen: str = ""


class Describer:
    """A model and the embeddings of the findings' prompts, made once."""

    def __init__(self, model: ESI, findings: Sequence[str] = FINDINGS) -> None:
        """Embed the prompts.

        Args:
            model: in evaluation mode.
            findings: names of the concept table.

        Raises:
            ValueError: the table has no such concept, or an embedding is not finite.
        """
        from esi_fast.cqa.caption import display_name, prompts_for
        from esi_fast.evaluation.embed import embed_prompts

        self.model = model
        names = [display_name(name) for name in findings]
        self._titles = [name[0].upper() + name[1:] for name in names]
        self._prompts_KD = embed_prompts(model, [prompts_for(name) for name in findings])

    @property
    def method(self) -> str:
        """How the probabilities are made, in one sentence."""
        temperature = 1 / self._scale
        if self.model.config.contrast == "sigmoid":
            return (
                "Sigmoid of the scaled and shifted cosine of ECG and prompt, each finding by "
                f"itself, with the model's own scale and bias (temperature {temperature:.3f})."
            )
        return (
            f"Softmax over the cosines of the ECG with the prompts of these {len(self._titles)} "
            f"findings, at the model's own temperature ({temperature:.3f}): how readily it would "
            "take this sentence if exactly one were true. Findings that occur together share the "
            "sum."
        )

    @property
    def _scale(self) -> float:
        from esi_fast.models.esi import MAX_LOGIT_SCALE

        return math.exp(min(float(self.model.logit_scale.detach()), MAX_LOGIT_SCALE))

    def describe(self, record: ECGRecord) -> Findings:
        """Measure the record, score the findings and let the model write its caption.

        Raises:
            ValueError: the record is empty or without a sample, has an impossible rate, or its
                embedding is not finite.
        """
        from esi_fast.evaluation.embed import unit_rows

        ecg_1LT = self.model.preprocess(record)[None]
        if bool(ecg_1LT.isnan().all()):
            raise ValueError("every sample that the model would see is missing")
        embedding_1D = unit_rows(self.model.encode_ecg(ecg_1LT).float().cpu().numpy())
        cosine_K = (embedding_1D @ self._prompts_KD.T)[0].astype(np.float64)
        bias = float(self.model.logit_bias.detach())
        probability_K = probabilities(
            cosine_K, self._scale, bias, is_sigmoid=self.model.config.contrast == "sigmoid"
        )
        rows = sorted(
            zip(self._titles, probability_K.tolist(), cosine_K.tolist(), strict=True),
            key=lambda row: -row[1],
        )
        base = measure_record(record)
        return Findings(
            base.measurements,
            base.quality,
            tuple(Finding(*row) for row in rows),
            self.model.caption(ecg_1LT)[0],
            embedding_1D[0],
            self._seen(record),
        )

    def _seen(self, record: ECGRecord) -> str:
        """What of the record reaches the model."""
        config = self.model.config
        seconds, wanted = record.signal.shape[1] / record.fs, config.num_samples / config.fs
        text = f"The model saw {min(seconds, wanted):g} s at {config.fs:g} Hz"
        if seconds > wanted:
            text += f", the first of {seconds:g} s"
        elif seconds < wanted:
            text += f"; it was trained on {wanted:g} s"
        absent = [
            lead
            for lead, row in zip(record.leads, record.signal, strict=True)
            if not np.isfinite(row).any()
        ]
        if absent:
            text += f". Not recorded, and zero to the model: {', '.join(absent)}"
        return f"{text}."


def measure_record(record: ECGRecord) -> Findings:
    """What can be said without a model.

    Raises:
        ValueError: the record is empty or its rate is not in 50..10,000 Hz.
    """
    from esi_fast.signal.measure import measure

    return Findings(measure(record.signal, record.fs), assess(record.signal, record.fs))


def probabilities(
    cosine_K: FloatArray, scale: float, bias: float, *, is_sigmoid: bool
) -> FloatArray:
    """Uncalibrated probabilities ``(K,)`` of cosines ``(K,)``: see this module."""
    logits_K = scale * cosine_K + bias
    if is_sigmoid:
        return np.asarray(1 / (1 + np.exp(-logits_K)))
    weights_K = np.exp(logits_K - logits_K.max())
    return np.asarray(weights_K / weights_K.sum())
