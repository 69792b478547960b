"""Logistic regressions of many labels on the same features, fitted at once.

Every label of a probe has the same features, so that one step of all of them is two matrix
products. L-BFGS (Nocedal & Wright 2006, algorithm 7.4) runs on the principal axes of the features,
where the Hessian is nearly diagonal and its diagonal starts the recursion; a rotation changes
neither the penalty nor the solution. Each label has its own step length and stops by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

FloatArray = npt.NDArray[np.float64]

TOLERANCE = 1e-4
MAX_STEPS = 500
_MEMORY = 10
_MAX_TRIALS = 20
_REFRESH = 5  # steps between looks at the curvature, which falls as a label is told apart
# A step is taken if the slope at its end is no steeper uphill than this share of the slope at its
# start downhill, and the loss has not risen by more than float32 rounds it (Hager & Zhang 2005,
# the approximate Wolfe conditions): losses alone cannot tell two points near the minimum apart.
_SLOPE_SHARE = 0.9
_ROUNDING = 1e-6
_ROWS = 8192  # rotated at a time


@dataclass(frozen=True)
class LogisticFit:
    """Regressions of K labels on D features, as scikit-learn's ``coef_`` and ``intercept_``.

    Attributes:
        coef: (D, K), of the features as they were given: a scaling is already in it.
        intercept: (K,).
        converged: (K,) whether the gradient came below the tolerance.
        num_steps: (K,) steps taken.
    """

    coef: FloatArray
    intercept: FloatArray
    converged: npt.NDArray[np.bool_]
    num_steps: npt.NDArray[np.int64]

    def decision(self, x: npt.NDArray[np.floating]) -> FloatArray:
        """Logits (n, K) of features (n, D)."""
        # By parts: the features are widened to float64 a part at a time.
        parts = [x[start : start + _ROWS] @ self.coef for start in range(0, len(x), _ROWS)]
        return np.concatenate(parts) + self.intercept


@dataclass(frozen=True)
class Features:
    """Features on their principal axes: what regressions of any labels and penalties share.

    Attributes:
        x_NE: on the axes, and a last column of ones.
        variance_E: float64, of each axis; 1 for the ones.
        axes_DE: float64, back to the features as they were given.
        mean_D: float64.
    """

    x_NE: Tensor
    variance_E: Tensor
    axes_DE: FloatArray
    mean_D: FloatArray

    @classmethod
    def of(cls, x: npt.NDArray[np.floating], *, scale: bool) -> Features:
        """Prepare features (n, D), float32 or float64, which is the dtype of all products.

        Args:
            x: the features.
            scale: divide each by its standard deviation first, as ``StandardScaler`` does; a
                constant one is left as it is.

        Raises:
            ValueError: not two-dimensional, no record, or a feature is not finite.
        """
        if x.ndim != 2 or not len(x):
            raise ValueError(f"features must be (n, D) with n >= 1, not {x.shape}")
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise ValueError(f"feature {column} of record {row} is {x[row, column]}")
        num_records, num_features = x.shape
        parts = [x[start : start + _ROWS] for start in range(0, num_records, _ROWS)]
        mean = x.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((num_features, num_features))
        for part in parts:
            centered = (part - mean).astype(x.dtype)
            covariance += centered.T @ centered
        covariance /= num_records
        sd = np.sqrt(np.diag(covariance))
        # What rounding leaves of a constant feature is no deviation of it.
        constant = sd <= 10 * np.finfo(x.dtype).eps * np.abs(mean)
        unit = np.where(constant | (not scale), 1.0, sd)
        variance, vectors = np.linalg.eigh(covariance / np.outer(unit, unit))
        axes = vectors / unit[:, None]
        rotated = np.empty((num_records, num_features + 1), x.dtype)
        rotated[:, -1] = 1
        for start, part in zip(range(0, num_records, _ROWS), parts, strict=True):
            centered = (part - mean).astype(x.dtype)
            rotated[start : start + len(part), :-1] = centered @ axes.astype(x.dtype)
        return cls(
            torch.from_numpy(rotated),
            torch.from_numpy(np.append(np.maximum(variance, 0.0), 1.0)),
            axes,
            mean,
        )

    def fit(
        self,
        labels: npt.NDArray[np.bool_],
        cs: Sequence[float],
        *,
        balanced: bool = False,
        tolerance: float = TOLERANCE,
        max_steps: int = MAX_STEPS,
        progress: Callable[[], object] = lambda: None,
    ) -> dict[float, LogisticFit]:
        """Fit one regression a label, for each strength of the penalty.

        Equivalent to: ``LogisticRegression(C=c, class_weight="balanced" if balanced else None)
        .fit(x, labels[:, k])`` for each c and k, after ``StandardScaler`` if the features were
        scaled.

        Args:
            labels: (n, K); each with a positive and a negative record.
            cs: inverse strengths of the L2 penalty, which the intercept does not bear. They are
                fitted from the strongest penalty to the weakest, each starting where the last one
                ended.
            balanced: weigh positive and negative records of a label alike.
            tolerance: of the gradient g of the mean loss, as the root of g' g / H summed over the
                axes, H the diagonal of the Hessian: half its square is about what the loss is
                above its minimum, whatever the units of the features.
            max_steps: of each fit.
            progress: called after each fit.

        Raises:
            ValueError: shapes do not fit, a label has one value only, or a c is not positive.
        """
        if labels.ndim != 2 or len(labels) != len(self.x_NE):
            raise ValueError(f"labels {labels.shape} do not fit {len(self.x_NE)} records")
        if not len(cs) or min(cs) <= 0:
            raise ValueError(f"C must be positive, not {list(cs)}")
        positives = labels.sum(axis=0)
        constant = np.flatnonzero((positives == 0) | (positives == len(labels)))
        if constant.size:
            raise ValueError(f"label number {constant[0]} has only one value")
        target = _Target.of(labels, balanced, self.x_NE.dtype)
        weights_EK = self.x_NE.new_zeros((self.x_NE.shape[1], labels.shape[1]))
        weights_EK[-1] = target.base_logit_K  # where a regression without features ends
        fits = {}
        for c in sorted(cs):
            descent = _Descent(self, target, weights_EK, c)
            weights_EK, converged, num_steps = descent.run(tolerance, max_steps)
            weights = weights_EK.double().numpy()
            coef = self.axes_DE @ weights[:-1]
            fits[c] = LogisticFit(coef, weights[-1] - self.mean_D @ coef, converged, num_steps)
            progress()
        return fits


@dataclass(frozen=True)
class _Target:
    """Labels as signs, +1 or -1, and what a positive and a negative record of each weigh."""

    sign_NK: Tensor
    weight_2K: Tensor  # negative, positive
    base_logit_K: Tensor

    @classmethod
    def of(cls, labels: npt.NDArray[np.bool_], balanced: bool, dtype: torch.dtype) -> _Target:
        num_positive = labels.sum(axis=0, dtype=np.float64)
        counts = np.stack([len(labels) - num_positive, num_positive])
        weights = len(labels) / (2 * counts) if balanced else np.ones_like(counts)
        shares = weights * counts
        return cls(
            torch.from_numpy(np.where(labels, 1.0, -1.0)).to(dtype),
            torch.from_numpy(weights).to(dtype),
            torch.from_numpy(np.log(shares[1] / shares[0])).to(dtype),
        )

    def some(self, labels: Tensor) -> _Target:
        return _Target(
            self.sign_NK[:, labels], self.weight_2K[:, labels], self.base_logit_K[labels]
        )

    def pull(self, logits_NK: Tensor) -> Tensor:
        """Minus the derivative of each record's loss by its logit, signed and weighed."""
        # From the sign, not from sigmoid - label: a small remainder keeps its digits.
        pull = torch.sigmoid(logits_NK * -self.sign_NK).mul_(self.sign_NK)
        return self._weigh(pull)

    def losses(self, logits_NK: Tensor) -> Tensor:
        """(K,) mean weighed loss in nats."""
        losses = self._weigh(F.softplus(logits_NK * -self.sign_NK))
        return losses.sum(0).double() / len(losses)

    def _weigh(self, x_NK: Tensor) -> Tensor:
        if bool((self.weight_2K == 1).all()):
            return x_NK
        return x_NK.mul_(torch.where(self.sign_NK > 0, self.weight_2K[1], self.weight_2K[0]))


