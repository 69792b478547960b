// The twelve leads of a record: found by name, calibrated, and brought into their standard order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels.hpp"
#include "record.hpp"
#include "resample.hpp"

namespace esi {

// What the caller knows about names: the core holds no lead names and no units.
struct NameTables {
  std::unordered_map<std::string, int> lead_of;            // -1: none of the twelve
  std::unordered_map<std::string, double> millivolts_per;  // NaN: not a voltage
};

// Where a lead comes from, and what a step of it is worth.
struct LeadSource {
  int lead = 0;  // of the standard twelve
  std::size_t group = 0;
  std::int64_t column = 0;
  double step = 0.0;  // mV
  double baseline = 0.0;
};

// The twelve leads in the order of the file, a lane of the resampler each.
struct Lanes {
  LeadSource sources[kNumLeads];
  bool one_block = false;  // lane i is column i of a file of exactly the twelve
};

namespace detail {

// Throws for what cannot give finite float32 millivolts.
inline void calibrate(const SignalSpec& spec, double millivolts_per_unit, double adc_units_per_mv,
                      LeadSource& source) {
  const bool by_header = adc_units_per_mv == 0.0;
  const std::int64_t baseline = by_header ? spec.baseline : spec.adc_zero;
  source.step = by_header ? millivolts_per_unit / spec.gain : 1 / adc_units_per_mv;
  source.baseline = static_cast<double>(baseline);
  if (by_header && std::isnan(millivolts_per_unit)) {
    throw RecordError(Status::kUnits, "the unit " + quote(spec.unit) + " of lead " +
                                          spec.description + " is not a voltage");
  }
  // 1e9 mV a step or a baseline no ADC has would overflow float32.
  if (!(std::abs(source.step) < 1e9) || std::abs(baseline) > (1 << 30)) {
    throw RecordError(Status::kNonFinite, "lead " + spec.description + " has the absurd gain " +
                                              std::to_string(spec.gain) + " or baseline " +
                                              std::to_string(baseline));
  }
}

}  // namespace detail

// Finds the twelve leads. Names that the tables lack are listed ("lead NAME", "unit NAME"): then
// the lanes are of no use.
inline Lanes find_lanes(const RawRecord& record, const NameTables& names, double adc_units_per_mv,
                        std::vector<std::string>& unresolved) {
  Lanes lanes;
  bool found[kNumLeads] = {};
  int num_found = 0;
  std::size_t group = 0;
  for (std::size_t i = 0; i < record.header.signals.size(); ++i) {
    const SignalSpec& spec = record.header.signals[i];
    const auto index = static_cast<std::int64_t>(i);
    if (index >= record.groups[group].first + record.groups[group].width) ++group;
    const auto lead = names.lead_of.find(spec.description);
    if (lead == names.lead_of.end()) {
      unresolved.push_back("lead " + spec.description);
      continue;
    }
    if (lead->second < 0) continue;
    const auto unit = names.millivolts_per.find(spec.unit);
    if (unit == names.millivolts_per.end()) {
      unresolved.push_back("unit " + spec.unit);
      continue;
    }
    if (found[lead->second]) throw RecordError(Status::kLeads, "a lead occurs twice");
    found[lead->second] = true;
    LeadSource& source = lanes.sources[num_found++];
    source.lead = lead->second;
    source.group = group;
    source.column = index - record.groups[group].first;
    detail::calibrate(spec, unit->second, adc_units_per_mv, source);
  }
  if (unresolved.empty() && num_found < kNumLeads) {
    throw RecordError(Status::kLeads, "a lead is absent");
  }
  const std::size_t first_group = lanes.sources[0].group;
  lanes.one_block = record.groups[first_group].width == kNumLeads &&
                    lanes.sources[kNumLeads - 1].group == first_group;
  return lanes;
}

// Frames begin .. begin + count in millivolts, (count, 12).
inline void to_millivolts(const RawRecord& record, const Lanes& lanes, std::int64_t begin,
                          std::int64_t count, float* output) {
  if (lanes.one_block) {
    double step[kNumLeads];
    double baseline[kNumLeads];
    for (int lane = 0; lane < kNumLeads; ++lane) {
      step[lane] = lanes.sources[lane].step;
      baseline[lane] = lanes.sources[lane].baseline;
    }
    record.samples[lanes.sources[0].group].visit([&](const auto& samples) {
      scale_frames(samples.data() + begin * kNumLeads, count, baseline, step, output);
    });
    return;
  }
  for (int lane = 0; lane < kNumLeads; ++lane) {
    const LeadSource& source = lanes.sources[lane];
    const std::int64_t width = record.groups[source.group].width;
    record.samples[source.group].visit([&](const auto& samples) {
      const auto* column = samples.data() + begin * width + source.column;
      for (std::int64_t t = 0; t < count; ++t) {
        output[t * kNumLeads + lane] = static_cast<float>(
            (static_cast<double>(column[t * width]) - source.baseline) * source.step);
      }
    });
  }
}

// Flags the missing samples of each lane, in masks that stay empty where there are none. True if
// there are any.
inline bool mark_gaps(const RawRecord& record, const Lanes& lanes, Mask (&masks)[kNumLeads]) {
  constexpr std::int64_t kBlock = 1024;  // most blocks miss none, and one fast look tells
  bool any = false;
  for (Mask& mask : masks) mask.clear();
  for (std::size_t g = 0; g < record.groups.size(); ++g) {
    const Group& group = record.groups[g];
    if (!group.format->has_missing) continue;
    std::vector<Mask*> mask_of(static_cast<std::size_t>(group.width), nullptr);
    for (int lane = 0; lane < kNumLeads; ++lane) {
      const LeadSource& source = lanes.sources[lane];
      if (source.group == g) mask_of[static_cast<std::size_t>(source.column)] = &masks[lane];
    }
    record.samples[g].visit([&](const auto& samples) {
      const auto count = static_cast<std::int64_t>(samples.size());
      for (std::int64_t begin = 0; begin < count; begin += kBlock) {
        const std::int64_t end = std::min(count, begin + kBlock);
        if (!contains(samples.data() + begin, end - begin, group.format->missing)) continue;
        for (std::int64_t i = begin; i < end; ++i) {
          if (samples[static_cast<std::size_t>(i)] != group.format->missing) continue;
          Mask* mask = mask_of[static_cast<std::size_t>(i % group.width)];
          if (!mask) continue;
          any = true;
          if (mask->empty()) mask->assign(static_cast<std::size_t>(record.num_samples), 0);
          (*mask)[static_cast<std::size_t>(i / group.width)] = 1;
        }
      }
    });
  }
  return any;
}

// What stands for "no sample" in an output: where a record ends early or could not be read.
inline void fill_missing(float* out, std::int64_t count, NanPolicy policy) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::fill(out, out + count, policy == NanPolicy::kZero ? 0.0f : kNan);
}

