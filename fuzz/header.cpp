// Fuzz target: the header parser, tolerant and strict.
#include "../csrc/header.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "../csrc/strict.hpp"
#include "check.hpp"

namespace {

using fuzz::check;

// A line of two bytes is the shortest that makes the parser remember something: an entry of a
// vector that doubles as it grows. A number of signals that the lines do not bear out exceeds this.
constexpr std::size_t kBytesPerByte = 256;
constexpr std::size_t kBytesMore = 4096;  // a message, the vectors of the shortest header

std::optional<esi::Header> parsed(std::string_view text) {
  const fuzz::MemoryLimit limit(kBytesMore + kBytesPerByte * text.size());
  try {
    return esi::parse_header(text);
  } catch (const esi::RecordError& error) {
    const bool known =
        error.status() == esi::Status::kFormat || error.status() == esi::Status::kNonFinite;
    check(known, "what no header is has the status format or non-finite");
    fuzz::check_message(error.what());
  }
  return std::nullopt;
}

bool passes_strict(std::string_view text, const esi::Header& header) {
  const fuzz::MemoryLimit limit(kBytesMore + kBytesPerByte * text.size());
  try {
    esi::check_strict(text, header);
    return true;
  } catch (const esi::RecordError& error) {
    check(error.status() == esi::Status::kFormat, "what is not strict has the status format");
    fuzz::check_message(error.what());
  }
  return false;
}

bool is_within(std::int64_t value, std::int64_t low, std::int64_t high) {
  return value >= low && value <= high;
}

void check_text(const std::string& text) {
  check(esi::detail::is_utf8(text), "text is UTF-8");
  check(text.find('\n') == std::string::npos, "text is one line");
}

void check_bounds(const esi::Header& header) {
  using namespace esi::detail;
  check(is_within(header.num_segments, 0, kMaxInt), "number of segments");
  check(is_within(header.num_signals, 0, kMaxSignals), "number of signals");
  check(is_within(header.num_samples, 0, kMaxSamples), "number of samples");
  check(std::isfinite(header.fs) && header.fs > 0.0, "sampling frequency");
  check_text(header.name);
  for (const std::string& comment : header.comments) check_text(comment);
  for (const std::string& segment : header.segments) check_text(segment);
  check(header.segment_lengths.size() == header.segments.size(), "a length a segment");
  for (std::int64_t length : header.segment_lengths) {
    check(is_within(length, 0, kMaxSamples), "length of a segment");
  }
  const bool one_segment = header.num_segments == 1;
  const auto described = static_cast<std::int64_t>(header.signals.size());
  check(described == (one_segment ? header.num_signals : 0), "as many signals as announced");
  check(!one_segment || header.segments.empty(), "no segments in a record of one");
  for (const esi::SignalSpec& spec : header.signals) {
    check(is_within(spec.format, 0, 1 << 20), "format");
    check(is_within(spec.samples_per_frame, 1, 1 << 12), "samples per frame");
    check(is_within(spec.skew, 0, kMaxInt), "skew");
    check(is_within(spec.byte_offset, 0, kMaxSamples), "byte offset");
    check(std::isfinite(spec.gain) && spec.gain != 0.0, "gain");
    check(is_within(spec.baseline, -kMaxInt, kMaxInt), "baseline");
    check(is_within(spec.adc_resolution, -kMaxInt, kMaxInt), "ADC resolution");
    check(is_within(spec.adc_zero, -kMaxInt, kMaxInt), "ADC zero");
    check(is_within(spec.initial_value.value_or(0), -kMaxInt, kMaxInt), "initial value");
    check(is_within(spec.checksum.value_or(0), -kMaxInt, kMaxInt), "checksum");
    check(!spec.file.empty() && !spec.unit.empty(), "file name and unit");
    check_text(spec.file);
    check_text(spec.unit);
    check_text(spec.description);
  }
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", value);
  return text;
}

// The header as a text that states every field it has.
std::string written(const esi::Header& header) {
  // The newline keeps a name that begins with a byte order mark from losing it.
  std::string text = "\n" + header.name + "/" + std::to_string(header.num_segments) + " " +
                     std::to_string(header.num_signals) + " " + number(header.fs) + " " +
                     std::to_string(header.num_samples) + "\n";
  for (std::size_t i = 0; i < header.segments.size(); ++i) {
    text += header.segments[i] + " " + std::to_string(header.segment_lengths[i]) + "\n";
  }
  for (const esi::SignalSpec& spec : header.signals) {
    text += spec.file + " " + std::to_string(spec.format) + "x" +
            std::to_string(spec.samples_per_frame) + ":" + std::to_string(spec.skew) + "+" +
            std::to_string(spec.byte_offset) + " " + number(spec.gain) + "(" +
            std::to_string(spec.baseline) + ")/" + spec.unit + " " +
            std::to_string(spec.adc_resolution) + " " + std::to_string(spec.adc_zero);
    check(spec.initial_value || !spec.checksum, "no checksum without an initial value");
    check(spec.checksum || spec.description.empty(), "no description without a checksum");
    if (spec.initial_value) text += " " + std::to_string(*spec.initial_value);
    if (spec.checksum) text += " " + std::to_string(*spec.checksum) + " 0 " + spec.description;
    text += "\n";
  }
  for (const std::string& comment : header.comments) text += "#" + comment + "\n";
  return text;
}

bool are_equal(const esi::Header& a, const esi::Header& b) {
  const auto fields = [](const esi::Header& h) {
    return std::tie(h.name, h.num_segments, h.num_signals, h.fs, h.num_samples, h.segments,
                    h.segment_lengths, h.comments);
  };
  const auto spec_fields = [](const esi::SignalSpec& s) {
    return std::tie(s.file, s.format, s.samples_per_frame, s.skew, s.byte_offset, s.gain,
                    s.baseline, s.unit, s.adc_resolution, s.adc_zero, s.initial_value, s.checksum,
                    s.description);
  };
  return fields(a) == fields(b) &&
         std::equal(a.signals.begin(), a.signals.end(), b.signals.begin(), b.signals.end(),
                    [&](const auto& x, const auto& y) { return spec_fields(x) == spec_fields(y); });
}

// What the published format promises of a header that passes, counted apart from the parser.
void check_strict_promises(std::string_view text, const esi::Header& header) {
  std::int64_t num_lines = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t first = line.find_first_not_of(" \t\r\f\v");
    if (first == std::string_view::npos || line[first] == '#') continue;
    for (char c : line) check(static_cast<unsigned char>(c) < 0x80, "strict: ASCII");
    ++num_lines;
  }
  const bool one_segment = header.num_segments == 1;
  const std::int64_t wanted = one_segment ? header.num_signals : header.num_segments;
  check(num_lines == 1 + wanted, "strict: a line each signal or segment");
  check(one_segment || static_cast<std::int64_t>(header.segments.size()) == wanted,
        "strict: as many segments as announced");
  check(!header.name.empty() && header.name.find('/') == std::string::npos, "strict: name");
  for (const esi::SignalSpec& spec : header.signals) {
    const bool plain = spec.file.find_first_of("/\\") == std::string::npos && spec.file != "..";
    check(plain, "strict: a data file lies in the record's folder");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::optional<esi::Header> header = parsed(text);
  if (!header) return 0;
  check_bounds(*header);

  // Lines that end as on Windows say the same.
  std::string windows;
  windows.reserve(2 * size);
  for (char c : text) {
    if (c == '\n') windows.push_back('\r');
    windows.push_back(c);
  }
  const std::optional<esi::Header> same = parsed(windows);
  check(same && are_equal(*header, *same), "CR LF: the same fields");

  const std::optional<esi::Header> again = parsed(written(*header));
  check(again && are_equal(*header, *again), "a header written anew has the same fields");

  const bool is_strict = passes_strict(text, *header);
  check(is_strict == passes_strict(windows, *header), "CR LF: strict or not, as before");
  if (is_strict) check_strict_promises(text, *header);
  return 0;
}
