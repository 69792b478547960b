// Polyphase resampling of interleaved signals, and what happens to missing samples on the way.
//
// Signals are (T, WIDTH) with WIDTH a multiple of four: a SIMD lane holds one signal, so that every
// output is the same sum in the same order whatever its neighbours, and results do not depend on
// how signals are grouped or spread over threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "filter.hpp"

namespace esi {

// Where samples are missing, one flag an input sample; empty when the signal is whole.
using Mask = std::vector<std::uint8_t>;

namespace detail {

// GCC's and Clang's portable SIMD: SSE on x86-64, NEON on aarch64. Unaligned, may alias floats.
typedef float Float4 __attribute__((vector_size(16)));
typedef float Float4Load __attribute__((vector_size(16), aligned(4), may_alias));

// OUTPUTS consecutive outputs at once, so that the sums do not wait for each other.
template <int WIDTH, int OUTPUTS>
inline void fir_block(const FilterBank& bank, const float* signal, std::int64_t first,
                      float* output) {
  constexpr int kVectors = WIDTH / 4;
  const float* taps[OUTPUTS];
  const float* inputs[OUTPUTS];
  for (int r = 0; r < OUTPUTS; ++r) {
    const std::int64_t position = (first + r) * bank.ratio.down;
    taps[r] = bank.taps.data() + (position % bank.ratio.up) * bank.num_taps;
    inputs[r] = signal + (position / bank.ratio.up - bank.left) * WIDTH;
  }
  Float4 sums[OUTPUTS][kVectors] = {};
  for (std::int64_t k = 0; k < bank.num_taps; ++k) {
    for (int r = 0; r < OUTPUTS; ++r) {
      const float tap = taps[r][k];
      const Float4 weight = {tap, tap, tap, tap};
      const auto* x = reinterpret_cast<const Float4Load*>(inputs[r] + k * WIDTH);
      for (int v = 0; v < kVectors; ++v) sums[r][v] += weight * x[v];
    }
  }
  for (int r = 0; r < OUTPUTS; ++r) {
    std::memcpy(output + (first + r) * WIDTH, sums[r], sizeof(sums[r]));
  }
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

// Marks as NaN the outputs whose own stretch of time was missing: each output stands for the
// inputs nearest to it, and takes over nothing from further away.
template <int WIDTH>
inline void mask_outputs(float* output, std::int64_t num_outputs, int lane, const Mask& missing,
                         Ratio ratio) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const auto num_samples = static_cast<std::int64_t>(missing.size());
  // The last output may lie beyond the last input: that one stands for it.
  for (std::int64_t j = 0; j < num_outputs; ++j) {
    const std::int64_t nearest = (2 * j * ratio.down + ratio.up) / (2 * ratio.up);
    const std::int64_t i = std::min(nearest, num_samples - 1);
    if (missing[static_cast<std::size_t>(i)]) output[j * WIDTH + lane] = kNan;
  }
  if (ratio.up >= ratio.down) return;
  const std::int64_t last = output_length(num_samples, ratio) - 1;
  for (std::int64_t i = 0; i < num_samples; ++i) {
    if (!missing[static_cast<std::size_t>(i)]) continue;
    const std::int64_t j = std::min((2 * i * ratio.up + ratio.down) / (2 * ratio.down), last);
    if (j < num_outputs) output[j * WIDTH + lane] = kNan;
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
    input_.resize(static_cast<std::size_t>((left_ + num_samples + right_) * WIDTH));
    for (Mask& mask : missing) mask.clear();
    return input_.data() + left_ * WIDTH;
  }

  // Set by the caller for the lanes with missing samples, between prepare() and run().
  Mask missing[WIDTH];

  // The first `num_outputs` outputs, (num_outputs, WIDTH), NaN where missing.
  const float* run(std::int64_t num_outputs) {
    float* signal = input_.data() + left_ * WIDTH;
    float* result = signal;
    if (bank_) {
      for (int lane = 0; lane < WIDTH; ++lane) {
        if (!missing[lane].empty()) {
          detail::bridge_gaps<WIDTH>(signal, num_samples_, lane, missing[lane]);
        }
      }
      detail::extend<WIDTH>(signal, num_samples_, left_, right_, quality_->extension);
      output_.resize(static_cast<std::size_t>(num_outputs * WIDTH));
      result = output_.data();
      constexpr int kOutputs = 3;  // 3 outputs x 12 lanes fit the 16 registers of SSE
      std::int64_t j = 0;
      for (; j + kOutputs <= num_outputs; j += kOutputs) {
        detail::fir_block<WIDTH, kOutputs>(*bank_, signal, j, result);
      }
      for (; j < num_outputs; ++j) detail::fir_block<WIDTH, 1>(*bank_, signal, j, result);
    }
    for (int lane = 0; lane < WIDTH; ++lane) {
      if (!missing[lane].empty()) {
        detail::mask_outputs<WIDTH>(result, num_outputs, lane, missing[lane], ratio_);
      }
    }
    return result;
  }

 private:
  std::int64_t num_samples_ = 0;
  std::int64_t left_ = 0;
  std::int64_t right_ = 0;
  Ratio ratio_;
  const Quality* quality_ = nullptr;
  std::shared_ptr<const FilterBank> bank_;
  std::vector<float> input_;
  std::vector<float> output_;
};

namespace detail {

// WIDTH rows of (rows, T) through one Resampler; rows beyond `num_rows` are padding.
template <int WIDTH>
inline void resample_block(Resampler<WIDTH>& resampler, const float* x, std::int64_t num_rows,
                           std::int64_t num_samples, Ratio ratio, const Quality& quality, float* y,
                           std::int64_t num_outputs) {
  float* input = resampler.prepare(num_samples, ratio, quality);
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
  const float* output = resampler.run(num_outputs);
  for (std::int64_t lane = 0; lane < num_rows; ++lane) {
    for (std::int64_t j = 0; j < num_outputs; ++j) {
      y[lane * num_outputs + j] = output[j * WIDTH + lane];
    }
  }
}

}  // namespace detail

// (rows, T) -> (rows, output_length(T)). Samples that are not finite are missing: NaN comes out.
inline void resample_rows(const float* x, std::int64_t num_rows, std::int64_t num_samples,
                          Ratio ratio, const Quality& quality, float* y) {
  const std::int64_t num_outputs = output_length(num_samples, ratio);
  if (num_samples == 0) return;
  Resampler<12> twelve;
  Resampler<4> four;
  while (num_rows > 0) {
    const std::int64_t rows = num_rows > 4 ? std::min<std::int64_t>(num_rows, 12) : num_rows;
    if (rows > 4) {
      detail::resample_block(twelve, x, rows, num_samples, ratio, quality, y, num_outputs);
    } else {
      detail::resample_block(four, x, rows, num_samples, ratio, quality, y, num_outputs);
    }
    x += rows * num_samples;
    y += rows * num_outputs;
    num_rows -= rows;
  }
}

}  // namespace esi
