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

#include "record.hpp"
#include "resample.hpp"

namespace esi {

inline constexpr int kNumLeads = 12;
inline constexpr std::int16_t kMissingInt16 = -32768;

// What the caller knows about names: the core holds no lead names and no units.
struct NameTables {
  std::unordered_map<std::string, int> lead_of;            // -1: none of the twelve
  std::unordered_map<std::string, double> millivolts_per;  // NaN: not a voltage
};

struct BatchOptions {
  double fs = 0.0;
  const Quality* quality = nullptr;
  bool verify = true;
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
  std::int32_t baseline = 0;
};

// False if names are unknown to the tables: they are listed in `result`.
inline bool resolve_leads(const RawRecord& record, const NameTables& names, RecordResult& result,
                          LeadSource (&sources)[kNumLeads]) {
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
    const double step = unit->second / spec.gain;
    if (std::isnan(unit->second)) {
      throw RecordError(Status::kUnits, "the unit " + quote(spec.unit) + " of lead " +
                                            spec.description + " is not a voltage");
    }
    // 1e9 mV a step or a baseline no ADC has would overflow float32 and int32 further on.
    if (!(std::abs(step) < 1e9) || std::abs(spec.baseline) > (1 << 30)) {
      throw RecordError(Status::kFormat, "lead " + spec.description + " has the absurd gain " +
                                             std::to_string(spec.gain) + " or baseline " +
                                             std::to_string(spec.baseline));
    }
    const auto l = static_cast<std::size_t>(lead->second);
    twice = twice || found[l];
    found[l] = true;
    sources[l] = {group, index - record.groups[group].first, step,
                  static_cast<std::int32_t>(spec.baseline)};
  }
  if (!result.unresolved.empty()) return false;
  if (twice) throw RecordError(Status::kLeads, "a lead occurs twice");
  for (bool present : found) {
    if (!present) throw RecordError(Status::kLeads, "a lead is absent");
  }
  return true;
}

// ADC units -> millivolts, (num_samples, 12) with lane l = the lead order[l]. In double: float32
// would round twice and leave the last bit uncertain.
inline void to_millivolts(const RawRecord& record, const LeadSource (&sources)[kNumLeads],
                          Resampler<kNumLeads>& resampler, float* output, int (&order)[kNumLeads]) {
  bool one_block = record.groups[sources[0].group].width == kNumLeads;
  for (const LeadSource& source : sources) {
    one_block = one_block && source.group == sources[0].group;
  }
  double step[kNumLeads];
  std::int32_t baseline[kNumLeads];
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
    const std::int16_t* samples = record.samples[sources[0].group].data();
    for (std::int64_t t = 0; t < num_samples; ++t) {
      for (int lane = 0; lane < kNumLeads; ++lane) {
        output[t * kNumLeads + lane] =
            static_cast<float>((samples[t * kNumLeads + lane] - baseline[lane]) * step[lane]);
      }
    }
  } else {
    for (int l = 0; l < kNumLeads; ++l) {
      const std::int64_t width = record.groups[sources[l].group].width;
      const std::int16_t* samples = record.samples[sources[l].group].data() + sources[l].column;
      for (std::int64_t t = 0; t < num_samples; ++t) {
        output[t * kNumLeads + l] =
            static_cast<float>((samples[t * width] - baseline[l]) * step[l]);
      }
    }
  }
  for (int lane = 0; lane < kNumLeads; ++lane) {
    const LeadSource& source = sources[order[lane]];
    const Group& group = record.groups[source.group];
    const auto missing_value = static_cast<std::int16_t>(group.format->missing);
    const std::vector<std::int16_t>& samples = record.samples[source.group];
    const bool first_of_block = !one_block || lane == 0;
    if (first_of_block &&
        !contains(samples.data(), static_cast<std::int64_t>(samples.size()), missing_value)) {
      if (one_block) return;
      continue;
    }
    Mask& mask = resampler.missing[lane];
    for (std::int64_t t = 0; t < num_samples; ++t) {
      if (samples[static_cast<std::size_t>(t * group.width + source.column)] != missing_value) {
        continue;
      }
      if (mask.empty()) mask.assign(static_cast<std::size_t>(num_samples), 0);
      mask[static_cast<std::size_t>(t)] = 1;
      output[t * kNumLeads + lane] = std::numeric_limits<float>::quiet_NaN();
    }
  }
}

// A run of samples as they are stored: millivolt as it is, microvolt rounded and saturated.
inline const float* as_stored(const float* millivolts, std::int64_t, float*, bool&) {
  return millivolts;
}

