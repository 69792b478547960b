// Samples of shards, by their places in the tars, as one float32 batch.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "crc32c.hpp"
#include "file.hpp"
#include "lanes.hpp"
#include "simd.hpp"
#include "tar.hpp"
#include "threads.hpp"

namespace esi {

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "shards hold little-endian samples, which are read here as they are"
#endif

enum class Normalization { kMillivolt, kZScore };

// What stands for a missing sample: NaN, 0 of the output, or the mean of the lead's other samples.
enum class Fill { kNan, kZero, kMean };

struct ShardReadOptions {
  std::int64_t num_leads = 0;
  std::int64_t num_samples = 0;  // stored per lead
  std::int64_t crop = 0;         // wanted per lead
  Normalization normalization = Normalization::kMillivolt;
  Fill fill = Fill::kNan;
  int num_threads = 1;
};

// Where a sample lies, from its first tar header to the padding of its last member.
struct SamplePlace {
  int descriptor = -1;
  std::int64_t begin = 0;
  std::int64_t num_bytes = 0;
  std::uint32_t crc32c = 0;
  std::int64_t start = 0;  // of the crop
};

inline Normalization normalization_by_name(const std::string& name) {
  if (name == "mv") return Normalization::kMillivolt;
  if (name == "zscore") return Normalization::kZScore;
  throw std::invalid_argument("normalize is '" + name + "', it must be 'mv' or 'zscore'");
}

inline Fill fill_by_name(const std::string& name) {
  if (name == "nan") return Fill::kNan;
  if (name == "zero") return Fill::kZero;
  if (name == "mean") return Fill::kMean;
  throw std::invalid_argument("nan_policy is '" + name + "', it must be 'nan', 'zero' or 'mean'");
}

namespace detail {

// Count, sum and sum of squares of the samples that are there: exact.
struct LeadSums {
  std::int64_t count = 0;
  std::int64_t sum = 0;
  std::int64_t squares = 0;

  double mean() const {
    return count ? static_cast<double>(sum) / static_cast<double>(count) : 0.0;
  }
};

inline LeadSums lead_sums(const std::int16_t* x, std::int64_t length) {
  LeadSums sums;
  for_this_cpu([&](auto) {
    const std::int16_t* in = x;
    // Short enough for 32 bits to hold sums of samples, and of either half of their squares.
    constexpr std::int64_t kBlock = 4096;
    std::int64_t total = 0;
    std::int64_t squares = 0;
    std::int64_t missing = 0;
    for (std::int64_t t = 0; t < length; t += kBlock) {
      const std::int64_t count = std::min(kBlock, length - t);
      std::int32_t block_missing = 0;
      std::int32_t block_sum = 0;
      std::uint32_t low = 0;
      std::uint32_t high = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int32_t is_missing = in[t + i] == kMissingInt16;
        const std::int32_t value = is_missing ? 0 : in[t + i];
        const auto square = static_cast<std::uint32_t>(value * value);
        block_missing += is_missing;
        block_sum += value;
        low += square & 0xFFFF;
        high += square >> 16;
      }
      total += block_sum;
      missing += block_missing;
      squares += (std::int64_t{high} << 16) + low;
    }
    sums = {length - missing, total, squares};
  });
  return sums;
}

// x / 1000, `missing` where there is no sample: to the nearest float32.
inline void microvolts_to_millivolts(const std::int16_t* x, std::int64_t length, float missing,
                                     float* out) {
  for_this_cpu([&](auto) {
    const std::int16_t* in = x;
    float* target = out;
    const float instead = missing;
    for (std::int64_t i = 0; i < length; ++i) {
      const float value = static_cast<float>(in[i]) / 1000.0f;
      target[i] = in[i] == kMissingInt16 ? instead : value;
    }
  });
}

// (x - mean) * scale, `missing` where there is no sample.
inline void standardize(const std::int16_t* x, std::int64_t length, float mean, float scale,
                        float missing, float* out) {
  for_this_cpu([&](auto) {
    const std::int16_t* in = x;
    float* target = out;
    const float center = mean;
    const float factor = scale;
    const float instead = missing;
    for (std::int64_t i = 0; i < length; ++i) {
      const float value = (static_cast<float>(in[i]) - center) * factor;
      target[i] = in[i] == kMissingInt16 ? instead : value;
    }
  });
}

// The mean of a lead is told by its sums; only kMean asks for them.
inline void to_millivolts(const std::int16_t* x, const ShardReadOptions& options, float* out) {
  for (std::int64_t l = 0; l < options.num_leads; ++l) {
    const std::int16_t* lead = x + l * options.num_samples;
    float missing = options.fill == Fill::kNan ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    if (options.fill == Fill::kMean) {
      missing = static_cast<float>(lead_sums(lead, options.crop).mean() / 1000.0);
    }
    microvolts_to_millivolts(lead, options.crop, missing, out + l * options.crop);
  }
}

// One mean and one unbiased standard deviation for the whole record, plus 1e-6 mV; with kMean the
// means that fill the gaps count as samples.
inline void to_zscores(const std::int16_t* x, const ShardReadOptions& options, float* out) {
  std::vector<LeadSums> sums;
  double count = 0.0;
  double sum = 0.0;
  double squares = 0.0;
  for (std::int64_t l = 0; l < options.num_leads; ++l) {
    const LeadSums lead = lead_sums(x + l * options.num_samples, options.crop);
    const double filled =
        options.fill == Fill::kMean ? static_cast<double>(options.crop - lead.count) : 0.0;
    count += static_cast<double>(lead.count) + filled;
    sum += static_cast<double>(lead.sum) + filled * lead.mean();
    squares += static_cast<double>(lead.squares) + filled * lead.mean() * lead.mean();
    sums.push_back(lead);
  }
  const double mean = count > 0 ? sum / count : 0.0;
  const double variance = count > 1 ? std::max(0.0, squares - sum * mean) / (count - 1) : 0.0;
  const double scale = 1.0 / (std::sqrt(variance) + 1e-3);  // in uV
  for (std::int64_t l = 0; l < options.num_leads; ++l) {
    float missing = options.fill == Fill::kNan ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    if (options.fill == Fill::kMean) {
      missing = static_cast<float>((sums[static_cast<std::size_t>(l)].mean() - mean) * scale);
    }
    standardize(x + l * options.num_samples, options.crop, static_cast<float>(mean),
                static_cast<float>(scale), missing, out + l * options.crop);
  }
}

// What is wrong with the bytes of a sample; nothing if they are those that were written.
inline std::string fault_in(const SamplePlace& place, const ReadOutcome& outcome,
                            const std::vector<char>& bytes, std::string_view npy_header) {
  if (outcome.error != 0) {
    return "cannot be read: " + std::generic_category().message(outcome.error);
  }
  if (outcome.count < place.num_bytes) return "is cut off";
  if (std::memcmp(bytes.data() + kTarBlock, npy_header.data(), npy_header.size()) != 0) {
    return "has another signal shape or type";
  }
  if (crc32c(bytes.data(), bytes.size()) != place.crc32c) return "is damaged";
  return "";
}

}  // namespace detail

