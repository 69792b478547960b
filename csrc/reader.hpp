// Many WFDB records at once: on threads, the twelve leads by name, at one rate, into one array.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>

#include "kernels.hpp"
#include "read_ahead.hpp"
#include "record.hpp"
#include "resample.hpp"

namespace esi {

inline constexpr std::int16_t kMissingInt16 = -32768;

// What the caller knows about names: the core holds no lead names and no units.
struct NameTables {
  std::unordered_map<std::string, int> lead_of;            // -1: none of the twelve
  std::unordered_map<std::string, double> millivolts_per;  // NaN: not a voltage
};

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

// Where each of the twelve leads comes from, and what a step of it is worth.
struct LeadSource {
  std::size_t group = 0;
  std::int64_t column = 0;
  double millivolts_per_step = 0.0;
  double baseline = 0.0;
};

// Throws for what cannot give finite float32 millivolts.
inline LeadSource calibrate(const SignalSpec& spec, double millivolts_per_unit,
                            double adc_units_per_mv) {
  LeadSource source;
  const bool by_header = adc_units_per_mv == 0.0;
  const std::int64_t baseline = by_header ? spec.baseline : spec.adc_zero;
  source.millivolts_per_step = by_header ? millivolts_per_unit / spec.gain : 1 / adc_units_per_mv;
  source.baseline = static_cast<double>(baseline);
  if (by_header && std::isnan(millivolts_per_unit)) {
    throw RecordError(Status::kUnits, "the unit " + quote(spec.unit) + " of lead " +
                                          spec.description + " is not a voltage");
  }
  // 1e9 mV a step or a baseline no ADC has would overflow float32.
  if (!(std::abs(source.millivolts_per_step) < 1e9) || std::abs(baseline) > (1 << 30)) {
    throw RecordError(Status::kNonFinite, "lead " + spec.description + " has the absurd gain " +
                                              std::to_string(spec.gain) + " or baseline " +
                                              std::to_string(baseline));
  }
  return source;
}

// False if names are unknown to the tables: they are listed in `result`.
inline bool resolve_leads(const RawRecord& record, const NameTables& names, double adc_units_per_mv,
                          RecordResult& result, LeadSource (&sources)[kNumLeads]) {
  const Header& header = record.header;
  bool found[kNumLeads] = {};
  bool twice = false;
  std::size_t group = 0;
  for (std::size_t i = 0; i < header.signals.size(); ++i) {
    const SignalSpec& spec = header.signals[i];
    const auto index = static_cast<std::int64_t>(i);
    if (index >= record.groups[group].first + record.groups[group].width) ++group;
    const auto lead = names.lead_of.find(spec.description);
    if (lead == names.lead_of.end()) {
      result.unresolved.push_back("lead " + spec.description);
      continue;
    }
    if (lead->second < 0) continue;
    const auto unit = names.millivolts_per.find(spec.unit);
    if (unit == names.millivolts_per.end()) {
      result.unresolved.push_back("unit " + spec.unit);
      continue;
    }
    const auto l = static_cast<std::size_t>(lead->second);
    twice = twice || found[l];
    found[l] = true;
    sources[l] = calibrate(spec, unit->second, adc_units_per_mv);
    sources[l].group = group;
    sources[l].column = index - record.groups[group].first;
  }
  if (!result.unresolved.empty()) return false;
  if (twice) throw RecordError(Status::kLeads, "a lead occurs twice");
  for (bool present : found) {
    if (!present) throw RecordError(Status::kLeads, "a lead is absent");
  }
  return true;
}

// Marks where a lead has no sample; the resampler bridges it.
template <typename Sample>
void mark_missing(const std::vector<Sample>& samples, std::int64_t width, std::int64_t column,
                  std::int32_t missing_value, Mask& mask) {
  const auto value = static_cast<Sample>(missing_value);
  const std::size_t num_samples = samples.size() / static_cast<std::size_t>(width);
  for (std::size_t t = 0; t < num_samples; ++t) {
    if (samples[t * static_cast<std::size_t>(width) + static_cast<std::size_t>(column)] != value) {
      continue;
    }
    if (mask.empty()) mask.assign(num_samples, 0);
    mask[t] = 1;
  }
}

// ADC units -> millivolts, (num_samples, 12) with lane l = the lead order[l].
inline void to_millivolts(const RawRecord& record, const LeadSource (&sources)[kNumLeads],
                          Resampler<kNumLeads>& resampler, float* output, int (&order)[kNumLeads]) {
  bool one_block = record.groups[sources[0].group].width == kNumLeads;
  for (const LeadSource& source : sources) {
    one_block = one_block && source.group == sources[0].group;
  }
  double step[kNumLeads];
  double baseline[kNumLeads];
  for (int l = 0; l < kNumLeads; ++l) {
    // A file of exactly the twelve is converted in its own order, in whole vectors; the order of
    // the leads is mended when the result is written.
    const auto lane = one_block ? static_cast<std::size_t>(sources[l].column) : std::size_t(l);
    order[lane] = l;
    step[lane] = sources[l].millivolts_per_step;
    baseline[lane] = sources[l].baseline;
  }
  const std::int64_t num_samples = record.num_samples;
  if (one_block) {
    record.samples[sources[0].group].visit([&](const auto& samples) {
      scale_frames(samples.data(), num_samples, baseline, step, output);
    });
  } else {
    for (int l = 0; l < kNumLeads; ++l) {
      const std::int64_t width = record.groups[sources[l].group].width;
      record.samples[sources[l].group].visit([&](const auto& samples) {
        const auto* column = samples.data() + sources[l].column;
        for (std::int64_t t = 0; t < num_samples; ++t) {
          output[t * kNumLeads + l] =
              static_cast<float>((static_cast<double>(column[t * width]) - baseline[l]) * step[l]);
        }
      });
    }
  }
  std::vector<bool> gaps;  // by group: most have none, and one fast look tells
  for (std::size_t g = 0; g < record.groups.size(); ++g) {
    const Format& format = *record.groups[g].format;
    record.samples[g].visit([&](const auto& samples) {
      gaps.push_back(
          format.has_missing &&
          contains(samples.data(), static_cast<std::int64_t>(samples.size()), format.missing));
    });
  }
  for (int lane = 0; lane < kNumLeads; ++lane) {
    const LeadSource& source = sources[order[lane]];
    if (!gaps[source.group]) continue;
    const Group& group = record.groups[source.group];
    record.samples[source.group].visit([&](const auto& samples) {
      mark_missing(samples, group.width, source.column, group.format->missing,
                   resampler.missing[lane]);
    });
  }
}

// Where a batch goes wrong or ends early: what stands for "no sample".
inline void fill_missing(float* out, std::int64_t count, NanPolicy policy) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::fill(out, out + count, policy == NanPolicy::kZero ? 0.0f : kNan);
}

