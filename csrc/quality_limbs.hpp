// Whether the limb leads obey Einthoven's law and Goldberger's definitions, and if not, why not.
//
// The equations hold for any linear filter, thus for block means.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "simd.hpp"

namespace esi {

inline constexpr int kNumLimbs = 6;
inline constexpr int kNumEquations = 4;
// I + III = II, aVR = -(I + II) / 2, aVL = (I - III) / 2, aVF = (II + III) / 2: what each leaves.
inline constexpr float kResiduals[kNumEquations][kNumLimbs] = {
    {1.0f, -1.0f, 1.0f, 0.0f, 0.0f, 0.0f},
    {0.5f, 0.5f, 0.0f, 1.0f, 0.0f, 0.0f},
    {-0.5f, 0.0f, 0.5f, 0.0f, 1.0f, 0.0f},
    {0.0f, -0.5f, -0.5f, 0.0f, 0.0f, 1.0f},
};
// Residual RMS over that of the limb leads: at most 0.021 on 503 recordings in ADC units, 0.155 and
// more (of a record's worst) on LUDB's 120 with a gain of its own for each lead. The floor spares
// small signals in steps of 5 uV.
inline constexpr double kEquationTolerance = 0.05;
inline constexpr double kEquationFloor = 0.005;  // mV

struct LimbFindings {
  std::vector<std::pair<int, double>> equations;  // which fail: residual RMS over the limb leads'
  std::optional<std::pair<int, int>> exchanged;   // the leads whose exchange explains that
  std::optional<int> lead;                        // or the one without which all hold
  std::optional<double> gain;                     // and its gain, where that is all
};

namespace detail {

using LimbMatrix = double[kNumEquations][kNumLimbs];

// Adds the squares of four residuals and of the six leads to `sums`, of a float or of a vector.
template <typename Value>
inline __attribute__((always_inline)) void add_powers(const Value (&x)[kNumLimbs],
                                                      Value (&sums)[kNumEquations + 1]) {
  const Value half_i = x[0] * 0.5f;
  const Value half_ii = x[1] * 0.5f;
  const Value half_iii = x[2] * 0.5f;
  const Value residuals[kNumEquations] = {
      x[0] - x[1] + x[2],
      half_i + half_ii + x[3],
      half_iii - half_i + x[4],
      x[5] - half_ii - half_iii,
  };
  for (int i = 0; i < kNumEquations; ++i) sums[i] += residuals[i] * residuals[i];
  for (const Value& lead : x) sums[kNumEquations] += lead * lead;
}

template <int VECTOR>
inline __attribute__((always_inline)) void limb_means(const float* const (&limbs)[kNumLimbs],
                                                      std::int64_t count,
                                                      float (&means)[kNumLimbs]) {
  using Vector = typename VectorOf<VECTOR>::Type;
  using Load = typename VectorOf<VECTOR>::Load;
  Vector sums[kNumLimbs] = {};
  std::int64_t t = 0;
  for (; t + VECTOR <= count; t += VECTOR) {
    for (int i = 0; i < kNumLimbs; ++i) sums[i] += *reinterpret_cast<const Load*>(limbs[i] + t);
  }
  for (int i = 0; i < kNumLimbs; ++i) {
    double sum = 0.0;
    for (int lane = 0; lane < VECTOR; ++lane) sum += sums[i][lane];
    for (std::int64_t k = t; k < count; ++k) sum += limbs[i][k];
    means[i] = static_cast<float>(sum / static_cast<double>(count));
  }
}

// The sums of the squares of each residual, and of all six leads: each less its mean.
template <int VECTOR>
inline __attribute__((always_inline)) void residual_powers(const float* const (&limbs)[kNumLimbs],
                                                           const float (&means)[kNumLimbs],
                                                           std::int64_t count,
                                                           double (&powers)[kNumEquations + 1]) {
  using Vector = typename VectorOf<VECTOR>::Type;
  using Load = typename VectorOf<VECTOR>::Load;
  Vector sums[kNumEquations + 1] = {};
  std::int64_t t = 0;
  for (; t + VECTOR <= count; t += VECTOR) {
    Vector x[kNumLimbs];
    for (int i = 0; i < kNumLimbs; ++i) {
      x[i] = *reinterpret_cast<const Load*>(limbs[i] + t) - means[i];
    }
    add_powers(x, sums);
  }
  float rest[kNumEquations + 1] = {};
  for (; t < count; ++t) {
    float x[kNumLimbs];
    for (int i = 0; i < kNumLimbs; ++i) x[i] = limbs[i][t] - means[i];
    add_powers(x, rest);
  }
  for (int i = 0; i <= kNumEquations; ++i) {
    powers[i] = rest[i];
    for (int lane = 0; lane < VECTOR; ++lane) powers[i] += sums[i][lane];
  }
}

// Explains failing equations by the leads' mean products.
class LimbExplanation {
 public:
  LimbExplanation(const float* const (&limbs)[kNumLimbs], const float (&means)[kNumLimbs],
                  std::int64_t count, double tolerance)
      : tolerance_(tolerance) {
    for (int i = 0; i < kNumLimbs; ++i) {
      for (int j = 0; j <= i; ++j) {
        double sum = 0.0;
        for (std::int64_t t = 0; t < count; ++t) {
          sum += static_cast<double>(limbs[i][t] - means[i]) * (limbs[j][t] - means[j]);
        }
        gram_[i][j] = gram_[j][i] = sum / static_cast<double>(count);
      }
    }
  }

