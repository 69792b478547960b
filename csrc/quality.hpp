// What is wrong with a record's signals: leads that are flat, missing, clipped or out of range,
// that contradict each other or look exchanged, and levels of the mains and of the baseline.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "quality_limbs.hpp"
#include "quality_plan.hpp"
#include "quality_reversals.hpp"
#include "quality_segments.hpp"
#include "threads.hpp"

namespace esi {

// A lead that stays within 10 uV over the whole record carries no heartbeat.
inline constexpr float kFlatRange = 0.01f;
// A resting ECG never reaches 20 mV.
inline constexpr float kOutOfRange = 20.0f;
// A saturated ADC repeats its limit; the top of a T wave, at 5 uV a step, for up to 26 ms.
inline constexpr double kClippedSeconds = 0.03;
inline constexpr std::int64_t kClippedSamples = 5;  // at least, at low rates
inline constexpr float kSaturation = 0.5f;   // mV from the baseline; closer, it is a quiet stretch
inline constexpr double kHeldSeconds = 0.2;  // at either end; shorter, it fills the record up
inline constexpr float kSame = 1e-4f;  // mV; the mean of equal samples is theirs but for rounding
// Beyond these an analysing electrocardiograph's measurements are not known to hold: it is tested
// with mains of 50 uV peak to peak and a baseline of 1 mV peak to peak at 0.3 Hz (IEC 60601-2-51).
inline constexpr double kPeakToPeak = 2.8284271247461903;  // of a sine, over its RMS
inline constexpr double kMainsLevel = 50.0 / kPeakToPeak;  // uV RMS
inline constexpr double kWanderLevel = 1000.0 / kPeakToPeak;
inline constexpr double kWanderHz = 0.5;
inline constexpr double kWanderSeconds = 4.0;  // a shorter record does not show what is below

using LeadLevels = std::vector<std::pair<int, double>>;

// Leads by number; a vector is empty where nothing is wrong.
struct QualityFindings {
  std::vector<int> flat;
  LeadLevels missing;  // share of the samples
  std::vector<int> clipped;
  std::vector<int> out_of_range;
  LimbFindings limbs;
  Reversals reversals;
  LeadLevels mains;  // uV RMS
  LeadLevels wander;

  bool any() const {
    return !flat.empty() || !missing.empty() || !clipped.empty() || !out_of_range.empty() ||
           !limbs.equations.empty() || reversals.limbs || reversals.chest || !mains.empty() ||
           !wander.empty();
  }
};

// One thread's: its memory is used again from record to record.
class QualityAssessor {
 public:
  explicit QualityAssessor(std::shared_ptr<const SegmentPlan> plan, std::int64_t num_samples)
      : plan_(std::move(plan)), num_samples_(num_samples) {}

  // signal: (12, num_samples), float millivolt with NaN, or int16 microvolt with -32768.
  template <typename Sample>
  QualityFindings assess(const Sample* signal) {
    segments_.run(signal, num_samples_, *plan_);
    std::fill(missing_, missing_ + kNumLeads, 0.0);
    std::fill(absurd_, absurd_ + kNumLeads, false);
    const bool* ordinary = segments_.is_ordinary;
    if (std::find(ordinary, ordinary + kNumLeads, false) == ordinary + kNumLeads) {
      has_gaps_ = false;
      return judge(signal);
    }
    bridge_gaps(signal);
    has_gaps_ = true;
    segments_.run(bridged_.data(), num_samples_, *plan_);
    return judge(bridged_.data());
  }