inline void fill_missing(std::int16_t* out, std::int64_t count, NanPolicy policy) {
  std::fill(out, out + count, policy == NanPolicy::kZero ? std::int16_t{0} : kMissingInt16);
}

// (num_outputs, 12) -> (12, length), leads in their standard order.
inline void write_leads(const float* x, std::int64_t num_outputs, const int (&order)[kNumLeads],
                        float* out, std::int64_t length, bool&) {
  float* rows[kNumLeads];
  for (int lane = 0; lane < kNumLeads; ++lane) rows[lane] = out + order[lane] * length;
  transpose_frames(x, num_outputs, rows);
}

inline void write_leads(const float* x, std::int64_t num_outputs, const int (&order)[kNumLeads],
                        std::int16_t* out, std::int64_t length, bool& clipped) {
  constexpr std::int64_t kTile = 256;
  float scratch[kNumLeads * kTile];
  float* rows[kNumLeads];
  for (int lane = 0; lane < kNumLeads; ++lane) rows[lane] = scratch + lane * kTile;
  for (std::int64_t begin = 0; begin < num_outputs; begin += kTile) {
    const std::int64_t count = std::min(kTile, num_outputs - begin);
    transpose_frames(x + begin * kNumLeads, count, rows);
    for (int lane = 0; lane < kNumLeads; ++lane) {
      std::int16_t* target = out + order[lane] * length + begin;
      clipped = to_microvolts(rows[lane], count, kMissingInt16, target) || clipped;
    }
  }
}