// Reads a sample into each row of (n, num_leads, crop) float32. Every byte of a sample is checked.
// What is wrong with each, "" for a sound one; the row of a damaged one is undefined.
inline std::vector<std::string> read_samples(const std::vector<SamplePlace>& places,
                                             std::string_view npy_header,
                                             const ShardReadOptions& options, float* out) {
  const std::int64_t row = options.num_leads * options.crop;
  const auto least = static_cast<std::int64_t>(kTarBlock + npy_header.size()) +
                     2 * options.num_leads * options.num_samples;
  std::vector<std::string> errors(places.size());
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> ahead{false};
  detail::run_threads(
      static_cast<std::int64_t>(places.size()), options.num_threads, next,
      [] { return std::vector<char>(); },
      [&](std::int64_t i, std::vector<char>& bytes) {
        std::string& error = errors[static_cast<std::size_t>(i)];
        const SamplePlace& place = places[static_cast<std::size_t>(i)];
        if (place.num_bytes < least) {
          error = "is too short for its signal";
          return;
        }
        bytes.resize(static_cast<std::size_t>(place.num_bytes));
        const detail::ReadOutcome outcome =
            detail::read_at(place.descriptor, place.begin, place.num_bytes, bytes.data());
        if (!outcome.cached && !ahead.exchange(true)) {
          // From a disk: ask for the rest of the batch, so that it works on many reads at once.
          for (std::size_t k = static_cast<std::size_t>(i) + 1; k < places.size(); ++k) {
            ::posix_fadvise(places[k].descriptor, places[k].begin, places[k].num_bytes,
                            POSIX_FADV_WILLNEED);
          }
        }
        error = detail::fault_in(place, outcome, bytes, npy_header);
        if (!error.empty()) return;
        // The samples follow two headers of 64-byte multiples: aligned for int16.
        const auto* samples =
            reinterpret_cast<const std::int16_t*>(bytes.data() + kTarBlock + npy_header.size());
        float* target = out + i * row;
        if (options.normalization == Normalization::kZScore) {
          detail::to_zscores(samples + place.start, options, target);
        } else {
          detail::to_millivolts(samples + place.start, options, target);
        }
      },
      [&](std::int64_t i, const char* error) { errors[static_cast<std::size_t>(i)] = error; });
  return errors;
}

}  // namespace esi