 private:
  // Straight lines across the gaps, and 0 in a lead without samples.
  template <typename Sample>
  void bridge_gaps(const Sample* signal) {
    const std::int64_t count = num_samples_;
    bridged_.resize(static_cast<std::size_t>(kNumLeads * count));
    gaps_.assign(bridged_.size(), 0);
    for (int lead = 0; lead < kNumLeads; ++lead) {
      float* out = bridged_.data() + lead * count;
      std::uint8_t* gap = gaps_.data() + lead * count;
      std::int64_t num_missing = 0;
      std::int64_t before = -1;  // the last sample so far
      for (std::int64_t t = 0; t < count; ++t) {
        const Sample sample = signal[lead * count + t];
        const float value = detail::to_millivolt(sample);
        const bool is_absurd = std::abs(value) > kAbsurd;
        if (detail::is_missing(sample) || is_absurd) {
          num_missing += is_absurd ? 0 : 1;
          absurd_[lead] = absurd_[lead] || is_absurd;
          gap[t] = 1;
          continue;
        }
        out[t] = value;
        const double from = before < 0 ? value : out[before];
        const double slope = (value - from) / static_cast<double>(t - before);
        for (std::int64_t i = before + 1; i < t; ++i) {
          out[i] = static_cast<float>(slope * static_cast<double>(i - before) + from);
        }
        before = t;
      }
      std::fill(out + before + 1, out + count, before < 0 ? 0.0f : out[before]);
      missing_[lead] = static_cast<double>(num_missing) / static_cast<double>(count);
    }
  }

  // signal: without gaps.
  template <typename Sample>
  QualityFindings judge(const Sample* signal) {
    QualityFindings found;
    bool flat[kNumLeads];
    bool in_range[kNumLeads];
    bool sound[kNumLeads];
    for (int lead = 0; lead < kNumLeads; ++lead) {
      const float low = segments_.low[lead];
      const float high = segments_.high[lead];
      flat[lead] = !absurd_[lead] && high - low < kFlatRange;
      if (flat[lead]) found.flat.push_back(lead);
      if (missing_[lead] > 0) found.missing.emplace_back(lead, missing_[lead]);
      in_range[lead] = !absurd_[lead] && high <= kOutOfRange && low >= -kOutOfRange;
      if (!in_range[lead]) found.out_of_range.push_back(lead);
      const bool clipped =
          in_range[lead] && !flat[lead] && is_clipped(signal + lead * num_samples_, lead);
      if (clipped) found.clipped.push_back(lead);
      in_range[lead] = in_range[lead] && missing_[lead] < 0.5;
      sound[lead] = in_range[lead] && !clipped;
    }
    bool limbs_agree = std::find(sound, sound + kNumLimbs, false) == sound + kNumLimbs;
    if (limbs_agree) {
      found.limbs = limbs(flat);
      limbs_agree = found.limbs.equations.empty();
    }
    const float* independent[kNumIndependent];
    bool usable[kNumIndependent];
    for (int i = 0; i < kNumIndependent; ++i) {
      const int lead = kIndependent[i];
      independent[i] = segments_.blocks(lead);
      usable[i] = sound[lead] && !flat[lead];
    }
    found.reversals = reversal_finder_.find(independent, plan_->num_blocks, plan_->block_rate,
                                            usable, limbs_agree);
    double wander[kNumLeads];
    wander_levels(wander);
    for (int lead = 0; lead < kNumLeads; ++lead) {
      if (!in_range[lead] || flat[lead]) continue;
      const double mains = mains_level(signal + lead * num_samples_, lead);
      if (mains > kMainsLevel) found.mains.emplace_back(lead, mains);
      if (wander[lead] > kWanderLevel) found.wander.emplace_back(lead, wander[lead]);
    }
    return found;
  }

  // Whether a lead rests at an extreme of its own.
  template <typename Sample>
  bool is_clipped(const Sample* row, int lead) const {
    if (plan_->num_blocks == 0) return false;
    // Such a run holds a whole block, or reaches into what follows the last one, which spares most
    // leads the scan.
    const float low = segments_.low[lead];
    const float high = segments_.high[lead];
    return ((segments_.block_high[lead] > high - kSame || ends_with(row, high)) &&
            rests_at(row, lead, high)) ||
           ((segments_.block_low[lead] < low + kSame || ends_with(row, low)) &&
            rests_at(row, lead, low));
  }

  // Whether a value occurs behind the last whole segment.
  template <typename Sample>
  bool ends_with(const Sample* row, float value) const {
    return std::any_of(row + plan_->num_blocks * plan_->block, row + num_samples_,
                       [&](Sample x) { return detail::to_millivolt(x) == value; });
  }

