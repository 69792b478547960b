// What one pass over a record's samples gives: the means of its blocks, extremes, and the power at
// the frequencies of the mains. Nearly all that tells its quality is made of these.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

#include "kernels.hpp"
#include "quality_plan.hpp"
#include "simd.hpp"

namespace esi {

inline constexpr float kMicrovoltsPerMillivolt = 1000.0f;
inline constexpr float kAbsurd = 1e6f;  // mV; beyond it, or infinite, a sample is no voltage

namespace detail {

// Floats that begin a cache line: vectors that straddle two take twice as long to load.
class AlignedFloats {
 public:
  // Not filled.
  float* resize(std::int64_t count) {
    constexpr std::size_t kCacheLine = 64;
    const auto size = static_cast<std::size_t>(count) + kCacheLine / sizeof(float);
    if (size > size_) floats_.reset(new float[size]);
    size_ = std::max(size, size_);
    const auto address = reinterpret_cast<std::uintptr_t>(floats_.get());
    return floats_.get() + (kCacheLine - address % kCacheLine) % kCacheLine / sizeof(float);
  }

 private:
  std::unique_ptr<float[]> floats_;
  std::size_t size_ = 0;
};

template <typename Value>
inline __attribute__((always_inline)) void lower_to(Value& least, const Value& value) {
  least = value < least ? value : least;
}

template <typename Value>
inline __attribute__((always_inline)) void raise_to(Value& most, const Value& value) {
  most = value > most ? value : most;
}

inline bool is_missing(float sample) { return sample != sample; }
inline bool is_missing(std::int16_t sample) { return sample == kMissingInt16; }

inline float to_millivolt(float sample) { return sample; }
inline float to_millivolt(std::int16_t sample) {
  return static_cast<float>(sample) / kMicrovoltsPerMillivolt;
}

using FourLanes = VectorOf<4>::Type;
using EightLanes = VectorOf<8>::Type;

// Four samples of a row in millivolt, and with eight lanes those of a second row behind them.
inline __attribute__((always_inline)) void load_quads(const float* row, const float*,
                                                      FourLanes& values) {
  values = *reinterpret_cast<const VectorOf<4>::Load*>(row);
}

inline __attribute__((always_inline)) void load_quads(const float* row, const float* second,
                                                      EightLanes& values) {
  using Quad = VectorOf<4>::Load;
  values = __builtin_shufflevector(*reinterpret_cast<const Quad*>(row),
                                   *reinterpret_cast<const Quad*>(second), 0, 1, 2, 3, 4, 5, 6, 7);
}

// Four samples of 16 bits, times 2^16: interleaved with zeros they are 32 bits without further ado.
inline __attribute__((always_inline)) VectorOf<4>::Int load_shifted(const std::int16_t* row) {
  typedef std::int16_t Shorts __attribute__((vector_size(16)));
  typedef std::int64_t Quads __attribute__((vector_size(16)));
  typedef std::int64_t Load __attribute__((aligned(2), may_alias));
  const Quads quad = {*reinterpret_cast<const Load*>(row), 0};
  return reinterpret_cast<VectorOf<4>::Int>(
      __builtin_shufflevector(Shorts{}, reinterpret_cast<Shorts>(quad), 0, 8, 1, 9, 2, 10, 3, 11));
}

inline constexpr float kShift = 65536.0f;

inline __attribute__((always_inline)) void load_quads(const std::int16_t* row, const std::int16_t*,
                                                      FourLanes& values) {
  values =
      __builtin_convertvector(load_shifted(row), FourLanes) / (kShift * kMicrovoltsPerMillivolt);
}

inline __attribute__((always_inline)) void load_quads(const std::int16_t* row,
                                                      const std::int16_t* second,
                                                      EightLanes& values) {
  const VectorOf<8>::Int both =
      __builtin_shufflevector(load_shifted(row), load_shifted(second), 0, 1, 2, 3, 4, 5, 6, 7);
  const auto shifted = __builtin_convertvector(both, EightLanes);
  // Fused with the factor in two parts, the product is the quotient to the nearest.
  constexpr double kFactor = 1e-3 / static_cast<double>(kShift);
  constexpr auto kHigh = static_cast<float>(kFactor);
  constexpr auto kLow = static_cast<float>(kFactor - static_cast<double>(kHigh));
  const EightLanes low = shifted * kLow;
  for (int i = 0; i < 8; ++i) values[i] = __builtin_fmaf(shifted[i], kHigh, low[i]);
}

// What the pass writes, an entry for each segment of each lead: (segments, 12), and `blocks`.
struct SegmentOutputs {
  float* low;
  float* high;
  float* block_low;
  float* block_high;
  float* mean;
  float* power[kNumMains];
  float* blocks;  // (12, num_blocks)
};

// VECTOR segments at once, one a lane: first turned into columns, then summed up.
template <int VECTOR, typename Sample>
inline __attribute__((always_inline)) void segment_group(const Sample* const (&rows)[VECTOR],
                                                         float* const (&blocks)[VECTOR],
                                                         std::int64_t index,
                                                         const SegmentPlan& plan, float* columns,
                                                         const SegmentOutputs& out) {
  using Vector = typename VectorOf<VECTOR>::Type;
  using Load = typename VectorOf<VECTOR>::Load;
  const std::int64_t length = plan.length;
  const std::int64_t block = plan.block;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Vector low = kInfinity - Vector{};
  Vector high = -low;
  for (std::int64_t t = 0; t < length; t += 4) {
    Vector quads[4];
    for (int i = 0; i < 4; ++i) {
      load_quads(rows[i] + t, rows[(i + 4) % VECTOR] + t, quads[i]);
    }
    transpose_quads<VECTOR>(quads);
    for (int i = 0; i < 4; ++i) {
      *reinterpret_cast<Load*>(columns + (t + i) * VECTOR) = quads[i];
      lower_to(low, quads[i]);
      raise_to(high, quads[i]);
    }
  }
  const auto column = [&](std::int64_t t) {
    return reinterpret_cast<const Load*>(columns + t * VECTOR);
  };
  Vector means[kBlocks];
  Vector waves[4] = {};
  const float* weights = plan.mains.data();
  const float per_block = 1.0f / static_cast<float>(block);
  for (int b = 0; b < kBlocks / 2; ++b) {
    Vector front = {};
    Vector back = {};
    for (std::int64_t t = b * block; t < (b + 1) * block; ++t, weights += 4) {
      const Vector left = *column(t);
      const Vector right = *column(length - 1 - t);
      front += left;
      back += right;
      const Vector even = left + right;
      const Vector odd = left - right;
      waves[0] += weights[0] * even;
      waves[1] += weights[1] * odd;
      waves[2] += weights[2] * even;
      waves[3] += weights[3] * odd;
    }
    means[b] = front * per_block;
    means[kBlocks - 1 - b] = back * per_block;
  }
  Vector total = {};
  Vector block_low = means[0];
  Vector block_high = means[0];
  for (const Vector& mean : means) {
    total += mean;
    lower_to(block_low, mean);
    raise_to(block_high, mean);
  }
  const auto store = [&](float* array, const Vector& value) {
    *reinterpret_cast<Load*>(array + index) = value;
  };
  store(out.low, low);
  store(out.high, high);
  store(out.block_low, block_low);
  store(out.block_high, block_high);
  store(out.mean, total * (1.0f / kBlocks));
  for (int i = 0; i < kNumMains; ++i) {
    store(out.power[i], waves[2 * i] * waves[2 * i] + waves[2 * i + 1] * waves[2 * i + 1]);
  }
  for (int b = 0; b < kBlocks; b += 4) {
    Vector quads[4] = {means[b], means[b + 1], means[b + 2], means[b + 3]};
    transpose_quads<VECTOR>(quads);
    for (int i = 0; i < VECTOR; ++i) {
      for (int k = 0; k < 4; ++k) blocks[i][b + k] = quads[i % 4][i / 4 * 4 + k];
    }
  }
}

}  // namespace detail

// One record's segments; the memory is used again from record to record.
class Segments {
 public:
  float low[kNumLeads];  // of all samples, mV
  float high[kNumLeads];
  float block_low[kNumLeads];  // of the block means
  float block_high[kNumLeads];
  bool is_ordinary[kNumLeads];  // no sample is missing, and none beyond `absurd`

