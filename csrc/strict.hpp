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

inline void check_record_line(std::string_view line) {
  const std::string_view token = next_token(line);
  std::string_view rest = token;
  const std::string_view name = take_until(rest, '/');
  if (name.empty() || !only(name, "-", true) || !only(rest, "", false)) stray("record name", token);
  next_token(line);  // the number of signals: parse_header() knows no liberties there
  const std::string_view fs = next_token(line);
  if (!only(fs, "./()-", false)) stray("sampling frequency", fs);
  const std::string_view num_samples = next_token(line);
  if (!only(num_samples, "", false)) stray("number of samples", num_samples);
  const std::string_view time = next_token(line);
  if (!time.empty() && !is_time(time)) stray("base time", time);
  const std::string_view date = next_token(line);
  if (!date.empty() && !is_date(date)) stray("base date", date);
}

inline void check_signal_line(std::string_view line) {
  const std::string_view file = next_token(line);
  std::string_view suffix = file;
  const std::string_view stem = take_until(suffix, '.');
  if (!only(stem, "-", true) || !only(suffix, "", true)) stray("file name", file);
  next_token(line);  // the format: no liberties there
  const std::string_view token = next_token(line);
  std::string_view gain = token;
  std::string_view unit;
  const std::size_t slash = gain.find('/');
  if (slash != std::string_view::npos) {
    unit = gain.substr(slash + 1);
    gain = gain.substr(0, slash);
  }
  if (!only(gain, "-.e+()", false) || (!gain.empty() && gain[0] == '+')) stray("gain", token);
  if (!only(unit, "^-?%/", true)) stray("unit", token);
  for (int field = 0; field < 5; ++field) {
    std::string_view number = next_token(line);
    if (!number.empty() && number[0] == '+') stray("number", number);
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
      check_record_line(line);
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