  template <typename Sample>
  bool rests_at(const Sample* row, int lead, float extreme) const {
    const float* blocks = segments_.blocks(lead);
    const float baseline = detail::median(std::vector<float>(blocks, blocks + plan_->num_blocks));
    if (!(std::abs(extreme - baseline) > kSaturation)) return false;
    const std::int64_t enough =
        std::max(kClippedSamples, round_to_even(kClippedSeconds * plan_->fs));
    const std::int64_t held = std::max(enough, round_to_even(kHeldSeconds * plan_->fs));
    std::int64_t begin = 0;  // of the run
    for (std::int64_t t = 0; t <= num_samples_; ++t) {
      if (t < num_samples_ && detail::to_millivolt(row[t]) == extreme) continue;
      const bool touches_end = begin == 0 || t == num_samples_;
      if (t - begin >= (touches_end ? held : enough)) return true;
      begin = t + 1;
    }
    return false;
  }

  LimbFindings limbs(const bool* flat) {
    const float* rows[kNumLimbs];
    for (int lead = 0; lead < kNumLimbs; ++lead) rows[lead] = segments_.blocks(lead);
    const auto limb_gaps = gaps_.begin() + kNumLimbs * num_samples_;
    if (has_gaps_ && std::find(gaps_.begin(), limb_gaps, 1) != limb_gaps) {
      return check_limbs(rows, keep_whole_blocks(rows), flat);
    }
    return check_limbs(rows, plan_->num_blocks, flat);
  }

  // Leaves out the blocks in which any limb lead misses a sample; returns how many are left.
  std::int64_t keep_whole_blocks(const float* (&rows)[kNumLimbs]) {
    whole_blocks_.clear();
    for (std::int64_t k = 0; k < plan_->num_blocks; ++k) {
      bool is_whole = true;
      for (int lead = 0; lead < kNumLimbs; ++lead) {
        const auto begin = gaps_.begin() + lead * num_samples_ + k * plan_->block;
        is_whole = is_whole && std::find(begin, begin + plan_->block, 1) == begin + plan_->block;
      }
      if (is_whole) whole_blocks_.push_back(k);
    }
    const auto count = static_cast<std::int64_t>(whole_blocks_.size());
    kept_.resize(static_cast<std::size_t>(kNumLimbs * count));
    for (int lead = 0; lead < kNumLimbs; ++lead) {
      float* kept = kept_.data() + lead * count;
      for (std::int64_t i = 0; i < count; ++i) {
        kept[i] = rows[lead][whole_blocks_[static_cast<std::size_t>(i)]];
      }
      rows[lead] = kept;
    }
    return count;
  }

  // Level of the mains, uV RMS; 0 where it cannot exceed the threshold.
  //
  // The level is the power at the mains frequency less that beside it, so that muscle noise and QRS
  // complexes do not count; the lower quartile over the segments, so that it lasts.
  template <typename Sample>
  double mains_level(const Sample* row, int lead) const {
    double level = 0.0;
    const std::int64_t num_segments = plan_->num_segments;
    const auto threshold = static_cast<float>(kMainsLevel * kMainsLevel * 1e-6);
    for (int mains = 0; mains < kNumMains; ++mains) {
      if (!plan_->has_mains[mains]) continue;
      const float* power = segments_.power(mains) + lead;
      std::int64_t num_quiet = 0;
      for (std::int64_t k = 0; k < num_segments; ++k) {
        num_quiet += power[k * kNumLeads] <= threshold;
      }
      if (num_quiet > num_segments / 4 || num_segments == 0) continue;
      std::vector<float> powers(static_cast<std::size_t>(num_segments));
      for (std::int64_t k = 0; k < num_segments; ++k) {
        powers[static_cast<std::size_t>(k)] = power[k * kNumLeads];
      }
      const double excess = lower_quartile(powers) - power_beside(row, mains);
      level = std::max(level, 1000 * std::sqrt(std::max(excess, 0.0)));
    }
    return level;
  }

