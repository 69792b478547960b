// Exchanges of electrodes that the average beat makes likely.
//
// Works on block means, at about 100 Hz: a lead's polarity and likeness to others need no more.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quality_plan.hpp"
#include "quality_segments.hpp"
#include "simd.hpp"

namespace esi {

// Reversals are judged on the eight leads from which the others follow: I, II, V1..V6.
inline constexpr int kNumIndependent = 8;
inline constexpr int kIndependent[kNumIndependent] = {0, 1, 6, 7, 8, 9, 10, 11};
inline constexpr int kFirstChest = 2;  // among those eight
inline constexpr int kLastChest = 7;
inline constexpr double kLowestBlockRate = 50.0;  // Hz; below, a P wave is not told from the QRS

struct Reversals {
  std::optional<std::string> limbs;          // the electrodes, as in "RA/LA"
  std::optional<std::pair<int, int>> chest;  // of V1..V6, from 0
};

namespace detail {

// A limb lead's range over that of the largest of I, II and III, on the average beat: 0.139 and
// more on 503 recordings.
inline constexpr double kFlatLimbShare = 0.1;
// Correlation of I (or II) with V6 on the average beat, and what the sum of the correlations of
// neighbouring chest leads gains when two are exchanged back.
inline constexpr double kOpposed = -0.4;
inline constexpr double kOrderGain = 0.2;
inline constexpr double kCoherentShare = 0.2;  // of the power round the beats; less: no beat in it
// The same signs, fainter, in the steps of 80 ms of the whole record.
inline constexpr double kLagSeconds = 0.08;
inline constexpr double kFaintFlat = 0.25;
inline constexpr double kFaintOpposed = -0.1;
inline constexpr double kFaintOrder = 0.02;

inline constexpr double kBeforeBeat = 0.30;  // s
inline constexpr double kAfterBeat = 0.35;
inline constexpr std::int64_t kFewestBeats = 3;
inline constexpr double kQrsSeconds = 0.08;
inline constexpr double kPartSeconds = 0.12;  // less between two steep stretches: one complex

using Products = double[kNumIndependent][kNumIndependent];

// Products of leads of mean 0 to correlations; 0 for a lead that is 0 throughout.
inline void normalise(Products& products) {
  double norms[kNumIndependent];
  for (int i = 0; i < kNumIndependent; ++i) norms[i] = std::sqrt(products[i][i]);
  for (int i = 0; i < kNumIndependent; ++i) {
    for (int j = 0; j < kNumIndependent; ++j) {
      const bool any_zero = norms[i] == 0.0 || norms[j] == 0.0;
      products[i][j] = any_zero ? 0.0 : products[i][j] / (norms[i] * norms[j]);
    }
  }
}

struct Exchange {
  std::pair<int, int> pair{0, 1};
  double gain = 0.0;
};

// The pair of V1..V6 whose exchange makes neighbours most alike, and by how much.
inline Exchange best_exchange(const Products& correlation) {
  constexpr int kNumChest = 6;
  const auto likeness = [&](int a, int b) {
    int order[kNumChest] = {2, 3, 4, 5, 6, 7};
    std::swap(order[a], order[b]);
    double sum = 0.0;
    for (int i = 1; i < kNumChest; ++i) sum += correlation[order[i - 1]][order[i]];
    return sum;
  };
  const double as_it_is = likeness(0, 0);
  Exchange best{{0, 1}, likeness(0, 1) - as_it_is};
  for (int a = 0; a < kNumChest; ++a) {
    for (int b = a + 1; b < kNumChest; ++b) {
      const double gain = likeness(a, b) - as_it_is;
      if (gain > best.gain) best = {{a, b}, gain};
    }
  }
  return best;
}

// All products of rows of `stride` floats, which is a multiple of VECTOR.
template <int VECTOR>
inline __attribute__((always_inline)) void multiply_rows(const float* rows, std::int64_t stride,
                                                         Products& products) {
  using Vector = typename VectorOf<VECTOR>::Type;
  using Load = typename VectorOf<VECTOR>::Load;
  for (int i = 0; i < kNumIndependent; ++i) {
    Vector sums[kNumIndependent] = {};
    for (std::int64_t t = 0; t < stride; t += VECTOR) {
      const Vector own = *reinterpret_cast<const Load*>(rows + i * stride + t);
      for (int j = 0; j < kNumIndependent; ++j) {
        sums[j] += own * *reinterpret_cast<const Load*>(rows + j * stride + t);
      }
    }
    for (int j = 0; j < kNumIndependent; ++j) {
      products[i][j] = 0.0;
      for (int lane = 0; lane < VECTOR; ++lane) products[i][j] += sums[j][lane];
    }
  }
}

template <typename Value>
Value median(std::vector<Value> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace detail

// The middle of each QRS complex, ascending: steep stretches of all leads together, each of equal
// weight. leads: `count` values each, none flat; nothing is found in less than 3 s.
inline std::vector<std::int64_t> find_beats(const std::vector<const float*>& leads,
                                            std::int64_t count, double rate) {
  const std::int64_t second = round_to_even(rate);
  const std::int64_t width = std::max<std::int64_t>(1, round_to_even(detail::kQrsSeconds * rate));
  const std::int64_t num_slopes = count - 2;
  if (leads.empty() || num_slopes < 3 * second) return {};
  std::vector<float> sums(static_cast<std::size_t>(num_slopes), 0.0f);
  for (const float* lead : leads) {
    const auto slope = [&](std::int64_t t) { return std::abs(lead[t + 2] - lead[t]); };
    double strength = 0.0;
    for (std::int64_t t = 0; t < num_slopes; ++t) strength += slope(t);
    const float weight =
        1.0f / static_cast<float>(strength / static_cast<double>(num_slopes) + 1e-6);
    float* sum = sums.data();
    for (std::int64_t t = 0; t < num_slopes; ++t) sum[t] += weight * slope(t);
  }
  // Steepness k sums the slopes k + 1 .. k + width; slope k lies at sample k + 1.
  std::vector<double> steepness(static_cast<std::size_t>(num_slopes - width));
  double total = 0.0;
  for (std::int64_t t = 1; t <= width; ++t) total += sums[static_cast<std::size_t>(t)];
  for (std::size_t k = 0; k < steepness.size(); ++k) {
    steepness[k] = total;
    const std::size_t next = k + 1 + static_cast<std::size_t>(width);
    if (next < sums.size()) total += static_cast<double>(sums[next]) - sums[k + 1];
  }
  std::vector<double> of_seconds;
  for (auto begin = steepness.begin(); steepness.end() - begin >= second; begin += second) {
    of_seconds.push_back(*std::max_element(begin, begin + second));
  }
  const double usual = detail::median(of_seconds);
  const double quiet = detail::median(steepness);
  const double threshold = quiet + 0.4 * (usual - quiet);
  std::vector<std::pair<std::int64_t, std::int64_t>> steep;  // stretches, [begin, end)
  const auto size = static_cast<std::int64_t>(steepness.size());
  for (std::int64_t k = 0; k < size; ++k) {
    if (!(steepness[static_cast<std::size_t>(k)] > threshold)) continue;
    // A notch within a complex does not part it.
    if (!steep.empty() &&
        static_cast<double>(k - steep.back().second) < detail::kPartSeconds * rate) {
      steep.back().second = k + 1;
    } else {
      steep.emplace_back(k, k + 1);
    }
  }
  std::vector<std::int64_t> middles;
  for (const auto& [begin, end] : steep) middles.push_back((begin + end) / 2 + 1 + width / 2);
  return middles;
}

namespace detail {

// The independent leads' average beat.
struct AverageBeat {
  std::int64_t peak = 0;  // where the beat's middle is
  std::vector<double> leads[kNumIndependent];
  Products correlation;
  bool is_coherent[kNumIndependent];  // whether the beats have enough in common
};

inline AverageBeat average_beat(const float* const (&leads)[kNumIndependent],
                                const std::vector<std::int64_t>& peaks, std::int64_t before,
                                std::int64_t after) {
  AverageBeat beat;
  beat.peak = before;
  const auto width = static_cast<std::size_t>(before + after);
  const auto num_beats = static_cast<double>(peaks.size());
  for (int i = 0; i < kNumIndependent; ++i) {
    std::vector<double>& average = beat.leads[i];
    average.assign(width, 0.0);
    double total = 0.0;
    for (std::int64_t peak : peaks) {
      const float* samples = leads[i] + peak - before;
      double sum = 0.0;
      for (std::size_t t = 0; t < width; ++t) sum += samples[t];
      const double baseline = sum / static_cast<double>(width);  // it moves between beats
      for (std::size_t t = 0; t < width; ++t) {
        const double value = samples[t] - baseline;
        average[t] += value;
        total += value * value;
      }
    }
    double energy = 0.0;
    for (double& value : average) {
      value /= num_beats;
      energy += value * value;
    }
    // Of noise alone, 1 / num_beats is left in the average.
    const double common = (num_beats * num_beats * energy - total) / (num_beats - 1);
    beat.is_coherent[i] = common > kCoherentShare * total;
  }
  for (int i = 0; i < kNumIndependent; ++i) {
    for (int j = 0; j < kNumIndependent; ++j) {
      beat.correlation[i][j] = 0.0;
      for (std::size_t t = 0; t < width; ++t) {
        beat.correlation[i][j] += beat.leads[i][t] * beat.leads[j][t];
      }
    }
  }
  normalise(beat.correlation);
  return beat;
}

// Whether the QRS complex of an average beat is negative and its P wave not positive.
inline bool is_upside_down(const std::vector<double>& beat, std::int64_t peak, double rate) {
  const auto at = [&](double seconds) {
    return beat.begin() + static_cast<std::ptrdiff_t>(peak + round_to_even(seconds * rate));
  };
  const auto mean = [&](double from, double to) {
    double sum = 0.0;
    for (auto value = at(from); value != at(to); ++value) sum += *value;
    return sum / static_cast<double>(at(to) - at(from));
  };
  const double baseline = mean(-0.08, -0.05);
  const auto [low, high] = std::minmax_element(at(-0.06), at(0.08));
  // Against the line through its ends; 2 uV of mean height are a P wave of 4 to 5 uV: none.
  const double p_height = mean(-0.26, -0.07) - (*at(-0.26) + *(at(-0.07) - 1)) / 2;
  return *high + *low < 2 * baseline && p_height < 0.002;
}

inline std::optional<std::string> limb_reversal(const AverageBeat& beat, double rate,
                                                const bool (&usable)[kNumIndependent]) {
  if (!usable[0] && !usable[1]) return std::nullopt;
  double low[3] = {};
  double high[3] = {};
  for (std::size_t t = 0; t < beat.leads[0].size(); ++t) {
    const double lead_i = beat.leads[0][t];
    const double lead_ii = beat.leads[1][t];
    const double limbs[3] = {lead_i, lead_ii, lead_ii - lead_i};
    for (int i = 0; i < 3; ++i) {
      low[i] = t == 0 ? limbs[i] : std::min(low[i], limbs[i]);
      high[i] = t == 0 ? limbs[i] : std::max(high[i], limbs[i]);
    }
  }
  const double spans[3] = {high[0] - low[0], high[1] - low[1], high[2] - low[2]};
  const auto flattest = std::min_element(spans, spans + 3) - spans;
  if (spans[flattest] < kFlatLimbShare * *std::max_element(spans, spans + 3)) {
    constexpr const char* kByFlatLimb[3] = {"RA/RL+LA/LL", "RA/RL", "LA/RL"};
    return kByFlatLimb[flattest];
  }
  // With RA and LL exchanged I may be upside down too, but II is so more clearly.
  const double* likeness = beat.correlation[kLastChest];
  const int lead = likeness[1] < likeness[0] ? 1 : 0;
  if (!usable[lead] || !usable[kLastChest] || !(likeness[lead] < kOpposed)) {
    return std::nullopt;
  }
  if (!is_upside_down(beat.leads[lead], beat.peak, rate)) return std::nullopt;
  return lead == 0 ? "RA/LA" : "RA/LL";
}

}  // namespace detail

// Names exchanges; the memory is used again from record to record.
class ReversalFinder {
 public:
  // leads: `count` block means of each independent lead. sound: whose samples can be relied on and
  // that are not flat. limbs_agree: the limb leads are sound and obey their equations.
  Reversals find(const float* const (&leads)[kNumIndependent], std::int64_t count, double rate,
                 const bool (&sound)[kNumIndependent], bool limbs_agree) {
    Reversals found;
    limbs_agree = limbs_agree && (sound[0] || sound[1]);
    bool chest_sound = true;
    for (int i = kFirstChest; i < kNumIndependent; ++i) chest_sound = chest_sound && sound[i];
    if (rate < kLowestBlockRate || !(limbs_agree || chest_sound)) return found;
    if (!is_suspicious(leads, count, rate)) return found;
    std::vector<const float*> sound_leads;
    for (int i = 0; i < kNumIndependent; ++i) {
      if (sound[i]) sound_leads.push_back(leads[i]);
    }
    const std::int64_t before = round_to_even(detail::kBeforeBeat * rate);
    const std::int64_t after = round_to_even(detail::kAfterBeat * rate);
    std::vector<std::int64_t> peaks;
    for (std::int64_t peak : find_beats(sound_leads, count, rate)) {
      if (peak >= before && peak < count - after) peaks.push_back(peak);
    }
    if (static_cast<std::int64_t>(peaks.size()) < detail::kFewestBeats) return found;
    const detail::AverageBeat beat = detail::average_beat(leads, peaks, before, after);
    bool usable[kNumIndependent];
    bool chest_usable = true;
    for (int i = 0; i < kNumIndependent; ++i) {
      usable[i] = sound[i] && beat.is_coherent[i];
      chest_usable = chest_usable && (usable[i] || i < kFirstChest);
    }
    if (limbs_agree) found.limbs = detail::limb_reversal(beat, rate, usable);
    if (chest_usable) {
      const detail::Exchange best = detail::best_exchange(beat.correlation);
      if (best.gain > detail::kOrderGain) found.chest = best.pair;
    }
    return found;
  }

 private:
  // Whether one of the signs is there in the whole record, more faintly than is asked for.
  //
  // It spares nine of ten records the search for beats; of 6,300 simulated exchanges of chest leads
  // that the average beat tells, it lets none pass.
  bool is_suspicious(const float* const (&leads)[kNumIndependent], std::int64_t count,
                     double rate) {
    constexpr std::int64_t kLargestVector = 8;
    const std::int64_t lag = std::max<std::int64_t>(1, round_to_even(detail::kLagSeconds * rate));
    const std::int64_t num_steps = std::max<std::int64_t>(0, count - lag);
    const std::int64_t stride = (num_steps + kLargestVector - 1) / kLargestVector * kLargestVector;
    float* steps = memory_.resize(stride * kNumIndependent);
    detail::Products products;
    for_this_cpu([&](auto vector) {
      for (int i = 0; i < kNumIndependent; ++i) {
        const float* lead = leads[i];
        float* row = steps + i * stride;
        for (std::int64_t t = 0; t < num_steps; ++t) row[t] = lead[t + lag] - lead[t];
        std::fill(row + num_steps, row + stride, 0.0f);
      }
      detail::multiply_rows<vector.value>(steps, stride, products);
    });
    const double powers[3] = {products[0][0], products[1][1],
                              products[0][0] + products[1][1] - 2 * products[0][1]};
    if (*std::min_element(powers, powers + 3) <
        detail::kFaintFlat * detail::kFaintFlat * *std::max_element(powers, powers + 3)) {
      return true;
    }
    detail::normalise(products);
    const double* likeness = products[kLastChest];
    if (std::min(likeness[0], likeness[1]) < detail::kFaintOpposed) return true;
    return detail::best_exchange(products).gain > detail::kFaintOrder;
  }

  detail::AlignedFloats memory_;
};

}  // namespace esi
