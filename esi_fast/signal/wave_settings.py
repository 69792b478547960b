"""How P, QRS and T are marked: the numbers that were tuned.

On simulated records with exact truth and on the 24 recordings of LUDB whose id is a multiple of
five.
"""

from __future__ import annotations

from typing import NamedTuple


class Wave(NamedTuple):
    """How one kind of wave is marked.

    Attributes:
        width: of the averages whose difference is the slope, s.
        onset, end: where a wave begins and ends: share of the velocity's maximum on that flank.
        noise_at_onset, noise_at_end: the least threshold, in units of the quiet velocity.
        quiet: how long the velocity must stay below, s.
        lead_width, lead_onset, lead_end, lead_noise_at_onset, lead_noise_at_end, lead_quiet: the
            same for a single lead.
        core: a lead's flanks are where its slope first and last reaches this share of its greatest.
        onset_bias, end_bias: a lead's usual limit after the common one, s.
        onset_trust, end_trust: part of a lead's own deviation that counts where its wave is clear.
        doubt: slope of a wave, in units of the lead's noise, whose deviation counts half of that.
        furthest: the greatest deviation of a lead that counts, s.
    """

    width: float
    onset: float
    end: float
    noise_at_onset: float
    noise_at_end: float
    quiet: float
    lead_width: float
    lead_onset: float
    lead_end: float
    lead_noise_at_onset: float
    lead_noise_at_end: float
    lead_quiet: float
    core: float
    onset_bias: float
    end_bias: float
    onset_trust: float
    end_trust: float
    doubt: float
    furthest: float


class Settings(NamedTuple):
    """What was tuned.

    Attributes:
        p, qrs, t: how each wave is marked.
        p_alike: correlation between the beats' P and their median from which there is a P.
        p_alike_irregular: the same where the RR intervals vary by more than a tenth.
        p_of_beat, p_of_other: the same for one beat: of the commonest shape, of another.
        p_shift, t_shift: how far the wave of one beat may lie from its place, s.
        p_before_t_end: how far before the peak of the next P the T wave has ended, s.
    """

    p: Wave
    qrs: Wave
    t: Wave
    p_alike: float
    p_alike_irregular: float
    p_of_beat: float
    p_of_other: float
    p_shift: float
    t_shift: float
    p_before_t_end: float


SETTINGS = Settings(
    p=Wave(
        width=0.01, onset=0.2, end=0.22, noise_at_onset=1.5, noise_at_end=1.5, quiet=0.008,
        lead_width=0.016, lead_onset=0.18, lead_end=0.675, lead_noise_at_onset=2.0,
        lead_noise_at_end=3.0, lead_quiet=0.004, core=0.4, onset_bias=0.001, end_bias=-0.016,
        onset_trust=0.5, end_trust=0.5, doubt=2.0, furthest=0.03,
    ),
    qrs=Wave(
        width=0.006, onset=0.043, end=0.058, noise_at_onset=1.0, noise_at_end=1.5, quiet=0.016,
        lead_width=0.014, lead_onset=0.0425, lead_end=0.06, lead_noise_at_onset=3.0,
        lead_noise_at_end=3.0, lead_quiet=0.012, core=0.15, onset_bias=-0.002, end_bias=0.0,
        onset_trust=0.3, end_trust=0.6, doubt=0.0, furthest=0.03,
    ),
    t=Wave(
        width=0.012, onset=0.2475, end=0.2, noise_at_onset=4.0, noise_at_end=2.0, quiet=0.016,
        lead_width=0.02, lead_onset=0.15, lead_end=0.25, lead_noise_at_onset=3.0,
        lead_noise_at_end=3.0, lead_quiet=0.02, core=0.6, onset_bias=-0.004, end_bias=0.0,
        onset_trust=0.5, end_trust=0.6, doubt=2.0, furthest=0.06,
    ),
    p_alike=0.65, p_alike_irregular=0.73, p_of_beat=0.3, p_of_other=0.8, p_shift=0.03,
    t_shift=0.02, p_before_t_end=0.045,
)  # fmt: skip