  const float* blocks(int lead) const { return out_.blocks + lead * num_blocks_; }
  // (segments, 12): means, mV; squared RMS at 50 and 60 Hz, mV^2, where the rate allows.
  const float* means() const { return out_.mean; }
  const float* power(int mains) const { return out_.power[mains]; }

  // signal: (12, num_samples) mV with NaN, or int16 uV with -32768.
  template <typename Sample>
  void run(const Sample* signal, std::int64_t num_samples, const SegmentPlan& plan) {
    // The missing value of int16 lies half a step below this.
    constexpr float lowest = sizeof(Sample) == 2 ? -32.7675f : -kAbsurd;
    prepare(plan);
    for_this_cpu([&](auto vector) {
      constexpr int kVector = vector.value;
      const detail::SegmentOutputs out = out_;
      const std::int64_t last = plan.num_segments * kNumLeads - 1;
      for (std::int64_t index = 0; index <= last; index += kVector) {
        const Sample* rows[kVector];
        float* blocks[kVector];
        for (int lane = 0; lane < kVector; ++lane) {
          const std::int64_t entry = std::min(index + lane, last);
          const std::int64_t lead = entry % kNumLeads;
          const std::int64_t segment = entry / kNumLeads;
          rows[lane] = signal + lead * num_samples + segment * plan.length;
          blocks[lane] = out.blocks + lead * plan.num_blocks + segment * kBlocks;
        }
        detail::segment_group<kVector>(rows, blocks, index, plan, columns_, out);
      }
    });
    reduce(plan.num_segments);
    for (int lead = 0; lead < kNumLeads; ++lead) {
      const Sample* row = signal + lead * num_samples;
      for (std::int64_t t = plan.num_segments * plan.length; t < num_samples; ++t) {
        const float value = detail::to_millivolt(row[t]);
        detail::lower_to(low[lead], value);
        detail::raise_to(high[lead], value);
        has_nan_[lead] = has_nan_[lead] || value != value;
      }
      is_ordinary[lead] = !has_nan_[lead] && low[lead] >= lowest && high[lead] <= kAbsurd;
    }
  }