inline const std::int16_t* as_stored(const float* millivolts, std::int64_t count,
                                     std::int16_t* scratch, bool& clipped) {
  constexpr float kLargest = 32767.0f;
  // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, in vector registers.
  constexpr float kRounder = 12582912.0f;
  int beyond = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float microvolt = millivolts[i] * 1000.0f;
    const bool missing = microvolt != microvolt;
    beyond |= std::abs(microvolt) > kLargest + 0.5f;
    float value = microvolt < kLargest ? microvolt : kLargest;
    value = value > -kLargest ? value : -kLargest;
    const auto rounded = static_cast<std::int32_t>((value + kRounder) - kRounder);
    scratch[i] = static_cast<std::int16_t>(missing ? kMissingInt16 : rounded);
  }
  clipped = clipped || beyond != 0;
  return scratch;
}

inline float missing_value(float) { return std::numeric_limits<float>::quiet_NaN(); }
inline std::int16_t missing_value(std::int16_t) { return kMissingInt16; }

// (num_outputs, 12) -> (12, length), leads in their standard order.
template <typename Sample>
void write_leads(const float* x, std::int64_t num_outputs, const int (&order)[kNumLeads],
                 Sample* out, std::int64_t length, bool& clipped) {
  constexpr std::int64_t kTile = 64;  // 64 frames are 3 KB: read once from memory, 12 times from L1
  Sample scratch[kTile * kNumLeads];
  for (std::int64_t begin = 0; begin < num_outputs; begin += kTile) {
    const std::int64_t count = std::min(kTile, num_outputs - begin);
    const Sample* tile = as_stored(x + begin * kNumLeads, count * kNumLeads, scratch, clipped);
    for (int lane = 0; lane < kNumLeads; ++lane) {
      Sample* row = out + order[lane] * length + begin;
      for (std::int64_t t = 0; t < count; ++t) row[t] = tile[t * kNumLeads + lane];
    }
  }
  for (int l = 0; l < kNumLeads; ++l) {
    std::fill(out + l * length + num_outputs, out + (l + 1) * length, missing_value(Sample{}));
  }
}

template <typename Sample>
void read_one(const std::string& stem, const NameTables& names, const BatchOptions& options,
              Reader& reader, Resampler<kNumLeads>& resampler, Sample* out, std::int64_t length,
              RecordResult& result) {
  reader.open(stem);
  for (const SignalSpec& spec : reader.record.header.signals) {
    if (!result.source_leads.empty()) result.source_leads += '\n';
    result.source_leads += spec.description;
  }
  result.fs = reader.record.header.fs;
  LeadSource sources[kNumLeads];
  Ratio ratio;
  const std::string prefix = base_name(stem) + ".hea: ";
  try {
    if (!resolve_leads(reader.record, names, result, sources)) {
      result.status = Status::kUnresolved;
      return;
    }
    ratio = make_ratio(result.fs, options.fs);
  } catch (const RecordError& error) {
    throw RecordError(error.status(), prefix + error.what());
  } catch (const std::invalid_argument& error) {
    throw RecordError(Status::kFormat, prefix + error.what());
  }
  reader.read(options.verify);
  result.num_samples = reader.record.num_samples;
  int order[kNumLeads];
  float* input = resampler.prepare(result.num_samples, ratio, *options.quality);
  to_millivolts(reader.record, sources, resampler, input, order);
  const std::int64_t num_outputs = std::min(length, output_length(result.num_samples, ratio));
  write_leads(resampler.run(num_outputs), num_outputs, order, out, length, result.clipped);
}

// Runs work(index, thread_state) for 0 <= index < n; what it throws becomes the result's status.
template <typename State, typename Work>
void run_threads(std::int64_t n, int num_threads, std::vector<RecordResult>& results,
                 const Work& work) {
  std::atomic<std::int64_t> next{0};
  const auto loop = [&] {
    State state;
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
inline std::vector<RecordResult> probe_records(const std::vector<std::string>& stems,
                                               int num_threads) {
  std::vector<RecordResult> results(stems.size());
  detail::run_threads<Reader>(static_cast<std::int64_t>(stems.size()), num_threads, results,
                              [&](std::int64_t i, Reader& reader, RecordResult& result) {
                                reader.probe(stems[static_cast<std::size_t>(i)]);
                                result.fs = reader.record.header.fs;
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
  detail::run_threads<State>(static_cast<std::int64_t>(stems.size()), options.num_threads, results,
                             [&](std::int64_t i, State& state, RecordResult& result) {
                               const auto index = static_cast<std::size_t>(i);
                               Sample* out = output.data + rows[index] * kNumLeads * output.length;
                               try {
                                 detail::read_one(stems[index], names, options, state.reader,
                                                  state.resampler, out, output.length, result);
                               } catch (...) {
                                 std::fill(out, out + kNumLeads * output.length,
                                           detail::missing_value(Sample{}));
                                 throw;
                               }
                             });
  return results;
}

}  // namespace esi
