// Polyphase resampling of interleaved signals, and what happens to missing samples on the way.
//
// Signals are (T, WIDTH) with WIDTH a multiple of four: a SIMD lane holds samples of one signal, so
// that every output is the same sum in the same order whatever its neighbours, and results do not
// depend on how signals are grouped or spread over threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "filter.hpp"
#include "simd.hpp"

namespace esi {

// What becomes of a gap: missing again (NaN), the straight line that bridges it, or zero.
enum class NanPolicy { kNan, kInterpolate, kZero };

inline NanPolicy nan_policy_by_name(const std::string& name) {
  if (name == "nan") return NanPolicy::kNan;
  if (name == "interpolate") return NanPolicy::kInterpolate;
  if (name == "zero") return NanPolicy::kZero;
  throw std::invalid_argument("nan_policy '" + name +
                              "' is not one of 'nan', 'interpolate', 'zero'");
}

// Where samples are missing, one flag an input sample; empty when the signal is whole.
using Mask = std::vector<std::uint8_t>;

namespace detail {

// OUTPUTS outputs at once, `up` apart, so that they share their taps and the sums do not wait for
// each other. Two frames are whole vectors for 12 signals as for 4: even taps are summed apart from
// odd ones, then together.
template <int VECTOR, int WIDTH, int OUTPUTS>
inline __attribute__((always_inline)) void fir_block(const FilterBank& bank, const float* signal,
                                                     std::int64_t first, float* output) {
  using Vector = typename VectorOf<VECTOR>::Type;
  using Load = typename VectorOf<VECTOR>::Load;
  constexpr int kVectors = 2 * WIDTH / VECTOR;
  const std::int64_t num_taps = bank.num_taps;
  const std::int64_t position = first * bank.ratio.down;
  const float* taps = bank.taps.data() + (position % bank.ratio.up) * num_taps;
  const float* inputs[OUTPUTS];
  for (int r = 0; r < OUTPUTS; ++r) {
    inputs[r] = signal + (position / bank.ratio.up - bank.left + r * bank.ratio.down) * WIDTH;
  }
  Vector sums[OUTPUTS][kVectors] = {};
  for (std::int64_t k = 0; k < num_taps; k += 2) {
    const Vector even = taps[k] - Vector{};
    const Vector odd = taps[k + 1] - Vector{};
    Vector weights[kVectors] = {};
    for (int v = 0; v < kVectors; ++v) weights[v] = (v + 1) * VECTOR <= WIDTH ? even : odd;
    if constexpr (WIDTH % VECTOR != 0) {  // the vector that ends one frame and begins the next
      constexpr typename VectorOf<VECTOR>::Int kSecondHalf = {0, 0, 0, 0, -1, -1, -1, -1};
      weights[WIDTH / VECTOR] = kSecondHalf ? odd : even;
    }
    for (int r = 0; r < OUTPUTS; ++r) {
      const auto* x = reinterpret_cast<const Load*>(inputs[r] + k * WIDTH);
      for (int v = 0; v < kVectors; ++v) sums[r][v] += weights[v] * x[v];
    }
  }
  for (int r = 0; r < OUTPUTS; ++r) {
    float pair[2 * WIDTH];
    std::memcpy(pair, sums[r], sizeof(pair));
    float* out = output + (first + r * bank.ratio.up) * WIDTH;
    for (int i = 0; i < WIDTH; ++i) out[i] = pair[i] + pair[WIDTH + i];
  }
}

// Outputs from `begin` on, as long as OUTPUTS of one phase are left; returns where it ended.
template <int VECTOR, int WIDTH, int OUTPUTS>
inline __attribute__((always_inline)) std::int64_t fir_phases(const FilterBank& bank,
                                                              const float* signal,
                                                              std::int64_t begin,
                                                              std::int64_t num_outputs,
                                                              float* output) {
  const std::int64_t up = bank.ratio.up;
  for (; begin + (OUTPUTS - 1) * up < num_outputs; begin += OUTPUTS * up) {
    const std::int64_t full = std::min(begin + up, num_outputs - (OUTPUTS - 1) * up);
    for (std::int64_t j = begin; j < full; ++j) {
      fir_block<VECTOR, WIDTH, OUTPUTS>(bank, signal, j, output);
    }
    for (std::int64_t j = full; j < begin + up; ++j) {  // phases that have one output less
      for (int r = 0; r < OUTPUTS - 1; ++r) {
        fir_block<VECTOR, WIDTH, 1>(bank, signal, j + r * up, output);
      }
    }
  }
  return begin;
}

template <int VECTOR, int WIDTH>
inline __attribute__((always_inline)) void fir(const FilterBank& bank, const float* signal,
                                               std::int64_t num_outputs, float* output) {
  std::int64_t done = 0;  // as many sums at once as 16 registers hold, then the rest
  if constexpr (VECTOR == 8) {
    done = fir_phases<VECTOR, WIDTH, 4>(bank, signal, done, num_outputs, output);
  }
  done = fir_phases<VECTOR, WIDTH, 2>(bank, signal, done, num_outputs, output);
  fir_phases<VECTOR, WIDTH, 1>(bank, signal, done, num_outputs, output);
}

// Continues each signal beyond its ends: `left` and `right` samples around signal[0 .. T).
template <int WIDTH>
inline void extend(float* signal, std::int64_t num_samples, std::int64_t left, std::int64_t right,
                   Extension extension) {
  if (extension == Extension::kZero) {
    std::fill(signal - left * WIDTH, signal, 0.0f);
    std::fill(signal + num_samples * WIDTH, signal + (num_samples + right) * WIDTH, 0.0f);
    return;
  }
  // Odd: x[-k] = 2 x[0] - x[k]. Growing both ends in step serves signals shorter than the filter:
  // what one end needs of the other is already there.
  const std::int64_t last = num_samples - 1;
  const auto reflect = [&](std::int64_t to, std::int64_t about, std::int64_t from) {
    for (int lane = 0; lane < WIDTH; ++lane) {
      signal[to * WIDTH + lane] =
          last == 0 ? signal[lane]
                    : 2.0f * signal[about * WIDTH + lane] - signal[from * WIDTH + lane];
    }
  };
  for (std::int64_t k = 1; k <= std::max(left, right); ++k) {
    if (k <= left) reflect(-k, 0, k);
    if (k <= right) reflect(last + k, last, last - k);
  }
}

// Bridges the missing samples of one lane by straight lines, so that the filter sees no NaN.
template <int WIDTH>
inline void bridge_gaps(float* signal, std::int64_t num_samples, int lane, const Mask& missing) {
  const auto at = [&](std::int64_t t) -> float& { return signal[t * WIDTH + lane]; };
  std::int64_t before = -1;  // the last present sample so far
  for (std::int64_t t = 0; t <= num_samples; ++t) {
    if (t < num_samples && missing[static_cast<std::size_t>(t)]) continue;
    if (t - before > 1) {
      const bool has_left = before >= 0;
      const bool has_right = t < num_samples;
      const float left = has_left ? at(before) : (has_right ? at(t) : 0.0f);
      const float right = has_right ? at(t) : left;
      const auto length = static_cast<float>(t - before);
      for (std::int64_t i = before + 1; i < t; ++i) {
        at(i) = left + (right - left) * (static_cast<float>(i - before) / length);
      }
    }
    before = t;
  }
}

// Marks the outputs whose own stretch of time was missing: each output stands for the inputs
// nearest to it, and takes over nothing from further away.
template <int WIDTH>
inline void mask_outputs(float* output, std::int64_t num_outputs, int lane, const Mask& missing,
                         Ratio ratio, float mark) {
  const auto num_samples = static_cast<std::int64_t>(missing.size());
  const std::int64_t last = output_length(num_samples, ratio) - 1;
  // The first output whose nearest input is `input` or later (halves count for the later one).
  const auto first_output = [&](std::int64_t input) {
    return std::max<std::int64_t>(
        0, ((2 * input - 1) * ratio.up + 2 * ratio.down - 1) / (2 * ratio.down));
  };
  const auto nearest_output = [&](std::int64_t input) {
    return std::min((2 * input * ratio.up + ratio.down) / (2 * ratio.down), last);
  };
  const auto begin = missing.begin();
  for (auto run = begin;;) {
    run = std::find(run, missing.end(), 1);
    if (run == missing.end()) return;
    const auto run_end = std::find(run, missing.end(), 0);
    const std::int64_t first = run - begin;
    const std::int64_t end = run_end - begin;
    std::int64_t from = first_output(first);
    // The last outputs may lie beyond the last input: that one stands for them.
    std::int64_t to = end == num_samples ? last + 1 : first_output(end);
    if (ratio.up < ratio.down) {  // and no missing input is forgotten between two outputs
      from = std::min(from, nearest_output(first));
      to = std::max(to, nearest_output(end - 1) + 1);
    }
    to = std::min(to, num_outputs);
    for (std::int64_t k = from; k < to; ++k) output[k * WIDTH + lane] = mark;
    run = run_end;
  }
}

}  // namespace detail

// The working memory of one thread: an input with room around it for the filter, and the output.
template <int WIDTH>
class Resampler {
 public:
  // Prepares for `num_samples` inputs; returns where to write them, (num_samples, WIDTH).
  float* prepare(std::int64_t num_samples, Ratio ratio, const Quality& quality) {
    num_samples_ = num_samples;
    ratio_ = ratio;
    quality_ = &quality;
    bank_ = ratio == Ratio{} ? nullptr : filter_bank(ratio, quality);
    left_ = bank_ ? bank_->left : 0;
    right_ = bank_ ? bank_->right : 0;
    constexpr std::size_t kCacheLine = 64;
    input_.resize(static_cast<std::size_t>((left_ + num_samples + right_) * WIDTH) + kCacheLine);
    // Vectors that straddle cache lines take twice as long to load.
    const auto address = reinterpret_cast<std::uintptr_t>(input_.data());
    const std::size_t shift = (kCacheLine - address % kCacheLine) % kCacheLine / sizeof(float);
    signal_ = input_.data() + shift + left_ * WIDTH;
    return signal_;
  }