 private:
  void prepare(const SegmentPlan& plan) {
    constexpr std::int64_t kLargestVector = 8;
    num_blocks_ = plan.num_blocks;
    columns_ = column_memory_.resize(plan.length * kLargestVector);
    const std::int64_t entries = plan.num_segments * kNumLeads + kLargestVector;
    float* next = entry_memory_.resize(7 * entries);
    for (float** array : {&out_.low, &out_.high, &out_.block_low, &out_.block_high, &out_.mean,
                          &out_.power[0], &out_.power[1]}) {
      *array = next;
      next += entries;
    }
    out_.blocks = block_memory_.resize(plan.num_blocks * kNumLeads);
  }

  // From the segments' extremes to the record's.
  void reduce(std::int64_t num_segments) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for_this_cpu([&](auto) {
      float lows[kNumLeads];
      float highs[kNumLeads];
      float block_lows[kNumLeads];
      float block_highs[kNumLeads];
      float sums[kNumLeads];
      const detail::SegmentOutputs out = out_;
      for (int i = 0; i < kNumLeads; ++i) {
        lows[i] = block_lows[i] = kInfinity;
        highs[i] = block_highs[i] = -kInfinity;
        sums[i] = 0.0f;
      }
      for (std::int64_t base = 0; base < num_segments * kNumLeads; base += kNumLeads) {
        for (int i = 0; i < kNumLeads; ++i) {
          detail::lower_to(lows[i], out.low[base + i]);
          detail::raise_to(highs[i], out.high[base + i]);
          detail::lower_to(block_lows[i], out.block_low[base + i]);
          detail::raise_to(block_highs[i], out.block_high[base + i]);
          sums[i] += out.mean[base + i];
        }
      }
      for (int i = 0; i < kNumLeads; ++i) {
        low[i] = lows[i];
        high[i] = highs[i];
        block_low[i] = block_lows[i];
        block_high[i] = block_highs[i];
        has_nan_[i] = sums[i] != sums[i];
      }
    });
  }

  std::int64_t num_blocks_ = 0;
  bool has_nan_[kNumLeads];
  detail::SegmentOutputs out_;
  float* columns_ = nullptr;
  detail::AlignedFloats column_memory_;
  detail::AlignedFloats entry_memory_;
  detail::AlignedFloats block_memory_;
};

}  // namespace esi
