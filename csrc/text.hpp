// Pieces of text: tokens, numbers, quotations, encodings.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>

namespace esi {

namespace detail {

inline bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

inline std::string_view strip(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// An error message, whatever names the files put into it: one line, printable, of bearable length.
inline std::string one_line(std::string message) {
  constexpr std::size_t kLongest = 320;
  for (std::size_t i = 0; i < message.size(); ++i) {
    const auto byte = static_cast<unsigned char>(message[i]);
    const auto next = static_cast<unsigned char>(i + 1 < message.size() ? message[i + 1] : 0);
    if (byte < 0x20 || byte == 0x7F) {
      message[i] = '?';
    } else if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {  // control characters of Latin-1
      message.replace(i, 2, "?");
    }
  }
  if (message.size() > kLongest) {
    std::size_t begin = kLongest / 2;
    std::size_t end = message.size() - kLongest / 2;
    while (begin > 0 && (message[begin] & 0xC0) == 0x80) --begin;  // within a UTF-8 character
    while (end < message.size() && (message[end] & 0xC0) == 0x80) ++end;
    message.replace(begin, end - begin, "...");
  }
  return message;
}

// A piece of the file for an error message.
inline std::string quote(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  const bool cut = text.size() > kLongest;
  return "'" + std::string(text.substr(0, kLongest)) + (cut ? "...'" : "'");
}

// Splits off the next blank-separated token.
inline std::string_view next_token(std::string_view& line) {
  line = strip(line);
  std::size_t end = 0;
  while (end < line.size() && !is_blank(line[end])) ++end;
  const std::string_view token = line.substr(0, end);
  line.remove_prefix(end);
  return token;
}

// Splits off a leading number; false if there is none. A leading "+" is allowed, as strtod does.
template <typename Number>
bool take_number(std::string_view& text, Number& value) {
  std::string_view rest = text;
  if (rest.size() > 1 && rest[0] == '+' && rest[1] != '-') rest.remove_prefix(1);
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (error != std::errc()) return false;
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  text = rest;
  return true;
}

// Whether the bytes are UTF-8, strictly: what passes can be decoded without loss, so that names
// survive the way to Python and back.
inline bool is_utf8(std::string_view text) {
  if (std::none_of(text.begin(), text.end(), [](char c) { return (c & 0x80) != 0; })) return true;
  std::size_t i = 0;
  while (i < text.size()) {
    const auto byte = static_cast<unsigned char>(text[i++]);
    int following = 0;
    unsigned char low = 0x80;  // bounds of the byte after the first: no overlong form, no surrogate
    unsigned char high = 0xBF;
    if (byte >= 0xC2 && byte < 0xE0) {
      following = 1;
    } else if (byte >= 0xE0 && byte < 0xF0) {
      following = 2;
      if (byte == 0xE0) low = 0xA0;
      if (byte == 0xED) high = 0x9F;
    } else if (byte >= 0xF0 && byte < 0xF5) {
      following = 3;
      if (byte == 0xF0) low = 0x90;
      if (byte == 0xF4) high = 0x8F;
    } else if (byte >= 0x80) {
      return false;
    }
    for (; following > 0; --following, ++i) {
      if (i >= text.size()) return false;
      const auto next = static_cast<unsigned char>(text[i]);
      if (next < low || next > high) return false;
      low = 0x80;
      high = 0xBF;
    }
  }
  return true;
}

inline std::string latin1_to_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out += c;
    } else {
      out += static_cast<char>(0xC0 | (byte >> 6));
      out += static_cast<char>(0x80 | (byte & 0x3F));
    }
  }
  return out;
}

}  // namespace detail

}  // namespace esi