  // Fills in the exchange or the lead, if just one explains all.
  void find(LimbFindings& findings) const {
    int num_found = 0;
    LimbFindings found;
    for (int a = 0; a < kNumLimbs; ++a) {
      for (int b = a + 1; b < kNumLimbs; ++b) {
        LimbMatrix rows;
        copy_residuals(rows);
        for (auto& row : rows) std::swap(row[a], row[b]);
        if (!all_hold(rows)) continue;
        found.exchanged = std::make_pair(a, b);
        ++num_found;
      }
    }
    for (int lead = 0; lead < kNumLimbs; ++lead) {
      LimbMatrix others;
      copy_residuals(others);
      double column[kNumEquations];
      double length = 0.0;
      for (int i = 0; i < kNumEquations; ++i) {
        column[i] = std::exchange(others[i][lead], 0.0);
        length += column[i] * column[i];
      }
      // Whatever the lead should hold, it changes the residuals along its own column only.
      double along[kNumLimbs] = {};
      double product = 0.0;
      for (int j = 0; j < kNumLimbs; ++j) {
        for (int i = 0; i < kNumEquations; ++i) along[j] += column[i] * others[i][j] / length;
        product += along[j] * gram_[j][lead];
      }
      LimbMatrix rows;
      for (int i = 0; i < kNumEquations; ++i) {
        for (int j = 0; j < kNumLimbs; ++j) rows[i][j] = others[i][j] - column[i] * along[j];
      }
      if (!all_hold(rows)) continue;
      found.lead = lead;
      ++num_found;
      const double factor = -product / gram_[lead][lead];
      for (int i = 0; i < kNumEquations; ++i) others[i][lead] = factor * column[i];
      if (factor != 0.0 && all_hold(others)) found.gain = 1 / factor;
    }
    if (num_found != 1) return;
    found.equations.swap(findings.equations);
    findings = std::move(found);
  }

 private:
  static void copy_residuals(LimbMatrix& rows) {
    for (int i = 0; i < kNumEquations; ++i) {
      std::copy(kResiduals[i], kResiduals[i] + kNumLimbs, rows[i]);
    }
  }

  bool all_hold(const LimbMatrix& rows) const {
    for (const auto& row : rows) {
      double power = 0.0;
      for (int i = 0; i < kNumLimbs; ++i) {
        for (int j = 0; j < kNumLimbs; ++j) power += row[i] * gram_[i][j] * row[j];
      }
      if (!(power <= tolerance_ * tolerance_)) return false;
    }
    return true;
  }

  double gram_[kNumLimbs][kNumLimbs];  // mV^2
  double tolerance_;                   // residual RMS up to which an equation holds, mV
};

}  // namespace detail

// limbs: `count` values each, where all six have samples. An equation with a flat lead is not
// judged: that flag says enough.
inline LimbFindings check_limbs(const float* const (&limbs)[kNumLimbs], std::int64_t count,
                                const bool* flat) {
  LimbFindings findings;
  if (count == 0) return findings;
  float means[kNumLimbs];
  double powers[kNumEquations + 1];
  for_this_cpu([&](auto vector) {
    detail::limb_means<vector.value>(limbs, count, means);
    detail::residual_powers<vector.value>(limbs, means, count, powers);
  });
  const double scale = std::sqrt(powers[kNumEquations] / (kNumLimbs * static_cast<double>(count)));
  const double tolerance = std::max(kEquationTolerance * scale, kEquationFloor);
  const bool any_flat = std::find(flat, flat + kNumLimbs, true) != flat + kNumLimbs;
  for (int i = 0; i < kNumEquations; ++i) {
    const double residual = std::sqrt(powers[i] / static_cast<double>(count));
    bool is_judged = true;
    for (int lead = 0; lead < kNumLimbs; ++lead) {
      is_judged = is_judged && !(flat[lead] && kResiduals[i][lead] != 0.0f);
    }
    if (is_judged && residual > tolerance) findings.equations.emplace_back(i, residual / scale);
  }
  if (!findings.equations.empty() && !any_flat) {
    detail::LimbExplanation(limbs, means, count, tolerance).find(findings);
  }
  return findings;
}

}  // namespace esi
