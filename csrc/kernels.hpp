// Passes over the samples of a record: checksums, missing values, millivolts, lead-major order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "simd.hpp"

namespace esi {

inline constexpr int kNumLeads = 12;
inline constexpr std::int16_t kMissingInt16 = -32768;

// The WFDB checksum of each column of (num_frames, width) samples: their sum modulo 2^16.
template <typename Sample>
void checksums(const Sample* samples, std::int64_t num_frames, std::int64_t width,
               std::uint16_t* sums) {
  std::fill(sums, sums + width, std::uint16_t{0});
  std::int64_t done = 0;
  if (width == kNumLeads) {
    // Four frames of twelve are whole vectors.
    constexpr int kBlock = 4 * kNumLeads;
    std::uint16_t block[kBlock] = {};
    for_this_cpu([&](auto) {
      std::uint16_t local[kBlock] = {};
      for (std::int64_t t = 0; t + 4 <= num_frames; t += 4) {
        for (int i = 0; i < kBlock; ++i) {
          local[i] = static_cast<std::uint16_t>(
              local[i] + static_cast<std::uint16_t>(samples[t * kNumLeads + i]));
        }
      }
      std::memcpy(block, local, sizeof(block));
    });
    for (int i = 0; i < kBlock; ++i) {
      sums[i % kNumLeads] = static_cast<std::uint16_t>(sums[i % kNumLeads] + block[i]);
    }
    done = num_frames / 4 * 4;
  }
  for (std::int64_t t = done; t < num_frames; ++t) {
    for (std::int64_t i = 0; i < width; ++i) {
      sums[i] =
          static_cast<std::uint16_t>(sums[i] + static_cast<std::uint16_t>(samples[t * width + i]));
    }
  }
}

template <typename Sample>
bool contains(const Sample* samples, std::int64_t count, std::int32_t value) {
  bool found = false;
  for_this_cpu([&](auto) {
    const Sample* in = samples;
    const std::int64_t n = count;
    const auto wanted = static_cast<Sample>(value);
    Sample any = 0;  // as wide as the samples: the vectors need not be widened
    for (std::int64_t i = 0; i < n; ++i) any |= in[i] == wanted ? Sample{-1} : Sample{0};
    found = any != 0;
  });
  return found;
}

namespace detail {

// Four frames of twelve: a loop long enough for the compiler to make vectors of it.
inline constexpr int kScaleBlock = 4 * kNumLeads;

template <typename Sample, typename Scale>
inline __attribute__((always_inline)) void scale_blocks(const Sample* in, std::int64_t count,
                                                        float* out, const Scale& scale) {
  for (; count >= kScaleBlock; count -= kScaleBlock, in += kScaleBlock, out += kScaleBlock) {
    for (int i = 0; i < kScaleBlock; ++i) out[i] = scale(in[i], i);
  }
  for (int i = 0; i < count; ++i) out[i] = scale(in[i], i);
}

}  // namespace detail

// (sample - baseline) * step for frames of twelve, to the nearest float32.
template <typename Sample>
void scale_frames(const Sample* samples, std::int64_t num_frames, const double* baseline,
                  const double* step, float* output) {
  using detail::kScaleBlock;
  const std::int64_t count = num_frames * kNumLeads;
  bool is_exact = sizeof(Sample) == sizeof(std::int16_t);  // whether float32 holds the difference
  for (int lane = 0; lane < kNumLeads; ++lane) {
    is_exact = is_exact && std::abs(baseline[lane]) < (1 << 23);
  }
  for_this_cpu([&](auto vector) {
    if (vector.value == 8 && is_exact) {
      // A fused product with the step in two parts rounds once, as the product in double does (to
      // within 2^-47 of a tie between two neighbours).
      float zero[kScaleBlock];
      float high[kScaleBlock];
      float low[kScaleBlock];
      for (int i = 0; i < kScaleBlock; ++i) {
        const double exact = step[i % kNumLeads];
        zero[i] = static_cast<float>(baseline[i % kNumLeads]);
        high[i] = static_cast<float>(exact);
        low[i] = static_cast<float>(exact - static_cast<double>(high[i]));
      }
      detail::scale_blocks(samples, count, output, [&](Sample sample, int i) {
        const float difference = static_cast<float>(sample) - zero[i];
        return __builtin_fmaf(difference, high[i], difference * low[i]);
      });
    } else {
      double zero[kScaleBlock];
      double exact[kScaleBlock];
      for (int i = 0; i < kScaleBlock; ++i) {
        zero[i] = baseline[i % kNumLeads];
        exact[i] = step[i % kNumLeads];
      }
      detail::scale_blocks(samples, count, output, [&](Sample sample, int i) {
        return static_cast<float>((static_cast<double>(sample) - zero[i]) * exact[i]);
      });
    }
  });
}

namespace detail {

// Four vectors to four others: within each four lanes, the rows of a 4 x 4 matrix to its columns.
template <int VECTOR, typename Vector>
inline __attribute__((always_inline)) void transpose_quads(Vector (&v)[4]) {
  if constexpr (VECTOR == 8) {
    const Vector low01 = __builtin_shufflevector(v[0], v[1], 0, 8, 1, 9, 4, 12, 5, 13);
    const Vector high01 = __builtin_shufflevector(v[0], v[1], 2, 10, 3, 11, 6, 14, 7, 15);
    const Vector low23 = __builtin_shufflevector(v[2], v[3], 0, 8, 1, 9, 4, 12, 5, 13);
    const Vector high23 = __builtin_shufflevector(v[2], v[3], 2, 10, 3, 11, 6, 14, 7, 15);
    v[0] = __builtin_shufflevector(low01, low23, 0, 1, 8, 9, 4, 5, 12, 13);
    v[1] = __builtin_shufflevector(low01, low23, 2, 3, 10, 11, 6, 7, 14, 15);
    v[2] = __builtin_shufflevector(high01, high23, 0, 1, 8, 9, 4, 5, 12, 13);
    v[3] = __builtin_shufflevector(high01, high23, 2, 3, 10, 11, 6, 7, 14, 15);
  } else {
    const Vector low01 = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5);
    const Vector high01 = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
    const Vector low23 = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5);
    const Vector high23 = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
    v[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    v[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    v[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    v[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
  }
}

// Four neighbouring leads of VECTOR frames, from frame-major to lead-major.
template <int VECTOR>
inline __attribute__((always_inline)) void transpose_block(const float* x, float* const* rows,
                                                           std::int64_t t) {
  using Vector = typename VectorOf<VECTOR>::Type;
  using Load = typename VectorOf<VECTOR>::Load;
  using Quad = VectorOf<4>::Load;
  const auto frame = [&](int i) { return *reinterpret_cast<const Quad*>(x + i * kNumLeads); };
  Vector v[4];
  for (int i = 0; i < 4; ++i) {
    if constexpr (VECTOR == 8) {  // frame i in the low half, frame i + 4 in the high one
      v[i] = __builtin_shufflevector(frame(i), frame(i + 4), 0, 1, 2, 3, 4, 5, 6, 7);
    } else {
      v[i] = frame(i);
    }
  }
  transpose_quads<VECTOR>(v);
  for (int i = 0; i < 4; ++i) *reinterpret_cast<Load*>(rows[i] + t) = v[i];
}

}  // namespace detail

// (num_frames, 12) -> rows[lane][0 .. num_frames).
inline void transpose_frames(const float* x, std::int64_t num_frames,
                             float* const (&rows)[kNumLeads]) {
  float* const* all_rows = rows;
  for_this_cpu([&](auto vector) {
    constexpr std::int64_t kFrames = vector.value;
    for (int lane = 0; lane < kNumLeads; lane += 4) {
      std::int64_t t = 0;
      for (; t + kFrames <= num_frames; t += kFrames) {
        detail::transpose_block<vector.value>(x + t * kNumLeads + lane, all_rows + lane, t);
      }
      for (; t < num_frames; ++t) {
        for (int i = 0; i < 4; ++i) all_rows[lane + i][t] = x[t * kNumLeads + lane + i];
      }
    }
  });
}

// (num_frames, width) -> rows of num_frames, tile by tile so that each stays in the cache.
template <typename Stored, typename Sample>
void to_rows(const Stored* samples, std::int64_t num_frames, std::int64_t width, Sample* rows) {
  constexpr std::int64_t kTile = 128;
  for (std::int64_t begin = 0; begin < num_frames; begin += kTile) {
    const std::int64_t end = std::min(num_frames, begin + kTile);
    for (std::int64_t i = 0; i < width; ++i) {
      Sample* row = rows + i * num_frames;
      for (std::int64_t t = begin; t < end; ++t) {
        row[t] = static_cast<Sample>(samples[t * width + i]);
      }
    }
  }
}

// (sample - baseline) * step of one signal, NaN where a sample is `missing`.
template <typename Sample>
void scale_row(const Sample* samples, std::int64_t count, double baseline, double step,
               const std::int32_t* missing, float* output) {
  const bool has_missing = missing && contains(samples, count, *missing);
  for_this_cpu([&](auto) {
    const Sample* in = samples;
    float* out = output;
    const std::int64_t n = count;
    const double zero = baseline;
    const double exact = step;
    for (std::int64_t t = 0; t < n; ++t) {
      out[t] = static_cast<float>((static_cast<double>(in[t]) - zero) * exact);
    }
  });
  if (!has_missing) return;
  for (std::int64_t t = 0; t < count; ++t) {
    if (samples[t] == *missing) output[t] = std::numeric_limits<float>::quiet_NaN();
  }
}

// Millivolts to whole microvolts, saturated; NaN becomes `missing`. True if any was beyond range.
inline bool to_microvolts(const float* millivolts, std::int64_t count, std::int16_t missing,
                          std::int16_t* output) {
  constexpr float kLargest = 32767.0f;
  // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, in vector registers.
  constexpr float kRounder = 12582912.0f;
  bool beyond = false;
  for_this_cpu([&](auto) {
    // Copies: a store of 16 bits might otherwise change what was captured.
    const float* in = millivolts;
    std::int16_t* out = output;
    const std::int64_t n = count;
    const std::int32_t absent = missing;
    int any = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const float microvolt = in[i] * 1000.0f;
      any |= (microvolt > kLargest + 0.5f) | (microvolt < -kLargest - 0.5f);
      float value = microvolt < kLargest ? microvolt : kLargest;
      value = value > -kLargest ? value : -kLargest;
      const auto rounded = static_cast<std::int32_t>((value + kRounder) - kRounder);
      out[i] = static_cast<std::int16_t>(microvolt != microvolt ? absent : rounded);
    }
    beyond = any != 0;
  });
  return beyond;
}

}  // namespace esi
