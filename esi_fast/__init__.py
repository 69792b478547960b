"""esi_fast: pretrain and serve ECG-text foundation models, fast.

The story, one file a room, data flowing one way:

    WFDB records -> read_record -> resample -> measure -> quality, rate, intervals
    report statements -> cqa: normalise, retrieve, generate, check -> captions
    signal + caption -> data.shards -> data.loader -> batches
    batches -> models: ConvNeXt V2 encoder, text encoder, caption decoder
    -> training: contrastive + captioning loss -> checkpoint -> export
    -> evaluation -> report, search, view

Signals are ``(batch, leads, samples)`` in millivolts, rates in Hz, leads in the standard order.
Names load when they are first used, so ``import esi_fast`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI as ESI
    from esi_fast.models.esi import ESIConfig as ESIConfig
    from esi_fast.models.factory import create_model as create_model
    from esi_fast.models.factory import list_models as list_models
    from esi_fast.models.original import load_original as load_original
    from esi_fast.plot import plot_ecg as plot_ecg
    from esi_fast.retriever import Document as Document
    from esi_fast.retriever import Retriever as Retriever
    from esi_fast.search import EcgHit as EcgHit
    from esi_fast.search import EcgIndex as EcgIndex
    from esi_fast.search import RecordFilter as RecordFilter
    from esi_fast.signal.inputs import read_ecg as read_ecg
    from esi_fast.signal.measure import measure as measure
    from esi_fast.signal.measure import measure_records as measure_records
    from esi_fast.signal.record_batch import read_records as read_records
    from esi_fast.signal.records import ECGRecord as ECGRecord
    from esi_fast.signal.records import read_record as read_record
    from esi_fast.signal.resample import resample as resample
    from esi_fast.signal.simulate import simulate as simulate

_HOME = {
    "ESI": "models.esi",
    "ESIConfig": "models.esi",
    "create_model": "models.factory",
    "list_models": "models.factory",
    "load_original": "models.original",
    "plot_ecg": "plot",
    "Document": "retriever",
    "Retriever": "retriever",
    "EcgHit": "search",
    "EcgIndex": "search",
    "RecordFilter": "search",
    "read_ecg": "signal.inputs",
    "measure": "signal.measure",
    "measure_records": "signal.measure",
    "ECGRecord": "signal.records",
    "read_record": "signal.records",
    "read_records": "signal.record_batch",
    "resample": "signal.resample",
    "simulate": "signal.simulate",
}
_SUBPACKAGES = ("kernels",)

__all__ = [*_HOME, *_SUBPACKAGES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("esi-fast")
    if name in _SUBPACKAGES:
        return importlib.import_module(f"esi_fast.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"esi_fast.{_HOME[name]}"), name)
    raise AttributeError(f"module 'esi_fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
