// The WFDB header (.hea): a tolerant, bounds-checked parser. No Python in here.
//
// Format: https://physionet.org/physiotools/wag/header-5.htm. Where files in the wild depart from
// it (dates of any shape, "/" in names, exponents in gains, Latin-1 text) this parser follows the
// files; where a field cannot be understood it says which one, and never guesses.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "text.hpp"

namespace esi {

enum class Status : std::uint8_t {
  kOk,
  kMissing,      // the header or a data file does not exist
  kTruncated,    // a data file is shorter than its header says
  kChecksum,     // the samples do not add up to the header's checksum
  kFormat,       // the header cannot be understood, or asks for what is refused
  kLeads,        // a wanted lead is absent or occurs twice
  kUnits,        // the unit of a wanted lead is not a voltage
  kNonFinite,    // a gain or baseline that gives no finite voltages
  kUnsupported,  // legal WFDB, but not for this reader
  kIo,           // the operating system failed to read
  kUnresolved,   // names that the caller has to look up before the record can be read
};

inline const char* status_name(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kMissing:
      return "missing";
    case Status::kTruncated:
      return "truncated";
    case Status::kChecksum:
      return "checksum";
    case Status::kFormat:
      return "format";
    case Status::kLeads:
      return "leads";
    case Status::kUnits:
      return "units";
    case Status::kNonFinite:
      return "non-finite";
    case Status::kUnsupported:
      return "unsupported";
    case Status::kIo:
      return "io";
    case Status::kUnresolved:
      return "unresolved";
  }
  return "io";
}

class RecordError : public std::runtime_error {
 public:
  RecordError(Status status, const std::string& message)
      : std::runtime_error(detail::one_line(message)), status_(status) {}
  Status status() const { return status_; }

 private:
  Status status_;
};

struct SignalSpec {
  std::string file;
  int format = 0;
  std::int64_t samples_per_frame = 1;
  std::int64_t skew = 0;
  std::int64_t byte_offset = 0;
  double gain = 200.0;  // ADC units per physical unit
  std::int64_t baseline = 0;
  std::string unit = "mV";
  std::int64_t adc_resolution = 0;
  std::int64_t adc_zero = 0;
  std::optional<std::int64_t> initial_value;  // the first sample; of format 8, the one before it
  std::optional<std::int64_t> checksum;
  std::string description;
};

struct Header {
  std::string name;
  std::int64_t num_segments = 1;
  std::int64_t num_signals = 0;
  double fs = 250.0;
  std::int64_t num_samples = 0;       // 0: not stated, the size of the data file decides
  std::vector<SignalSpec> signals;    // of a record of one segment
  std::vector<std::string> segments;  // the names of several, "~" for a gap
  std::vector<std::int64_t> segment_lengths;
  std::vector<std::string> comments;
};

namespace detail {

// Sizes come from a file that anybody may have written. Under these bounds no product overflows.
inline constexpr std::int64_t kMaxSignals = 1 << 12;
inline constexpr std::int64_t kMaxSamples = std::int64_t{1} << 40;
inline constexpr std::int64_t kMaxInt = std::int64_t{1} << 31;

[[noreturn]] inline void fail(const std::string& message) {
  throw RecordError(Status::kFormat, message);
}

// Which field is being read: its name is put together only when it is at fault.
struct Field {
  const char* name;
  std::int64_t signal = -1;  // -1: of the record line

