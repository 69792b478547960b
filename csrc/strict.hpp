// The published header syntax, without the liberties that parse_header() allows.
//
// What passes here is read alike by the wfdb package; what does not, it refuses or misreads.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "header.hpp"

namespace esi {

namespace detail {

inline bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

inline bool only(std::string_view text, std::string_view more, bool words) {
  for (char c : text) {
    const bool plain = words ? is_word(c) : is_digit(c);
    if (!plain && more.find(c) == std::string_view::npos) return false;
  }
  return true;
}

// Splits off what lies before the separator; the separator goes, too.
inline std::string_view take_until(std::string_view& text, char separator) {
  const std::size_t end = text.find(separator);
  const std::string_view head = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return head;
}

inline bool is_count_in(std::string_view text, int low, int high) {
  int value = 0;
  return !text.empty() && text.size() <= 4 && only(text, "", false) && take_number(text, value) &&
         value >= low && value <= high;
}

// [[H:]M:]S[.fraction]
inline bool is_time(std::string_view text) {
  const std::size_t point = text.find('.');
  if (point != std::string_view::npos) {
    const std::string_view fraction = text.substr(point + 1);
    if (fraction.empty() || fraction.size() > 6 || !only(fraction, "", false)) return false;
    text = text.substr(0, point);
  }
  if (text.empty() || text.back() == ':') return false;
  std::string_view parts[3];
  int count = 0;
  while (count < 3) {
    parts[count++] = take_until(text, ':');
    if (text.empty()) break;
  }
  if (!text.empty()) return false;
  for (int i = 0; i < count; ++i) {
    if (!is_count_in(parts[i], 0, count == 3 && i == 0 ? 23 : 59)) return false;
  }
  return true;
}

// D/M/YYYY, a day of the calendar
inline bool is_date(std::string_view text) {
  const std::string_view day = take_until(text, '/');
  const std::string_view month = take_until(text, '/');
  if (!is_count_in(month, 1, 12) || text.size() != 4 || !is_count_in(text, 1, 9999)) return false;
  int m = 0;
  int y = 0;
  std::string_view rest = month;
  take_number(rest, m);
  take_number(text, y);
  const bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
  const int days = m == 2 ? (leap ? 29 : 28) : (m == 4 || m == 6 || m == 9 || m == 11 ? 30 : 31);
  return is_count_in(day, 1, days);
}

[[noreturn]] inline void stray(const std::string& what, std::string_view token) {
  fail("strict: " + what + " " + quote(token) + " is not of the published header format");
}

// Digits only, and some unless they may be absent.
inline bool is_digits(std::string_view text, bool may_be_empty = false) {
  return only(text, "", false) && (may_be_empty || !text.empty());
}

// Digits with at most one point.
inline bool is_decimal(std::string_view text) {
  std::string_view fraction = text;
  const std::string_view whole = take_until(fraction, '.');
  return is_digits(whole, true) && is_digits(fraction, true) &&
         !(whole.empty() && fraction.empty());
}

inline bool is_integer(std::string_view text) {
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  return is_digits(text);
}

// fs[/counter[(base)]]
inline bool is_rate(std::string_view text) {
  const std::string_view fs = take_until(text, '/');
  if (!is_decimal(fs)) return false;
  if (text.empty()) return true;
  const std::size_t open = text.find('(');
  const std::string_view counter = text.substr(0, open);
  if (!is_decimal(counter)) return false;
  if (open == std::string_view::npos) return true;
  text = text.substr(open + 1);
  if (text.empty() || text.back() != ')') return false;
  text.remove_suffix(1);
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  return is_decimal(text);
}

// format[xN][:skew][+offset], in this order, N at least 1
inline bool is_format(std::string_view text) {
  const auto take = [&](char mark, int low) {
    if (text.empty() || text[0] != mark) return true;
    text.remove_prefix(1);
    std::int64_t value = -1;
    return !text.empty() && is_digit(text[0]) && take_number(text, value) && value >= low;
  };
  int code = 0;
  if (text.empty() || !is_digit(text[0]) || !take_number(text, code)) return false;
  return take('x', 1) && take(':', 0) && take('+', 0) && text.empty();
}

// gain[(baseline)][/unit], the gain with a small "e" at most
inline bool is_gain(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash != std::string_view::npos) {
    if (!only(text.substr(slash + 1), "^-?%/", true)) return false;
    text = text.substr(0, slash);
  }
  const std::size_t open = text.find('(');
  if (open != std::string_view::npos) {
    if (text.back() != ')') return false;
    if (!is_integer(text.substr(open + 1, text.size() - open - 2))) return false;
    text = text.substr(0, open);
  }
  std::string_view exponent = text;
  std::string_view mantissa = take_until(exponent, 'e');
  if (!mantissa.empty() && mantissa[0] == '-') mantissa.remove_prefix(1);
  if (!exponent.empty() && (exponent[0] == '+' || exponent[0] == '-')) exponent.remove_prefix(1);
  return is_decimal(mantissa) && is_digits(exponent, true);
}

inline void check_record_line(std::string_view line, const Header& header) {
  const std::string_view token = next_token(line);
  std::string_view segments = token;
  const std::string_view name = take_until(segments, '/');
  const bool has_segments = name.size() < token.size();
  if (name.empty() || !only(name, "-", true) || !is_digits(segments, !has_segments) ||
      (has_segments && header.num_segments < 2)) {
    stray("record name", token);
  }
  const std::string_view count = next_token(line);
  if (!is_digits(count)) stray("number of signals", count);
  const std::string_view fs = next_token(line);
  if (!fs.empty() && !is_rate(fs)) stray("sampling frequency", fs);
  const std::string_view num_samples = next_token(line);
  // Only a layout, which names signals without data, has none.
  const bool is_layout = !header.signals.empty() && header.signals[0].file == "~";
  if (!is_digits(num_samples, true) || (num_samples == "0" && !is_layout)) {
    stray("number of samples", num_samples);
  }
  const std::string_view time = next_token(line);
  if (!time.empty() && !is_time(time)) stray("base time", time);
  const std::string_view date = next_token(line);
  if (!date.empty() && !is_date(date)) stray("base date", date);
}

inline void check_signal_line(std::string_view line) {
  const std::string_view file = next_token(line);
  std::string_view suffix = file;
  const std::string_view stem = take_until(suffix, '.');
  if (!only(stem, "-~", true) || !only(suffix, "", true)) stray("file name", file);
  const std::string_view format = next_token(line);
  if (!is_format(format)) stray("format", format);
  const std::string_view gain = next_token(line);
  if (!gain.empty() && !is_gain(gain)) stray("gain", gain);
  const char* const fields[] = {"ADC resolution", "ADC zero", "initial value", "checksum",
                                "block size"};
  for (const char* field : fields) {
    const std::string_view number = next_token(line);
    const bool is_count = field == fields[0] || field == fields[4];
    if (!number.empty() && !(is_count ? is_digits(number) : is_integer(number))) {
      stray(field, number);
    }
  }
}

}  // namespace detail

// Throws RecordError (kFormat) where a header that parse_header() reads strays from the standard.
inline void check_strict(std::string_view text, const Header& header) {
  using namespace detail;
  std::int64_t num_lines = -1;  // the record line is none of the signals' or segments'
  while (!text.empty()) {
    const std::string_view line = strip(take_until(text, '\n'));
    if (line.empty() || line[0] == '#') continue;
    for (char c : line) {
      if (static_cast<unsigned char>(c) >= 0x80) stray("the line", line);
    }
    if (num_lines < 0) {
      check_record_line(line, header);
    } else if (header.num_segments == 1) {
      check_signal_line(line);
    }
    ++num_lines;
  }
  const std::int64_t wanted = header.num_segments == 1 ? header.num_signals : header.num_segments;
  if (num_lines != wanted) {
    fail("strict: " + std::to_string(num_lines) + " lines describe " + std::to_string(wanted) +
         (header.num_segments == 1 ? " signals" : " segments"));
  }
}

}  // namespace esi
