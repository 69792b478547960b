// How WFDB stores samples on disk. A new format is one more row of native_format() and a decoder.
#pragma once

#include <cstdint>
#include <cstring>

namespace esi {

struct NativeFormat {
  int code;
  std::int64_t bytes_per_sample;
  std::int32_t missing;  // the sample value that stands for "no sample"
};

// The format if this reader decodes it, else nullptr.
inline const NativeFormat* native_format(int code) {
  static constexpr NativeFormat kFormat16{16, 2, -32768};
  return code == kFormat16.code ? &kFormat16 : nullptr;
}

// Format 16: 16-bit two's complement, least significant byte first.
inline void decode_16(const std::uint8_t* bytes, std::int64_t count, std::int16_t* samples) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  std::memcpy(samples, bytes, static_cast<std::size_t>(count) * sizeof(std::int16_t));
#else
  for (std::int64_t i = 0; i < count; ++i) {
    samples[i] = static_cast<std::int16_t>(bytes[2 * i] | (bytes[2 * i + 1] << 8));
  }
#endif
}

namespace detail {

// WIDTH 0: the width is known at run time only.
template <int WIDTH>
inline void sum_columns(const std::int16_t* samples, std::int64_t num_frames, std::int64_t width,
                        std::uint16_t* sums) {
  if (WIDTH != 0) width = WIDTH;
  std::uint16_t local[WIDTH == 0 ? 1 : WIDTH] = {};
  std::uint16_t* sum = WIDTH == 0 ? sums : local;
  for (std::int64_t t = 0; t < num_frames; ++t) {
    for (std::int64_t i = 0; i < width; ++i) {
      sum[i] = static_cast<std::uint16_t>(sum[i] + static_cast<std::uint16_t>(samples[i]));
    }
    samples += width;
  }
  if (WIDTH != 0) std::memcpy(sums, local, sizeof(local));
}

}  // namespace detail

// The WFDB checksum of each column of (num_frames, width) samples: their sum modulo 2^16.
inline void checksums(const std::int16_t* samples, std::int64_t num_frames, std::int64_t width,
                      std::uint16_t* sums) {
  for (std::int64_t i = 0; i < width; ++i) sums[i] = 0;
  if (width == 12) {
    detail::sum_columns<12>(samples, num_frames, width, sums);
  } else {
    detail::sum_columns<0>(samples, num_frames, width, sums);
  }
}

inline bool contains(const std::int16_t* samples, std::int64_t count, std::int16_t value) {
  int found = 0;
  for (std::int64_t i = 0; i < count; ++i) found |= samples[i] == value;
  return found != 0;
}

}  // namespace esi