  // Set by the caller before run(); empty for a lane that is whole.
  Mask missing[WIDTH];

  // The first `num_outputs` outputs, (num_outputs, WIDTH), gaps as the policy wants them. A lane
  // without any sample stays NaN when it is to be interpolated.
  const float* run(std::int64_t num_outputs, NanPolicy policy) {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    float* signal = signal_;
    float* result = signal;
    for (int lane = 0; lane < WIDTH; ++lane) {
      if (!missing[lane].empty()) {
        detail::bridge_gaps<WIDTH>(signal, num_samples_, lane, missing[lane]);
      }
    }
    if (bank_) {
      detail::extend<WIDTH>(signal, num_samples_, left_, right_, quality_->extension);
      output_.resize(static_cast<std::size_t>(num_outputs * WIDTH));
      result = output_.data();
      filter(signal, num_outputs);
    }
    for (int lane = 0; lane < WIDTH; ++lane) {
      const Mask& mask = missing[lane];
      if (mask.empty()) continue;
      const bool has_samples = std::find(mask.begin(), mask.end(), 0) != mask.end();
      if (policy == NanPolicy::kInterpolate && has_samples) continue;
      detail::mask_outputs<WIDTH>(result, num_outputs, lane, mask, ratio_,
                                  policy == NanPolicy::kZero ? 0.0f : kNan);
    }
    return result;
  }

