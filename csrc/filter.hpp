// Rational ratios, and the Kaiser-windowed polyphase filters that change the rate by them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace esi {

// Output rate / input rate = up / down, in lowest terms.
struct Ratio {
  std::int64_t up = 1;
  std::int64_t down = 1;
  bool operator==(const Ratio& other) const { return up == other.up && down == other.down; }
};

inline constexpr std::int64_t kMaxRatioTerm = 1 << 16;
inline constexpr double kMaxRateChange = 256.0;

// The simplest fraction within 1e-9 of fs_out / fs_in (10 ns in 10 s), by continued fractions.
inline Ratio make_ratio(double fs_in, double fs_out) {
  if (!(std::isfinite(fs_in) && std::isfinite(fs_out) && fs_in > 0.0 && fs_out > 0.0)) {
    throw std::invalid_argument("sampling frequencies must be positive and finite, got " +
                                std::to_string(fs_in) + " and " + std::to_string(fs_out) + " Hz");
  }
  const double target = fs_out / fs_in;
  if (target > kMaxRateChange || target < 1.0 / kMaxRateChange) {
    throw std::invalid_argument("cannot resample from " + std::to_string(fs_in) + " to " +
                                std::to_string(fs_out) + " Hz: more than a factor of 256");
  }
  std::int64_t up = 1, down = 0, previous_up = 0, previous_down = 1;
  double rest = target;
  while (true) {
    const double whole = std::floor(rest);
    if (whole > static_cast<double>(kMaxRatioTerm)) break;
    const auto term = static_cast<std::int64_t>(whole);
    std::tie(up, previous_up) = std::make_pair(term * up + previous_up, up);
    std::tie(down, previous_down) = std::make_pair(term * down + previous_down, down);
    if (up > kMaxRatioTerm || down > kMaxRatioTerm) break;
    const double value = static_cast<double>(up) / static_cast<double>(down);
    if (up > 0 && std::abs(value - target) <= 1e-9 * target) return {up, down};
    rest = 1.0 / (rest - whole);
  }
  throw std::invalid_argument("cannot resample from " + std::to_string(fs_in) + " to " +
                              std::to_string(fs_out) +
                              " Hz: their ratio is no fraction of numbers up to 65536");
}

// ceil(num_samples * up / down).
inline std::int64_t output_length(std::int64_t num_samples, Ratio ratio) {
  const std::int64_t whole = num_samples / ratio.down;
  const std::int64_t rest = num_samples % ratio.down;
  return whole * ratio.up + (rest * ratio.up + ratio.down - 1) / ratio.down;
}

enum class Extension { kZero, kOdd };

// How a filter is designed and how the signal goes on beyond its ends.
struct Quality {
  const char* name;
  double cutoff;  // share of the lower of the two Nyquist frequencies
  double kaiser_beta;
  std::int64_t zero_crossings;  // half the filter's length, in samples of the lower rate
  bool unit_phases;             // every phase sums to one: a constant stays that constant
  Extension extension;
};

inline const Quality& quality_by_name(const std::string& name) {
  // "hq": the fewest taps with 100 dB from 1.2 Nyquist, 50 dB at 1.05 and 105 dB of signal to noise
  // at every ratio, with some room (benchmarks/resample.csv). "scipy": resample_poly's default.
  static constexpr Quality kHq{"hq", 0.895, 10.5, 17, true, Extension::kOdd};
  static constexpr Quality kScipy{"scipy", 1.0, 5.0, 10, false, Extension::kZero};
  if (name == kHq.name) return kHq;
  if (name == kScipy.name) return kScipy;
  throw std::invalid_argument("quality '" + name + "' is not one of 'hq', 'scipy'");
}

// A filter split by output phase: phase p weighs the inputs base - left .. base + right.
struct FilterBank {
  Ratio ratio;
  std::int64_t left = 0;
  std::int64_t right = 0;
  std::int64_t num_taps = 0;  // left + 1 + right, an even number
  std::vector<float> taps;    // (up, num_taps)
};

