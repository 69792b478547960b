"""Tasks and measures in human words, for reports and terminals."""

from __future__ import annotations

TASK_TITLES = {
    "zeroshot": "Zero-shot",
    "probe": "Linear probe",
    "finetune": "Fine-tuning",
    "identify": "Subject identification",
    "verify": "Subject verification",
    "retrieval": "Retrieval",
    "caption": "Captions",
}
TASK_TEXTS = {
    "zeroshot": "A record's score for a finding is the cosine of its embedding and the finding's "
    "text prompts. Nothing was fitted to these labels.",
    "probe": "A logistic regression on frozen embeddings, fitted on the training patients; its "
    "settings were chosen by log-loss on the validation patients.",
    "finetune": "The encoder itself was trained on the training patients' labels, and stopped by "
    "the validation patients.",
    "identify": "Each record is asked whose it is, among other records of the same and of other "
    "patients.",
    "verify": "Two records are asked whether they are one patient's, by their similarity.",
    "retrieval": "Each text looks for its ECG among all of the split, and each ECG for its text.",
    "caption": "Captions that the model generated, against the references.",
}
MEASURE_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f_max": "F-max",
    "sensitivity": "sensitivity at 90 % specificity",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "eer": "equal error rate",
    "tar": "TAR at FAR 1e-3",
    "false_accepts": "pairs of two patients accepted (FAR)",
    "true_accepts": "pairs of one patient accepted (TAR)",
}


def task_title(name: str) -> str:
    """``probe-10`` is "Linear probe, 10 % of the training patients"."""
    base, _, share = name.partition("-")
    title = TASK_TITLES.get(base, base)
    return f"{title}, {share} % of the training patients" if share else title


def task_text(name: str) -> str:
    """How a task's scores come about; empty for one that has no text."""
    return TASK_TEXTS.get(name.partition("-")[0], "")


def measure_title(name: str) -> str:
    """A measure in words; one without words of its own is named as it is."""
    return MEASURE_TITLES.get(name, name)