inline void fill_missing(std::int16_t* out, std::int64_t count, NanPolicy policy) {
  std::fill(out, out + count, policy == NanPolicy::kZero ? std::int16_t{0} : kMissingInt16);
}

// (count, 12) millivolts -> (12, length) from column `begin` on, leads in their standard order.
inline void write_leads(const float* x, const Lanes& lanes, std::int64_t begin, std::int64_t count,
                        float* out, std::int64_t length, bool&) {
  float* rows[kNumLeads];
  for (int lane = 0; lane < kNumLeads; ++lane) {
    rows[lane] = out + lanes.sources[lane].lead * length + begin;
  }
  transpose_frames(x, count, rows);
}

// The same in microvolts; `clipped` is set if any was beyond 16 bits.
inline void write_leads(const float* x, const Lanes& lanes, std::int64_t begin, std::int64_t count,
                        std::int16_t* out, std::int64_t length, bool& clipped) {
  constexpr std::int64_t kTile = 256;
  float scratch[kNumLeads * kTile];
  float* rows[kNumLeads];
  for (int lane = 0; lane < kNumLeads; ++lane) rows[lane] = scratch + lane * kTile;
  for (std::int64_t t = 0; t < count; t += kTile) {
    const std::int64_t tile = std::min(kTile, count - t);
    transpose_frames(x + t * kNumLeads, tile, rows);
    for (int lane = 0; lane < kNumLeads; ++lane) {
      std::int16_t* target = out + lanes.sources[lane].lead * length + begin + t;
      clipped = to_microvolts(rows[lane], tile, kMissingInt16, target) || clipped;
    }
  }
}

}  // namespace esi
