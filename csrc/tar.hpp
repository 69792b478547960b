// Samples of a shard as ustar members, appended to a tar.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "crc32c.hpp"

namespace esi {

inline constexpr std::size_t kTarBlock = 512;

// What is written of a sample: KEY.ecg.npy, KEY.json and, unless `caption` is null, KEY.txt.
struct ShardSample {
  std::string_view key;
  const void* ecg = nullptr;  // the samples, as the .npy file holds them after its header
  std::string_view json;
  const std::string_view* caption = nullptr;
};

// The bytes of a sample around its ECG, which is written from where it lies.
struct SampleFrame {
  std::string head;          // tar and .npy headers
  std::string tail;          // padding and the other members
  std::uint32_t crc32c = 0;  // of head, ECG and tail
};

namespace detail {

// A regular file of mode 0644, owner 0, time 0; name, size and checksum are still to be filled in.
struct TarHeader {
  char bytes[kTarBlock] = {};
  std::uint32_t sum = 0;  // with the checksum's field as blanks

  TarHeader() {
    std::memcpy(bytes + 100,
                "0000644\0"
                "0000000\0"
                "0000000\0",
                24);
    std::memcpy(bytes + 136, "00000000000", 11);
    std::memset(bytes + 148, ' ', 8);
    bytes[156] = '0';
    std::memcpy(bytes + 257,
                "ustar\0"
                "00",
                8);
    for (const char byte : bytes) sum += static_cast<unsigned char>(byte);
  }
};

inline void put_octal(std::uint64_t value, int digits, char* out) {
  for (int i = digits - 1; i >= 0; --i, value >>= 3) out[i] = static_cast<char>('0' + (value & 7));
}

inline void append_header(std::string_view key, std::string_view suffix, std::size_t size,
                          std::string& out) {
  static const TarHeader kTemplate;
  constexpr std::size_t kLongestName = 100;
  constexpr std::uint64_t kLargest = (std::uint64_t{1} << 33) - 1;  // 11 octal digits
  if (key.size() + suffix.size() > kLongestName || size > kLargest) {
    throw std::invalid_argument(std::string(key) + std::string(suffix) + " of " +
                                std::to_string(size) + " bytes does not fit a ustar header");
  }
  char header[kTarBlock];
  std::memcpy(header, kTemplate.bytes, kTarBlock);
  std::memcpy(header, key.data(), key.size());
  std::memcpy(header + key.size(), suffix.data(), suffix.size());
  put_octal(size, 11, header + 124);
  std::uint32_t sum = kTemplate.sum;
  for (std::size_t i = 0; i < key.size() + suffix.size(); ++i) {
    sum += static_cast<unsigned char>(header[i]);
  }
  for (int i = 124; i < 135; ++i) sum += static_cast<unsigned char>(header[i]);
  put_octal(sum, 6, header + 148);
  header[154] = '\0';
  out.append(header, kTarBlock);
}

inline void append_padding(std::size_t size, std::string& out) {
  out.append((kTarBlock - size % kTarBlock) % kTarBlock, '\0');
}

inline void append_member(std::string_view key, std::string_view suffix, std::string_view data,
                          std::string& out) {
  append_header(key, suffix, data.size(), out);
  out += data;
  append_padding(data.size(), out);
}

inline void write_all(int descriptor, std::vector<iovec>& pieces) {
  constexpr std::size_t kMostPieces = 1023;  // a call takes 1,024, and frames come in threes
  for (std::size_t first = 0; first < pieces.size();) {
    const std::size_t count = std::min(kMostPieces, pieces.size() - first);
    const ssize_t written = ::writev(descriptor, &pieces[first], static_cast<int>(count));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw std::system_error(errno, std::generic_category());
    auto left = static_cast<std::size_t>(written);
    while (first < pieces.size() && left >= pieces[first].iov_len) left -= pieces[first++].iov_len;
    if (left > 0) {
      pieces[first].iov_base = static_cast<char*>(pieces[first].iov_base) + left;
      pieces[first].iov_len -= left;
    }
  }
}

}  // namespace detail

// Appends samples, each with `ecg_bytes` bytes of ECG after `npy_header`, to the file.
//
// Throws std::system_error where writing fails, std::invalid_argument for a key that is too long.
inline std::vector<SampleFrame> append_samples(int descriptor,
                                               const std::vector<ShardSample>& samples,
                                               std::string_view npy_header, std::size_t ecg_bytes) {
  std::vector<SampleFrame> frames(samples.size());
  std::vector<iovec> pieces;
  pieces.reserve(3 * samples.size());
  const std::size_t npy_bytes = npy_header.size() + ecg_bytes;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const ShardSample& sample = samples[i];
    SampleFrame& frame = frames[i];
    detail::append_header(sample.key, ".ecg.npy", npy_bytes, frame.head);
    frame.head += npy_header;
    detail::append_padding(npy_bytes, frame.tail);
    detail::append_member(sample.key, ".json", sample.json, frame.tail);
    if (sample.caption) detail::append_member(sample.key, ".txt", *sample.caption, frame.tail);
    frame.crc32c = crc32c(frame.head.data(), frame.head.size());
    frame.crc32c = crc32c(sample.ecg, ecg_bytes, frame.crc32c);
    frame.crc32c = crc32c(frame.tail.data(), frame.tail.size(), frame.crc32c);
    pieces.push_back({frame.head.data(), frame.head.size()});
    pieces.push_back({const_cast<void*>(sample.ecg), ecg_bytes});
    pieces.push_back({frame.tail.data(), frame.tail.size()});
  }
  detail::write_all(descriptor, pieces);
  return frames;
}

}  // namespace esi
