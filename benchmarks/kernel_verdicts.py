"""The rows of the kernels' table, and what is wanted of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from benchmarks.kernel_encoder import Encoder


class Row(NamedTuple):
    """One measured call; `us` of the GPU, `host_us` of the host that launches it."""

    model: str
    stage: int
    batch: int
    time: int
    channels: int
    dtype: str
    operator: str
    work: str
    who: str
    us: float
    host_us: float
    megabytes: float
    share_of_copy: float


class Verdict(NamedTuple):
    """A wanted figure beside the measured one."""

    what: str
    value: float
    bar: float
    aim: float

    @property
    def word(self) -> str:
        """ "MISSED", "met", "aim met", or "not measured"."""
        if math.isnan(self.value):
            return "not measured"
        sign = -1 if self.aim < self.bar else 1
        if sign * self.value < sign * self.bar:
            return "MISSED"
        return "met" if sign * self.value < sign * self.aim else "aim met"


def verdicts(rows: list[Row], encoders: list[Encoder]) -> list[Verdict]:
    """What is wanted of base, bf16, B=64: the worst of the stages counts."""
    wanted = [row for row in rows if (row.model, row.batch, row.dtype) == ("base", 64, "bf16")]

    def us(stage: int, operator: str, work: str, who: Callable[[str], bool]) -> float:
        found = [
            row.us
            for row in wanted
            if (row.stage, row.operator, row.work) == (stage, operator, work) and who(row.who)
        ]
        return min((time for time in found if not math.isnan(time)), default=math.nan)

    def worst(values: list[float], what: str) -> tuple[str, float]:
        known = [value for value in values if not math.isnan(value)]
        missing = "" if len(known) in (0, 4) else f", {len(known)} of 4 stages"
        return what + missing, min(known, default=math.nan)

    def share(operator: str, work: Literal["forward", "backward"]) -> tuple[str, float]:
        found = [
            row.share_of_copy
            for row in wanted
            if (row.operator, row.work, row.who) == (operator, work, "ours")
        ]
        return worst(found, f"{operator} {work}, share of copy")

    def speedup(operator: str, who: Callable[[str], bool], what: str) -> tuple[str, float]:
        ratios = [
            us(stage, operator, "step", who) / us(stage, operator, "step", "ours".__eq__)
            for stage in range(1, 5)
        ]
        return worst(ratios, f"{operator} step vs {what}")

    def of_encoder(who: str, attribute: str) -> float:
        found = {
            e.who: getattr(e, attribute) for e in encoders if (e.model, e.batch) == ("base", 64)
        }
        return found.get(who, math.nan) / found.get("ours", math.nan)

    names = ("depthwise_conv1d", "depthwise_conv1d_layer_norm", "gelu_grn")
    torchs = ("eager", "compile")
    return [
        *(Verdict(*share(name, "forward"), 0.75, 0.9) for name in names),
        *(Verdict(*share(name, "backward"), 0.65, 0.85) for name in names),
        Verdict(*speedup("gelu_grn", "eager".__eq__, "eager"), 3, 5),
        Verdict(
            *speedup("gelu_grn", "compile max-autotune".__eq__, "compile max-autotune"), 1.2, 1.6
        ),
        Verdict(
            *speedup("depthwise_conv1d", lambda who: who.startswith(torchs), "the best of torch's"),
            1.5, 3,
        ),
        Verdict("encoder step vs eager", of_encoder("eager", "graph_ms"), 2, 3),
        Verdict("encoder step vs compile", of_encoder("compile", "graph_ms"), 1.15, 1.5),
        Verdict("peak memory of eager's step / ours", of_encoder("eager", "peak_gib"), 2, 3),
    ]  # fmt: skip