  template <typename Sample>
  double power_beside(const Sample* row, int mains) const {
    const std::int64_t half = plan_->length / 2;
    std::vector<float> powers[2];
    for (std::int64_t k = 0; k < plan_->num_segments; ++k) {
      const Sample* segment = row + k * plan_->length;
      const float* weights = plan_->beside[mains].data();
      float sums[4] = {};
      for (std::int64_t t = 0; t < half; ++t, weights += 4) {
        const float left = detail::to_millivolt(segment[t]);
        const float right = detail::to_millivolt(segment[plan_->length - 1 - t]);
        const float parts[2] = {left + right, left - right};
        for (int i = 0; i < 4; ++i) sums[i] += weights[i] * parts[i % 2];
      }
      powers[0].push_back(sums[0] * sums[0] + sums[1] * sums[1]);
      powers[1].push_back(sums[2] * sums[2] + sums[3] * sums[3]);
    }
    return (lower_quartile(powers[0]) + lower_quartile(powers[1])) / 2;
  }

  static double lower_quartile(std::vector<float>& values) {
    const auto quartile = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 4);
    std::nth_element(values.begin(), quartile, values.end());
    return *quartile;
  }

  // RMS of the record's harmonics below 0.5 Hz, uV; 0 for less than 4 s.
  void wander_levels(double (&levels)[kNumLeads]) const {
    std::fill(levels, levels + kNumLeads, 0.0);
    const double seconds = static_cast<double>(plan_->num_blocks) / plan_->block_rate;
    if (seconds < kWanderSeconds) return;
    const auto num_segments = static_cast<std::size_t>(plan_->num_segments);
    const auto end = static_cast<std::size_t>(std::ceil(kWanderHz * seconds));
    double powers[kNumLeads] = {};
    for_this_cpu([&](auto) {
      const double* turn_cos = plan_->turn_cos.data();
      const double* turn_sin = plan_->turn_sin.data();
      for (std::size_t harmonic = 1; harmonic < end; ++harmonic) {
        double even[kNumLeads] = {};
        double odd[kNumLeads] = {};
        const float* means = segments_.means();
        const std::size_t step = harmonic % num_segments;
        std::size_t phase = 0;
        for (std::size_t k = 0; k < num_segments; ++k, means += kNumLeads) {
          const double c = turn_cos[phase];
          const double s = turn_sin[phase];
          for (int i = 0; i < kNumLeads; ++i) {
            even[i] += c * means[i];
            odd[i] += s * means[i];
          }
          phase += step;
          if (phase >= num_segments) phase -= num_segments;
        }
        for (int i = 0; i < kNumLeads; ++i) powers[i] += even[i] * even[i] + odd[i] * odd[i];
      }
    });
    for (int i = 0; i < kNumLeads; ++i) {
      levels[i] = 1000 * std::sqrt(2 * powers[i]) / static_cast<double>(num_segments);
    }
  }

  std::shared_ptr<const SegmentPlan> plan_;
  std::int64_t num_samples_;
  Segments segments_;
  ReversalFinder reversal_finder_;
  double missing_[kNumLeads];  // share of the samples
  bool absurd_[kNumLeads];     // whether any sample is no voltage
  bool has_gaps_ = false;
  std::vector<float> bridged_;      // (12, num_samples) mV, where there are gaps
  std::vector<std::uint8_t> gaps_;  // the same, 1 where a sample is missing or no voltage
  std::vector<std::int64_t> whole_blocks_;
  std::vector<float> kept_;
};

// What is wrong with each of n records, (n, 12, num_samples); nothing where they are clean.
template <typename Sample>
std::vector<std::optional<QualityFindings>> assess_records(const Sample* signal, std::int64_t n,
                                                           std::int64_t num_samples, double fs,
                                                           int num_threads) {
  std::vector<std::optional<QualityFindings>> results(static_cast<std::size_t>(n));
  const std::shared_ptr<const SegmentPlan> plan = segment_plan(fs, num_samples);
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  run_on_threads(n, num_threads, [&] {
    try {
      QualityAssessor assessor(plan, num_samples);
      for (std::int64_t i = next++; i < n; i = next++) {
        QualityFindings found = assessor.assess(signal + i * kNumLeads * num_samples);
        if (found.any()) results[static_cast<std::size_t>(i)] = std::move(found);
      }
    } catch (const std::exception&) {  // out of memory
      const std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
  return results;
}

}  // namespace esi
