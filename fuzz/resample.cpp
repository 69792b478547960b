// Fuzz target: the resampler, against a direct sum over its own filter.
//
// Input: 6 bytes (both rates, outputs' policy and quality, rows, instruction set), then the signal,
// one byte a sample, -128 missing.
#include "../csrc/resample.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include "check.hpp"

namespace {

using fuzz::check;

constexpr std::size_t kHead = 6;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Missing samples on the straight line between their neighbours, level beyond the outermost.
std::vector<double> bridged(const std::vector<float>& row) {
  std::vector<double> whole(row.begin(), row.end());
  const auto present = [](float value) { return std::isfinite(value); };
  for (std::size_t t = 0; t < row.size(); ++t) {
    if (present(row[t])) continue;
    const auto next =
        std::find_if(row.begin() + static_cast<std::ptrdiff_t>(t), row.end(), present);
    const auto last =
        std::find_if(row.rend() - static_cast<std::ptrdiff_t>(t), row.rend(), present);
    const bool has_next = next != row.end();
    const bool has_last = last != row.rend();
    const auto after = static_cast<double>(next - row.begin());
    const auto before = static_cast<double>(row.rend() - last - 1);
    if (has_next && has_last) {
      const double share = (static_cast<double>(t) - before) / (after - before);
      whole[t] = *last + (*next - *last) * share;
    } else {
      whole[t] = has_next ? *next : has_last ? *last : 0.0;
    }
  }
  return whole;
}

// The signal at any time: zero beyond its ends, or mirrored in its end points. Two mirrors make it
// repeat, a step higher each time.
double extended(const std::vector<double>& x, std::int64_t t, esi::Extension extension) {
  const auto last = static_cast<std::int64_t>(x.size()) - 1;
  if (t >= 0 && t <= last) return x[static_cast<std::size_t>(t)];
  if (extension == esi::Extension::kZero) return 0.0;
  if (last == 0) return x[0];
  const std::int64_t period = 2 * last;
  const std::int64_t repeat = (t >= 0 ? t : t - period + 1) / period;
  t -= repeat * period;
  const double within = t <= last ? x[static_cast<std::size_t>(t)]
                                  : 2.0 * x.back() - x[static_cast<std::size_t>(period - t)];
  return within + 2.0 * static_cast<double>(repeat) * (x.back() - x.front());
}

// The outputs that stand for a missing sample: their nearest input, or one they are nearest to.
std::vector<bool> missing_outputs(const std::vector<float>& row, std::int64_t num_outputs,
                                  esi::Ratio ratio) {
  const auto last = static_cast<std::int64_t>(row.size()) - 1;
  std::vector<bool> missing;
  for (std::int64_t j = 0; j < num_outputs; ++j) {
    const std::int64_t nearest = (2 * j * ratio.down + ratio.up) / (2 * ratio.up);
    missing.push_back(!std::isfinite(row[static_cast<std::size_t>(std::min(nearest, last))]));
  }
  for (std::int64_t t = 0; t <= last && ratio.up < ratio.down; ++t) {
    const std::int64_t nearest = (2 * t * ratio.up + ratio.down) / (2 * ratio.down);
    if (std::isfinite(row[static_cast<std::size_t>(t)])) continue;
    missing[static_cast<std::size_t>(std::min(nearest, num_outputs - 1))] = true;
  }
  return missing;
}

void check_row(const std::vector<float>& row, const float* outputs, std::int64_t num_outputs,
               esi::Ratio ratio, const esi::Quality& quality, esi::NanPolicy policy) {
  const std::vector<double> x = bridged(row);
  const bool has_samples =
      std::any_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); });
  const bool keeps_line = policy == esi::NanPolicy::kInterpolate && has_samples;
  const bool same_rate = ratio == esi::Ratio{};
  const auto bank = esi::filter_bank(ratio, quality);
  const std::vector<bool> missing = missing_outputs(row, num_outputs, ratio);
  // All at the ends, some between: the sums here are slow.
  const auto next = [&](std::int64_t j) {
    return j < 8 || j >= num_outputs - 8 ? j + 1 : std::min(j + 11, num_outputs - 8);
  };
  for (std::int64_t j = 0; j < num_outputs; j = next(j)) {
    if (!keeps_line && missing[static_cast<std::size_t>(j)]) {
      const bool is_zero = policy == esi::NanPolicy::kZero;
      check(is_zero ? outputs[j] == 0.0f : std::isnan(outputs[j]), "a gap stays what it was");
      continue;
    }
    double sum = 0.0;
    double size = 1.0;
    for (std::int64_t k = 0; k < bank->num_taps && !same_rate; ++k) {
      const std::int64_t phase = j * ratio.down % ratio.up;
      const std::int64_t t = j * ratio.down / ratio.up - bank->left + k;
      const double term =
          static_cast<double>(bank->taps[static_cast<std::size_t>(phase * bank->num_taps + k)]) *
          extended(x, t, quality.extension);
      sum += term;
      size += std::abs(term);
    }
    if (same_rate) sum = x[static_cast<std::size_t>(j)];
    check(std::abs(static_cast<double>(outputs[j]) - sum) < 1e-4 * size, "the filter's sum");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size <= kHead) return -1;
  // Rates with long filters cost much time and are left to few inputs.
  const bool is_long = data[2] == 255;
  const int fs_in = 1 + (is_long ? data[0] : data[0] % 16);
  const int fs_out = 1 + (is_long ? data[1] : data[1] % 16);
  const esi::Quality& quality = esi::quality_by_name(data[3] % 2 ? "hq" : "scipy");
  const auto policy = static_cast<esi::NanPolicy>(data[3] / 2 % 3);
  esi::use_instruction_set(data[5] % 2 ? "baseline" : esi::instruction_sets().front());
  const esi::Ratio ratio = esi::make_ratio(fs_in, fs_out);

  const std::size_t num_rows = std::min<std::size_t>(1 + data[4] % 14, size - kHead);
  const std::size_t num_samples = (size - kHead) / num_rows;
  std::vector<std::vector<float>> rows(num_rows);
  const std::unique_ptr<float[]> x(new float[num_rows * num_samples]);
  for (std::size_t i = 0; i < num_rows * num_samples; ++i) {
    const auto byte = static_cast<std::int8_t>(data[kHead + i]);
    x[i] = byte == -128 ? kNan : static_cast<float>(byte);
    rows[i / num_samples].push_back(x[i]);
  }
  const auto length = static_cast<std::int64_t>(num_samples);
  const std::int64_t num_outputs = esi::output_length(length, ratio);
  const double exact = std::ceil(static_cast<double>(length * ratio.up) / double(ratio.down));
  check(num_outputs == static_cast<std::int64_t>(exact), "ceil(T * up / down) outputs");
  const std::unique_ptr<float[]> y(new float[num_rows * static_cast<std::size_t>(num_outputs)]);
  esi::resample_rows(x.get(), static_cast<std::int64_t>(num_rows), length, ratio, quality, policy,
                     y.get());
  for (std::size_t row = 0; row < num_rows; ++row) {
    const float* outputs = y.get() + row * static_cast<std::size_t>(num_outputs);
    check_row(rows[row], outputs, num_outputs, ratio, quality, policy);
  }
  return 0;
}