class _Descent:
    """L-BFGS of the labels that are still on their way, at one strength of the penalty."""

    def __init__(self, features: Features, target: _Target, start_EK: Tensor, c: float) -> None:
        self._x = features.x_NE
        self._variance = features.variance_E
        self._target = target
        self._result = start_EK.clone()
        self._decay = self._x.new_full((self._x.shape[1], 1), 1.0 / (c * len(self._x)))
        self._decay[-1] = 0.0
        self._active = torch.arange(start_EK.shape[1])
        self._weights = start_EK
        self._logits = self._x @ start_EK
        self._pull = target.pull(self._logits)
        self._loss = self._losses(self._logits, start_EK)
        self._gradient = self._gradients()
        self._inverse = self._inverse_diagonal()
        self._moves: list[tuple[Tensor, Tensor, Tensor]] = []

    def run(
        self, tolerance: float, max_steps: int
    ) -> tuple[Tensor, npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """The weights (E, K) of all labels, whether each converged, and the steps of each."""
        num_labels = self._result.shape[1]
        converged = np.zeros(num_labels, np.bool_)
        num_steps = np.zeros(num_labels, np.int64)
        for step in range(max_steps):
            if step and step % _REFRESH == 0:
                self._inverse = self._inverse_diagonal()
            done = self._error() <= tolerance
            converged[self._active[done].numpy()] = True
            self._leave(done)
            if not len(self._active):
                break
            num_steps[self._active.numpy()] += 1
            stuck = ~self._step()  # as low as this dtype goes
            self._leave(stuck)
            if not len(self._active):
                break
        self._leave(torch.ones(len(self._active), dtype=torch.bool))
        return self._result, converged, num_steps

    def _error(self) -> Tensor:
        return (self._gradient.square() * self._inverse).sum(0).sqrt()

    def _leave(self, left: Tensor) -> None:
        """Keep the weights of some labels, and go on without these."""
        if not left.any():
            return
        self._result[:, self._active[left]] = self._weights[:, left]
        kept = ~left
        self._active = self._active[kept]
        self._target = self._target.some(kept)
        for name in ("_weights", "_logits", "_pull", "_gradient", "_inverse"):
            setattr(self, name, getattr(self, name)[:, kept])
        self._loss = self._loss[kept]
        self._moves = [(s[:, kept], y[:, kept], rho[kept]) for s, y, rho in self._moves]

    def _losses(self, logits_NK: Tensor, weights_EK: Tensor) -> Tensor:
        penalty = (0.5 * self._decay * weights_EK.square()).sum(0)
        return self._target.losses(logits_NK) + penalty.double()

    def _gradients(self) -> Tensor:
        return self._decay * self._weights - (self._x.T @ self._pull).div_(len(self._x))

    def _inverse_diagonal(self) -> Tensor:
        """One over the Hessian's diagonal, were its curvature the same at all records."""
        probability = torch.sigmoid(self._logits)
        curvature = self._target._weigh(probability.mul_(1 - probability)).mean(0)
        diagonal = self._variance[:, None] * curvature.double() + self._decay.double()
        return (1.0 / diagonal.clamp_min(torch.finfo(torch.float32).tiny)).to(self._x.dtype)

    def _direction(self) -> Tensor:
        q = self._gradient.clone()
        scales = []
        for s, y, rho in reversed(self._moves):
            scales.append(rho * (s * q).sum(0))
            q -= scales[-1] * y
        q *= self._inverse
        for (s, y, rho), scale in zip(self._moves, reversed(scales), strict=True):
            q += s * (scale - rho * (y * q).sum(0))
        return -q

    def _step(self) -> Tensor:
        """One step of every label; (K,) whether one was found."""
        direction = self._direction()
        along = self._x @ direction
        slope = (direction * self._gradient).sum(0)
        length = torch.ones_like(slope)
        found = torch.zeros_like(slope, dtype=torch.bool)
        highest = self._loss + _ROUNDING * self._loss.abs()
        for _ in range(_MAX_TRIALS):
            logits = torch.addcmul(self._logits, length, along)
            weights = self._weights + length * direction
            loss = self._losses(logits, weights)
            pull = self._target.pull(logits)
            slope_there = (self._decay * weights * direction).sum(0)
            slope_there -= (pull * along).sum(0) / len(pull)
            found = (loss <= highest) & (slope_there <= -_SLOPE_SHARE * slope)
            if found.all():
                break
            # The slope of a convex loss rises: where the line between its ends meets zero.
            shorter = (slope / (slope - slope_there)).clamp(0.1, 0.7)
            length = torch.where(found, length, length * shorter)
        before = self._gradient
        moved = torch.where(found, length, 0.0) * direction
        self._weights = self._weights + moved
        self._logits, self._pull, self._loss = logits, pull, loss
        self._gradient = self._gradients()
        change = self._gradient - before
        product = (moved * change).sum(0)
        # A pair without curvature is left out of a label's recursion.
        rho = torch.where(product > 0, 1.0 / product, 0.0)
        self._moves = [*self._moves[-(_MEMORY - 1) :], (moved, change, rho)]
        return found
