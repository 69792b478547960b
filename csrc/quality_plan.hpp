// How a record is cut up to assess its quality: blocks of about 10 ms, in segments of about 0.2 s.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace esi {

inline constexpr int kBlocks = 20;  // in a segment: a whole number of periods of 50 and of 60 Hz
inline constexpr double kBlockSeconds = 0.01;
inline constexpr int kNumMains = 2;
inline constexpr double kMainsHz[kNumMains] = {50.0, 60.0};

inline std::int64_t round_to_even(double value) {
  return static_cast<std::int64_t>(std::nearbyint(value));
}

// Two frequencies over a segment, (length / 2, 4): the cosine and the sine of each about the middle
// of the segment. The second half mirrors the first: the cosine as it is, the sine upside down.
// The squares of a pair's products with a signal add up to its squared RMS.
using HalfWaves = std::vector<float>;

namespace detail {

inline HalfWaves half_waves(const double (&frequencies)[2], double fs, std::int64_t length) {
  const std::int64_t half = length / 2;
  const auto time = [&](std::int64_t k) {
    return (static_cast<double>(k) - static_cast<double>(length - 1) / 2) / fs;
  };
  double mean_square = 0.0;
  for (std::int64_t k = 0; k < half; ++k) mean_square += time(k) * time(k) / half;
  const double scale = std::sqrt(2.0) / static_cast<double>(length);
  HalfWaves waves(static_cast<std::size_t>(4 * half));
  for (int i = 0; i < 2; ++i) {
    const double turn = 2 * std::acos(-1.0) * frequencies[i];
    // Baseline and T waves are far larger than mains: what a parabola explains is not counted.
    double constant = 0.0;
    double slope = 0.0;
    double bend = 0.0;
    double bend_norm = 0.0;
    for (std::int64_t k = 0; k < half; ++k) {
      const double t = time(k);
      const double curve = t * t - mean_square;
      constant += std::cos(turn * t) / half;
      slope += std::sin(turn * t) * t / (mean_square * half);
      bend += std::cos(turn * t) * curve;
      bend_norm += curve * curve;
    }
    bend /= bend_norm;
    for (std::int64_t k = 0; k < half; ++k) {
      const double t = time(k);
      const double even = std::cos(turn * t) - constant - bend * (t * t - mean_square);
      const double odd = std::sin(turn * t) - slope * t;
      waves[static_cast<std::size_t>(4 * k + 2 * i)] = static_cast<float>(scale * even);
      waves[static_cast<std::size_t>(4 * k + 2 * i + 1)] = static_cast<float>(scale * odd);
    }
  }
  return waves;
}

}  // namespace detail

// How records of one rate and length are cut up, and what their segments are multiplied by.
struct SegmentPlan {
  SegmentPlan(double rate, std::int64_t num_samples)
      : fs(rate),
        block(std::max<std::int64_t>(1, round_to_even(kBlockSeconds * rate))),
        length(kBlocks * block),
        num_segments(num_samples / length),
        num_blocks(kBlocks * num_segments),
        block_rate(rate / static_cast<double>(block)) {
    // The nearest frequencies to which mains does not leak from a segment are so far apart.
    const double apart = fs / static_cast<double>(length);
    mains = detail::half_waves(kMainsHz, fs, length);
    for (int i = 0; i < kNumMains; ++i) {
      has_mains[i] = kMainsHz[i] + apart < fs / 2;
      beside[i] = detail::half_waves({kMainsHz[i] - apart, kMainsHz[i] + apart}, fs, length);
    }
    turn_cos.resize(static_cast<std::size_t>(num_segments));
    turn_sin.resize(turn_cos.size());
    for (std::size_t k = 0; k < turn_cos.size(); ++k) {
      const double phase =
          2 * std::acos(-1.0) * static_cast<double>(k) / static_cast<double>(num_segments);
      turn_cos[k] = std::cos(phase);
      turn_sin[k] = std::sin(phase);
    }
  }

  double fs;
  std::int64_t block;         // samples
  std::int64_t length;        // of a segment, samples
  std::int64_t num_segments;  // what is left over of a record is not looked at
  std::int64_t num_blocks;
  double block_rate;          // Hz
  bool has_mains[kNumMains];  // whether fs allows to tell it
  HalfWaves mains;
  HalfWaves beside[kNumMains];
  std::vector<double> turn_cos;  // one turn in num_segments steps
  std::vector<double> turn_sin;
};

// The plan for a rate and a length, made once. Safe to call from several threads.
inline std::shared_ptr<const SegmentPlan> segment_plan(double fs, std::int64_t num_samples) {
  static std::mutex mutex;
  static std::map<std::pair<double, std::int64_t>, std::shared_ptr<const SegmentPlan>> cache;
  static std::int64_t cached_size = 0;
  constexpr std::int64_t kMostCached = 1 << 22;  // records choose the lengths: memory stays bounded
  const auto key = std::make_pair(fs, num_samples);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = cache.find(key);
    if (found != cache.end()) return found->second;
  }
  auto plan = std::make_shared<const SegmentPlan>(fs, num_samples);
  const std::int64_t size = plan->length + plan->num_segments;
  const std::lock_guard<std::mutex> lock(mutex);
  if (cached_size + size > kMostCached) {
    cache.clear();
    cached_size = 0;
  }
  if (cache.emplace(key, plan).second) cached_size += size;
  return plan;
}

}  // namespace esi