// False if a disk had to be waited for.
template <typename Sample>
bool read_one(const std::string& stem, const NameTables& names, const BatchOptions& options,
              Reader& reader, Resampler<kNumLeads>& resampler, Sample* out, std::int64_t length,
              RecordResult& result) {
  reader.open(stem);
  for (const SignalSpec& spec : reader.record.header.signals) {
    if (!result.source_leads.empty()) result.source_leads += '\n';
    result.source_leads += spec.description;
  }
  result.fs = reader.record.fs;
  LeadSource sources[kNumLeads];
  Ratio ratio;
  const std::string prefix = base_name(stem) + ".hea: ";
  try {
    if (!resolve_leads(reader.record, names, options.adc_units_per_mv, result, sources)) {
      result.status = Status::kUnresolved;
      return true;
    }
    ratio = make_ratio(result.fs, options.fs);
  } catch (const RecordError& error) {
    throw RecordError(error.status(), prefix + error.what());
  } catch (const std::invalid_argument& error) {
    throw RecordError(Status::kFormat, prefix + error.what());
  }
  const bool cached = reader.read(options.verify);
  result.num_samples = reader.record.num_samples;
  int order[kNumLeads];
  float* input = resampler.prepare(result.num_samples, ratio, *options.quality);
  to_millivolts(reader.record, sources, resampler, input, order);
  const std::int64_t num_outputs = std::min(length, output_length(result.num_samples, ratio));
  const float* outputs = resampler.run(num_outputs, options.nan_policy);
  write_leads(outputs, num_outputs, order, out, length, result.clipped);
  for (int l = 0; l < kNumLeads; ++l) {
    fill_missing(out + l * length + num_outputs, length - num_outputs, options.nan_policy);
  }
  return cached;
}

// Runs work(index, state, result) for 0 <= index < n, each thread with a state of its own; what it
// throws becomes the result's status. `next` counts the records begun.
template <typename MakeState, typename Work>
void run_threads(std::int64_t n, int num_threads, std::atomic<std::int64_t>& next,
                 std::vector<RecordResult>& results, const MakeState& make_state,
                 const Work& work) {
  const auto loop = [&] {
    auto state = make_state();
    for (std::int64_t i = next++; i < n; i = next++) {
      RecordResult& result = results[static_cast<std::size_t>(i)];
      try {
        work(i, state, result);
      } catch (const RecordError& error) {
        result.status = error.status();
        result.error = error.what();
      } catch (const std::exception& error) {  // out of memory, above all
        result.status = Status::kIo;
        result.error = error.what();
      }
    }
  };
  std::vector<std::thread> threads;
  const std::int64_t wanted = std::min<std::int64_t>(num_threads, n) - 1;
  for (std::int64_t i = 0; i < wanted; ++i) {
    try {
      threads.emplace_back(loop);
    } catch (const std::system_error&) {
      break;  // no more threads to be had: those that run do the work
    }
  }
  loop();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace detail

// Rate and length of each record, from headers and file sizes alone.
inline std::vector<RecordResult> probe_records(const std::vector<std::string>& stems, bool strict,
                                               int num_threads) {
  std::vector<RecordResult> results(stems.size());
  std::atomic<std::int64_t> next{0};
  detail::run_threads(
      static_cast<std::int64_t>(stems.size()), num_threads, next, results,
      [&] { return Reader(strict); },
      [&](std::int64_t i, Reader& reader, RecordResult& result) {
        reader.open(stems[static_cast<std::size_t>(i)]);
        reader.measure();
        result.fs = reader.record.fs;
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
  detail::run_threads(
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
          detail::fill_missing(out, kNumLeads * output.length, options.nan_policy);
          throw;
        }
        read_ahead.advance();
      });
  return results;
}

}  // namespace esi