 private:
  void filter(const float* signal, std::int64_t num_outputs) {
    const FilterBank& bank = *bank_;
    float* output = output_.data();
    for_this_cpu(
        [&](auto vector) { detail::fir<vector.value, WIDTH>(bank, signal, num_outputs, output); });
  }

  std::int64_t num_samples_ = 0;
  std::int64_t left_ = 0;
  std::int64_t right_ = 0;
  Ratio ratio_;
  const Quality* quality_ = nullptr;
  std::shared_ptr<const FilterBank> bank_;
  std::vector<float> input_;
  float* signal_ = nullptr;  // the first sample, within input_
  std::vector<float> output_;
};

namespace detail {

// WIDTH rows of (rows, T) through one Resampler; rows beyond `num_rows` are padding.
template <int WIDTH>
inline void resample_block(Resampler<WIDTH>& resampler, const float* x, std::int64_t num_rows,
                           std::int64_t num_samples, Ratio ratio, const Quality& quality,
                           NanPolicy policy, float* y, std::int64_t num_outputs) {
  float* input = resampler.prepare(num_samples, ratio, quality);
  for (Mask& mask : resampler.missing) mask.clear();
  for (int lane = 0; lane < WIDTH; ++lane) {
    for (std::int64_t t = 0; t < num_samples; ++t) {
      const float value = lane < num_rows ? x[lane * num_samples + t] : 0.0f;
      input[t * WIDTH + lane] = value;
      if (!std::isfinite(value)) {
        Mask& mask = resampler.missing[lane];
        if (mask.empty()) mask.assign(static_cast<std::size_t>(num_samples), 0);
        mask[static_cast<std::size_t>(t)] = 1;
      }
    }
  }
  const float* output = resampler.run(num_outputs, policy);
  for (std::int64_t lane = 0; lane < num_rows; ++lane) {
    for (std::int64_t j = 0; j < num_outputs; ++j) {
      y[lane * num_outputs + j] = output[j * WIDTH + lane];
    }
  }
}

}  // namespace detail

// (rows, T) -> (rows, output_length(T)). Samples that are not finite are missing.
inline void resample_rows(const float* x, std::int64_t num_rows, std::int64_t num_samples,
                          Ratio ratio, const Quality& quality, NanPolicy policy, float* y) {
  const std::int64_t num_outputs = output_length(num_samples, ratio);
  if (num_samples == 0) return;
  Resampler<12> twelve;
  Resampler<4> four;
  while (num_rows > 0) {
    const std::int64_t rows = num_rows > 4 ? std::min<std::int64_t>(num_rows, 12) : num_rows;
    if (rows > 4) {
      detail::resample_block(twelve, x, rows, num_samples, ratio, quality, policy, y, num_outputs);
    } else {
      detail::resample_block(four, x, rows, num_samples, ratio, quality, policy, y, num_outputs);
    }
    x += rows * num_samples;
    y += rows * num_outputs;
    num_rows -= rows;
  }
}

}  // namespace esi
