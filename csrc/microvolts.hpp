// Stored samples whose steps are whole microvolts, which is what archives of ECGs hold: they become
// int16 microvolts without a detour through floating point.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels.hpp"
#include "lanes.hpp"

namespace esi {

namespace detail {

using Eight = short __attribute__((vector_size(16)));

// What each of the twelve is multiplied by; false if one is no small whole number.
inline bool whole_steps(const RawRecord& record, const Lanes& lanes,
                        std::int16_t (&steps)[kNumLeads]) {
  const Group& group = record.groups[lanes.sources[0].group];
  const bool has_the_mark = group.format->has_missing && group.format->missing == kMissingInt16;
  if (!lanes.one_block || !has_the_mark || record.samples[lanes.sources[0].group].is_wide) {
    return false;
  }
  for (int lane = 0; lane < kNumLeads; ++lane) {
    const LeadSource& source = lanes.sources[lane];
    const double step = source.step * 1000.0;
    const double whole = std::nearbyint(step);
    // A gain of 200 a millivolt gives 5 uV but for the last bit of a double.
    const bool is_whole = whole >= 1.0 && whole <= 1000.0 && std::abs(step - whole) < 1e-9;
    if (source.baseline != 0.0 || !is_whole) return false;
    steps[lane] = static_cast<std::int16_t>(whole);
  }
  return true;
}

// Eight frames of eight neighbouring lanes, frame-major to lane-major.
inline void transpose_eight(const std::int16_t* frames, Eight (&v)[8]) {
  for (int i = 0; i < 8; ++i) std::memcpy(&v[i], frames + i * kNumLeads, sizeof(Eight));
  Eight pairs[8];
  for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = __builtin_shufflevector(v[i], v[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
    pairs[2 * i + 1] = __builtin_shufflevector(v[i], v[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
  }
  Eight fours[8];
  for (int i = 0; i < 2; ++i) {
    for (int half = 0; half < 2; ++half) {
      const Eight& a = pairs[2 * i + half];
      const Eight& b = pairs[2 * (i + 2) + half];
      fours[4 * i + 2 * half] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
      fours[4 * i + 2 * half + 1] = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = __builtin_shufflevector(fours[i], fours[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
    v[2 * i + 1] = __builtin_shufflevector(fours[i], fours[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
  }
}

}  // namespace detail

// The first `count` frames of a record as microvolts in (12, length), where a step of every lead is
// a whole number of them and no sample is beyond 16 bits; false where not, and then the output is
// still to be written.
inline bool copy_microvolts(const RawRecord& record, const Lanes& lanes, std::int64_t count,
                            std::int16_t* out, std::int64_t length) {
  using detail::Eight;
  std::int16_t steps[kNumLeads];
  if (!detail::whole_steps(record, lanes, steps)) return false;
  const std::int16_t* samples = record.samples[lanes.sources[0].group].narrow.data();
  Eight step[kNumLeads];
  Eight most[kNumLeads];
  for (int lane = 0; lane < kNumLeads; ++lane) {
    constexpr std::int16_t kMost = std::numeric_limits<std::int16_t>::max();
    step[lane] = Eight{} + steps[lane];
    most[lane] = Eight{} + static_cast<std::int16_t>(kMost / steps[lane]);
  }
  Eight any_beyond{};
  const auto convert = [&](const Eight& x, int lane, std::int16_t* target) {
    const Eight missing = x == (Eight{} + kMissingInt16);
    any_beyond |= (x > most[lane]) | ((x < -most[lane]) & ~missing);
    const Eight value = (x * step[lane] & ~missing) | (x & missing);
    std::memcpy(target, &value, sizeof(value));
  };
  std::int64_t t = 0;
  for (; t + 8 <= count; t += 8) {
    for (int first : {0, 4}) {  // lanes 0 to 7, then 4 to 11, of which 8 to 11 are new
      Eight v[8];
      detail::transpose_eight(samples + t * kNumLeads + first, v);
      for (int i = first; i < 8; ++i) {
        convert(v[i], first + i, out + lanes.sources[first + i].lead * length + t);
      }
    }
  }
  for (int lane = 0; lane < kNumLeads && t < count; ++lane) {
    Eight rest{};
    const std::int64_t left = std::min<std::int64_t>(8, count - t);
    for (std::int64_t i = 0; i < left; ++i) rest[i] = samples[(t + i) * kNumLeads + lane];
    std::int16_t converted[8];
    convert(rest, lane, converted);
    std::copy(converted, converted + left, out + lanes.sources[lane].lead * length + t);
  }
  for (int i = 0; i < 8; ++i) {
    if (any_beyond[i]) return false;
  }
  return true;
}

}  // namespace esi