  std::string text() const {
    return (signal < 0 ? "" : "signal " + std::to_string(signal) + ": ") + name;
  }
};

inline std::int64_t whole_number(std::string_view token, const Field& field, std::int64_t low,
                                 std::int64_t high) {
  std::string_view rest = token;
  std::int64_t value = 0;
  if (!take_number(rest, value) || !rest.empty()) {
    fail(field.text() + " " + quote(token) + " is not a whole number");
  }
  if (value < low || value > high) {
    fail(field.text() + " " + quote(token) + " is not in " + std::to_string(low) + ".." +
         std::to_string(high));
  }
  return value;
}

// "16", "16x1+24", "212:3+100": format, samples per frame, skew, byte offset.
inline void parse_format(std::string_view token, std::int64_t index, SignalSpec& spec) {
  std::string_view rest = token;
  const auto malformed = [&] {
    fail(Field{"format", index}.text() + " " + quote(token) +
         " is not of the form 16[xN][:skew][+offset]");
  };
  const auto take = [&](std::int64_t high) {
    std::int64_t number = 0;
    if (rest.empty() || !is_digit(rest[0]) || !take_number(rest, number) || number > high) {
      malformed();
    }
    return number;
  };
  spec.format = static_cast<int>(take(1 << 20));
  while (!rest.empty()) {
    const char kind = rest[0];
    rest.remove_prefix(1);
    if (kind == 'x') {
      spec.samples_per_frame = std::max<std::int64_t>(1, take(1 << 12));
    } else if (kind == ':') {
      spec.skew = take(kMaxInt);
    } else if (kind == '+') {
      spec.byte_offset = take(kMaxSamples);
    } else {
      malformed();
    }
  }
}

// "200", "200.0(0)/mV", "1.052e+04/mV": gain, baseline, unit. True if a baseline is stated.
inline bool parse_gain(std::string_view token, std::int64_t index, SignalSpec& spec) {
  std::string_view rest = token;
  bool has_baseline = false;
  const auto malformed = [&](const char* what, Status status = Status::kFormat) {
    throw RecordError(status, Field{"gain", index}.text() + " " + quote(token) + what);
  };
  if (!take_number(rest, spec.gain)) malformed(" does not begin with a number");
  if (!std::isfinite(spec.gain)) malformed(" is not finite", Status::kNonFinite);
  if (spec.gain == 0.0) spec.gain = 200.0;  // the standard's sign for "not calibrated"
  if (!rest.empty() && rest[0] == '(') {
    const std::size_t close = rest.find(')');
    if (close == std::string_view::npos) malformed(" lacks a ')'");
    spec.baseline =
        whole_number(strip(rest.substr(1, close - 1)), {"baseline", index}, -kMaxInt, kMaxInt);
    has_baseline = true;
    rest.remove_prefix(close + 1);
  }
  if (!rest.empty()) {
    if (rest[0] != '/' || rest.size() == 1)
      malformed(" is not of the form gain[(baseline)][/unit]");
    spec.unit = std::string(rest.substr(1));
  }
  return has_baseline;
}

inline SignalSpec parse_signal(std::string_view line, std::int64_t index) {
  SignalSpec spec;
  spec.file = std::string(next_token(line));
  const std::string_view format = next_token(line);
  if (format.empty()) {
    fail(Field{"the line ", index}.text() + quote(spec.file) + " has no format");
  }
  parse_format(format, index, spec);

  bool has_baseline = false;
  std::string_view token = next_token(line);
  if (!token.empty()) {
    has_baseline = parse_gain(token, index, spec);
    token = next_token(line);
  }
  const auto take = [&](const char* name, std::int64_t& value) {
    if (token.empty()) return false;
    value = whole_number(token, {name, index}, -kMaxInt, kMaxInt);
    token = next_token(line);
    return true;
  };
  std::int64_t initial_value = 0;
  std::int64_t checksum = 0;
  std::int64_t block_size = 0;
  take("ADC resolution", spec.adc_resolution);
  take("ADC zero", spec.adc_zero);
  if (take("initial value", initial_value)) spec.initial_value = initial_value;
  if (take("checksum", checksum)) spec.checksum = checksum;
  take("block size", block_size);
  if (!token.empty()) {
    // What is left, blanks inside included, is the description.
    const char* end = line.data() + line.size();
    spec.description = std::string(
        strip(std::string_view(token.data(), static_cast<std::size_t>(end - token.data()))));
  }
  if (!has_baseline) spec.baseline = spec.adc_zero;
  return spec;
}

// name[/segments] signals [fs[/counter[(base)]] [samples [time [date]]]]
inline void parse_record_line(std::string_view line, Header& header) {
  std::string_view name = next_token(line);
  const std::size_t slash = name.rfind('/');
  if (slash != std::string_view::npos && slash + 1 < name.size()) {
    // Names may hold "/" themselves (PTB-XL+): only digits after the last one count segments.
    std::string_view digits = name.substr(slash + 1);
    bool all_digits = true;
    for (char c : digits) all_digits = all_digits && is_digit(c);
    if (all_digits) {
      header.num_segments = whole_number(digits, {"number of segments"}, 0, kMaxInt);
      name = name.substr(0, slash);
    }
  }
  header.name = std::string(name);
  const std::string_view count = next_token(line);
  if (count.empty()) fail("the record line " + quote(name) + " states no number of signals");
  header.num_signals = whole_number(count, {"number of signals"}, 0, kMaxSignals);

  std::string_view token = next_token(line);
  if (!token.empty()) {
    std::string_view rest = token;
    const bool is_number = take_number(rest, header.fs);
    const bool ends_well = rest.empty() || rest[0] == '/' || rest[0] == '(';
    if (!is_number || !ends_well || !std::isfinite(header.fs) || header.fs <= 0.0) {
      fail("sampling frequency " + quote(token) + " is not a positive number");
    }
    token = next_token(line);
  }
  if (!token.empty()) {
    header.num_samples = whole_number(token, {"number of samples"}, 0, kMaxSamples);
  }
  // Base time and date come in many shapes and nothing here needs them: they are not looked at.
}

}  // namespace detail

// Parses the text of a header. Throws RecordError (kFormat) naming the field at fault.
inline Header parse_header(std::string_view text) {
  using namespace detail;
  std::string converted;
  if (!is_utf8(text)) {
    converted = latin1_to_utf8(text);
    text = converted;
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);

  Header header;
  bool has_record_line = false;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    std::string_view line = strip(text.substr(0, newline));
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    if (line.empty()) continue;
    if (line[0] == '#') {
      while (!line.empty() && (line.front() == '#' || is_blank(line.front()))) {
        line.remove_prefix(1);
      }
      header.comments.emplace_back(line);
    } else if (!has_record_line) {
      parse_record_line(line, header);
      has_record_line = true;
      // No more than the text has room for, whatever the line announces.
      const auto most = static_cast<std::int64_t>(text.size() / 4);
      header.signals.reserve(static_cast<std::size_t>(std::min(header.num_signals, most)));
    } else if (header.num_segments != 1) {
      header.segments.emplace_back(next_token(line));
      header.segment_lengths.push_back(
          whole_number(next_token(line), {"length of a segment"}, 0, kMaxSamples));
    } else if (static_cast<std::int64_t>(header.signals.size()) < header.num_signals) {
      header.signals.push_back(
          parse_signal(line, static_cast<std::int64_t>(header.signals.size())));
    }
  }
  if (!has_record_line) fail("the header has no record line");
  if (header.num_segments == 1 &&
      static_cast<std::int64_t>(header.signals.size()) < header.num_signals) {
    fail("the header announces " + std::to_string(header.num_signals) + " signals and describes " +
         std::to_string(header.signals.size()));
  }
  return header;
}

}  // namespace esi
