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
#include "shard_kernels.hpp"
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

// The mean of a lead is told by its sums; only kMean asks for them.
inline void to_millivolts(const std::int16_t* x, const ShardReadOptions& options, float* out) {
  for (std::int64_t l = 0; l < options.num_leads; ++l) {
    const std::int16_t* lead = x + l * options.num_samples;
    float missing = options.fill == Fill::kNan ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    if (options.fill == Fill::kMean) {
      missing = static_cast<float>(lead_sums(lead, options.crop).mean() / 1000.0);
    }
    convert_samples(lead, options.crop, missing, out + l * options.crop, ToMillivolts{});
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
  const ToZScores convert{static_cast<float>(mean), static_cast<float>(scale)};
  for (std::int64_t l = 0; l < options.num_leads; ++l) {
    float missing = options.fill == Fill::kNan ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
    if (options.fill == Fill::kMean) {
      missing = static_cast<float>((sums[static_cast<std::size_t>(l)].mean() - mean) * scale);
    }
    convert_samples(x + l * options.num_samples, options.crop, missing, out + l * options.crop,
                    convert);
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
  run_threads(
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
