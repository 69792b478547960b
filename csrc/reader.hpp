// Many WFDB records at once: on threads, the twelve leads by name, at one rate, into one array.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "lanes.hpp"
#include "microvolts.hpp"
#include "read_ahead.hpp"
#include "record.hpp"
#include "resample.hpp"
#include "threads.hpp"

namespace esi {

struct BatchOptions {
  double fs = 0.0;
  const Quality* quality = nullptr;
  NanPolicy nan_policy = NanPolicy::kNan;
  double adc_units_per_mv = 0.0;  // in place of every header's gain, unless 0
  bool verify = true;
  bool strict = false;
  int num_threads = 1;
};

struct RecordResult {
  Status status = Status::kOk;
  std::string error;
  std::string source_leads;             // as the header spells them, a line each
  std::vector<std::string> unresolved;  // "lead NAME" or "unit NAME" that the tables lack
  bool clipped = false;
  double fs = 0.0;
  std::int64_t num_samples = 0;
};

// The output of a batch: (n, 12, length), millivolt with NaN or microvolt with -32768.
template <typename Sample>
struct BatchOutput {
  Sample* data;
  std::int64_t length;
};

namespace detail {

// Opens a record and finds its leads; nothing if names are to be looked up first.
inline std::optional<Lanes> open_record(const std::string& stem, const NameTables& names,
                                        const BatchOptions& options, Reader& reader,
                                        RecordResult& result) {
  reader.open(stem);
  const RawRecord& record = reader.record;
  for (std::size_t i = 0; i < record.header.signals.size(); ++i) {
    if (i > 0) result.source_leads += '\n';
    result.source_leads += record.header.signals[i].description;
  }
  result.fs = record.fs;
  try {
    Lanes lanes = find_lanes(record, names, options.adc_units_per_mv, result.unresolved);
    if (result.unresolved.empty()) return lanes;
  } catch (const RecordError& error) {
    throw RecordError(error.status(), base_name(stem) + ".hea: " + error.what());
  }
  result.status = Status::kUnresolved;
  return std::nullopt;
}

// False if a disk had to be waited for.
template <typename Sample>
bool read_one(const std::string& stem, const NameTables& names, const BatchOptions& options,
              Reader& reader, Resampler<kNumLeads>& resampler, Sample* out, std::int64_t length,
              RecordResult& result) {
  const std::optional<Lanes> found = open_record(stem, names, options, reader, result);
  if (!found) return true;
  const Lanes& lanes = *found;
  const RawRecord& record = reader.record;
  Ratio ratio;
  try {
    ratio = make_ratio(record.fs, options.fs);
  } catch (const std::invalid_argument& error) {
    throw RecordError(Status::kFormat, base_name(stem) + ".hea: " + error.what());
  }
  const bool cached = reader.read(options.verify);
  result.num_samples = record.num_samples;
  const std::int64_t num_outputs = std::min(length, output_length(record.num_samples, ratio));
  const auto is_copied = [&] {
    if constexpr (std::is_same_v<Sample, std::int16_t>) {
      return ratio == Ratio{} && options.nan_policy == NanPolicy::kNan &&
             copy_microvolts(record, lanes, num_outputs, out, length);
    }
    return false;
  };
  if (is_copied()) {
    // As stored: nothing to filter, and nothing to round.
  } else if (!mark_gaps(record, lanes, resampler.missing) && ratio == Ratio{}) {
    // Nothing to filter: a tile at a time, so that millivolts pass through the fastest cache only.
    constexpr std::int64_t kTile = 256;
    float tile[kTile * kNumLeads];
    for (std::int64_t t = 0; t < num_outputs; t += kTile) {
      const std::int64_t count = std::min(kTile, num_outputs - t);
      to_millivolts(record, lanes, t, count, tile);
      write_leads(tile, lanes, t, count, out, length, result.clipped);
    }
  } else {
    float* input = resampler.prepare(record.num_samples, ratio, *options.quality);
    to_millivolts(record, lanes, 0, record.num_samples, input);
    const float* outputs = resampler.run(num_outputs, options.nan_policy);
    write_leads(outputs, lanes, 0, num_outputs, out, length, result.clipped);
  }
  for (int l = 0; l < kNumLeads; ++l) {
    fill_missing(out + l * length + num_outputs, length - num_outputs, options.nan_policy);
  }
  return cached;
}

// run_threads() over records: what work(index, state, result) throws becomes the result's status.
template <typename MakeState, typename Work>
void run_readers(std::int64_t n, int num_threads, std::atomic<std::int64_t>& next,
                 std::vector<RecordResult>& results, const MakeState& make_state,
                 const Work& work) {
  run_threads(
      n, num_threads, next, make_state,
      [&](std::int64_t i, auto& state) {
        RecordResult& result = results[static_cast<std::size_t>(i)];
        try {
          work(i, state, result);
        } catch (const RecordError& error) {
          result.status = error.status();
          result.error = error.what();
        }
      },
      [&](std::int64_t i, const char* error) {
        results[static_cast<std::size_t>(i)].status = Status::kIo;
        results[static_cast<std::size_t>(i)].error = error;
      });
}

}  // namespace detail

// Rate and length of each record with twelve leads, from headers and file sizes alone.
inline std::vector<RecordResult> probe_records(const std::vector<std::string>& stems,
                                               const NameTables& names,
                                               const BatchOptions& options) {
  std::vector<RecordResult> results(stems.size());
  std::atomic<std::int64_t> next{0};
  detail::run_readers(
      static_cast<std::int64_t>(stems.size()), options.num_threads, next, results,
      [&] { return Reader(options.strict); },
      [&](std::int64_t i, Reader& reader, RecordResult& result) {
        const std::string& stem = stems[static_cast<std::size_t>(i)];
        if (!detail::open_record(stem, names, options, reader, result)) return;
        reader.measure();
        result.num_samples = reader.record.num_samples;
      });
  return results;
}

// Reads record stems[i] into rows[i] of the output: resampled, cropped or padded, leads by name.
template <typename Sample>
std::vector<RecordResult> read_batch(const std::vector<std::string>& stems,
                                     const std::vector<std::int64_t>& rows, const NameTables& names,
                                     const BatchOptions& options, BatchOutput<Sample> output) {
  struct State {
    Reader reader;
    Resampler<kNumLeads> resampler;
  };
  std::vector<RecordResult> results(stems.size());
  std::atomic<std::int64_t> next{0};
  detail::ReadAhead read_ahead(stems, options.strict, next);
  detail::run_readers(
      static_cast<std::int64_t>(stems.size()), options.num_threads, next, results,
      [&] { return State{Reader(options.strict), {}}; },
      [&](std::int64_t i, State& state, RecordResult& result) {
        const auto index = static_cast<std::size_t>(i);
        Sample* out = output.data + rows[index] * kNumLeads * output.length;
        try {
          if (!detail::read_one(stems[index], names, options, state.reader, state.resampler, out,
                                output.length, result)) {
            read_ahead.start();
          }
        } catch (...) {
          read_ahead.advance();
          fill_missing(out, kNumLeads * output.length, options.nan_policy);
          throw;
        }
        read_ahead.advance();
      });
  return results;
}

}  // namespace esi