namespace detail {

inline double bessel_i0(double x) {
  double sum = 1.0;
  double term = 1.0;
  for (int k = 1; term > 1e-18 * sum; ++k) {
    term *= (x / (2.0 * k)) * (x / (2.0 * k));
    sum += term;
  }
  return sum;
}

inline double sinc(double x) {
  constexpr double kPi = 3.14159265358979323846;
  return x == 0.0 ? 1.0 : std::sin(kPi * x) / (kPi * x);
}

inline FilterBank design(Ratio ratio, const Quality& quality) {
  const std::int64_t widest = std::max(ratio.up, ratio.down);
  const std::int64_t half = quality.zero_crossings * widest;
  // The prototype at the rate fs_in * up, centre first; it is symmetric.
  std::vector<double> prototype(static_cast<std::size_t>(half) + 1);
  const double cutoff = quality.cutoff / static_cast<double>(widest);
  const double window_at_0 = bessel_i0(quality.kaiser_beta);
  double sum = 0.0;
  for (std::int64_t n = 0; n <= half; ++n) {
    const double position = static_cast<double>(n) / static_cast<double>(half);
    const double window =
        bessel_i0(quality.kaiser_beta * std::sqrt(std::max(0.0, 1.0 - position * position))) /
        window_at_0;
    const double value = sinc(cutoff * static_cast<double>(n)) * window;
    prototype[static_cast<std::size_t>(n)] = value;
    sum += n == 0 ? value : 2.0 * value;
  }

  FilterBank bank;
  bank.ratio = ratio;
  bank.left = half / ratio.up;
  bank.right = (half + ratio.up - 1) / ratio.up;
  bank.right += (bank.left + 1 + bank.right) % 2;  // the kernel takes taps in pairs
  bank.num_taps = bank.left + 1 + bank.right;
  bank.taps.resize(static_cast<std::size_t>(ratio.up * bank.num_taps));
  std::vector<double> phase_taps(static_cast<std::size_t>(bank.num_taps));
  for (std::int64_t phase = 0; phase < ratio.up; ++phase) {
    double phase_sum = 0.0;
    for (std::int64_t k = 0; k < bank.num_taps; ++k) {
      const std::int64_t n = std::abs(phase - (k - bank.left) * ratio.up);
      const double value = n <= half ? prototype[static_cast<std::size_t>(n)] : 0.0;
      phase_taps[static_cast<std::size_t>(k)] = value;
      phase_sum += value;
    }
    const double scale =
        quality.unit_phases ? 1.0 / phase_sum : static_cast<double>(ratio.up) / sum;
    float* taps = bank.taps.data() + phase * bank.num_taps;
    double rounded_sum = 0.0;
    std::int64_t largest = 0;
    for (std::int64_t k = 0; k < bank.num_taps; ++k) {
      taps[k] = static_cast<float>(phase_taps[static_cast<std::size_t>(k)] * scale);
      rounded_sum += static_cast<double>(taps[k]);
      if (taps[k] > taps[largest]) largest = k;
    }
    if (quality.unit_phases) {
      // Rounding to float32 must not move the gain at 0 Hz either.
      taps[largest] = static_cast<float>(static_cast<double>(taps[largest]) + 1.0 - rounded_sum);
    }
  }
  return bank;
}

}  // namespace detail

// The filter for a ratio, designed once. Safe to call from several threads.
inline std::shared_ptr<const FilterBank> filter_bank(Ratio ratio, const Quality& quality) {
  static std::mutex mutex;
  static std::map<std::tuple<std::int64_t, std::int64_t, std::string>,
                  std::shared_ptr<const FilterBank>>
      cache;
  static std::size_t cached_taps = 0;
  constexpr std::size_t kMostTaps = 1 << 22;  // headers choose the ratios: memory stays bounded
  const auto key = std::make_tuple(ratio.up, ratio.down, std::string(quality.name));
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = cache.find(key);
    if (found != cache.end()) return found->second;
  }
  auto bank = std::make_shared<const FilterBank>(detail::design(ratio, quality));
  const std::lock_guard<std::mutex> lock(mutex);
  if (cached_taps + bank->taps.size() > kMostTaps) {
    cache.clear();
    cached_taps = 0;
  }
  if (cache.emplace(key, bank).second) cached_taps += bank->taps.size();
  return bank;
}

}  // namespace esi
