// How WFDB stores samples on disk: sizes and decoders. No allocation, no I/O.
//
// Layouts: https://physionet.org/physiotools/wag/signal-5.htm.
#pragma once

#include <cstdint>
#include <cstring>

namespace esi {

// A format is a sequence of blocks of whole bytes; the last block may be incomplete.
struct Format {
  int code;
  std::int64_t block_samples;
  std::int64_t block_bytes;
  std::int64_t tail_bytes[3];  // what 0, 1 or 2 samples of an incomplete block occupy
  bool wide;                   // samples need 32 bits
  bool has_missing;
  std::int32_t missing;  // the sample value that stands for "no sample"
};

// The format if this reader decodes it, else nullptr.
inline const Format* native_format(int code) {
  constexpr std::int32_t k16 = -32768;
  static constexpr Format kFormats[] = {
      // Differences of successive samples: a sum may need more than 16 bits, and none is special.
      {8, 1, 1, {0}, true, false, 0},
      {16, 1, 2, {0}, false, true, k16},
      {24, 1, 3, {0}, true, true, -(1 << 23)},
      {32, 1, 4, {0}, true, true, INT32_MIN},
      {61, 1, 2, {0}, false, true, k16},
      {80, 1, 1, {0}, false, true, -128},
      {160, 1, 2, {0}, false, true, k16},
      {212, 2, 3, {0, 2}, false, true, -2048},
      {310, 3, 4, {0, 2, 4}, false, true, -512},
      {311, 3, 4, {0, 2, 3}, false, true, -512},
  };
  for (const Format& format : kFormats) {
    if (format.code == code) return &format;
  }
  return nullptr;
}

// Compressed formats, which the wfdb package reads.
inline bool is_flac(int code) { return code == 508 || code == 516 || code == 524; }

// The bytes that `count` samples occupy. No overflow below 2^60 samples.
inline std::int64_t bytes_of(const Format& format, std::int64_t count) {
  return count / format.block_samples * format.block_bytes +
         format.tail_bytes[count % format.block_samples];
}

// The most samples that lie in `num_bytes`.
inline std::int64_t samples_in(const Format& format, std::int64_t num_bytes) {
  std::int64_t count = num_bytes / format.block_bytes * format.block_samples;
  for (std::int64_t tail = format.block_samples - 1; tail > 0; --tail) {
    if (format.tail_bytes[tail] <= num_bytes % format.block_bytes) return count + tail;
  }
  return count;
}

namespace detail {

// The low `bits` bits of a word as a two's complement number.
inline std::int32_t sign_extend(std::uint32_t word, int bits) {
  const std::uint32_t sign = std::uint32_t{1} << (bits - 1);
  return static_cast<std::int32_t>(((word & (2 * sign - 1)) ^ sign) - sign);
}

inline std::uint32_t little_endian(const std::uint8_t* bytes, int count) {
  std::uint32_t word = 0;
  for (int i = 0; i < count; ++i) word |= static_cast<std::uint32_t>(bytes[i]) << (8 * i);
  return word;
}

// Sample `index` (0..2) of a block. Of an incomplete block it touches the tail's bytes only.
inline std::int32_t unpack_212(const std::uint8_t* block, std::int64_t index) {
  if (index == 0) return sign_extend(block[0] | (block[1] & 0x0Fu) << 8, 12);
  return sign_extend(block[2] | (block[1] & 0xF0u) << 4, 12);
}

inline std::int32_t unpack_310(const std::uint8_t* block, std::int64_t index) {
  if (index < 2) return sign_extend(little_endian(block + 2 * index, 2) >> 1, 10);
  return sign_extend((block[1] >> 3) | (block[3] >> 3) << 5, 10);
}

inline std::int32_t unpack_311(const std::uint8_t* block, std::int64_t index) {
  return sign_extend(little_endian(block + index, 2) >> (2 * index), 10);
}

template <typename Sample, typename Unpack>
void decode_blocks(const Format& format, const std::uint8_t* bytes, std::int64_t count,
                   Sample* samples, const Unpack& unpack) {
  const std::int64_t block = format.block_samples;
  const std::int64_t whole = count / block * block;
  for (std::int64_t i = 0; i < whole; i += block, bytes += format.block_bytes) {
    for (std::int64_t k = 0; k < block; ++k) samples[i + k] = static_cast<Sample>(unpack(bytes, k));
  }
  for (std::int64_t k = 0; k < count - whole; ++k) {
    samples[whole + k] = static_cast<Sample>(unpack(bytes, k));
  }
}

}  // namespace detail

// Decodes `count` samples from bytes_of(format, count) bytes. Format 8 gives the differences as
// stored; accumulate() makes samples of them.
template <typename Sample>
void decode(const Format& format, const std::uint8_t* bytes, std::int64_t count, Sample* samples) {
  using namespace detail;
  const auto run = [&](const auto& unpack) {
    decode_blocks(format, bytes, count, samples, unpack);
  };
  using Bytes = const std::uint8_t*;
  switch (format.code) {
    case 8:
      return run([](Bytes b, std::int64_t) { return sign_extend(b[0], 8); });
    case 16:
      return run([](Bytes b, std::int64_t) { return sign_extend(little_endian(b, 2), 16); });
    case 24:
      return run([](Bytes b, std::int64_t) { return sign_extend(little_endian(b, 3), 24); });
    case 32:
      return run([](Bytes b, std::int64_t) { return sign_extend(little_endian(b, 4), 32); });
    case 61:
      return run([](Bytes b, std::int64_t) { return sign_extend(b[0] << 8 | b[1], 16); });
    case 80:
      return run([](Bytes b, std::int64_t) { return b[0] - 128; });
    case 160:
      return run([](Bytes b, std::int64_t) {
        return static_cast<std::int32_t>(little_endian(b, 2)) - 32768;
      });
    case 212:
      return run(unpack_212);
    case 310:
      return run(unpack_310);
    case 311:
      return run(unpack_311);
  }
}

// The running sum of each column of (num_frames, width) differences, from its initial value on;
// modulo 2^32, like the sums of other readers.
inline void accumulate(std::int32_t* samples, std::int64_t num_frames, std::int64_t width,
                       std::int64_t column, std::int64_t initial_value) {
  auto sum = static_cast<std::uint32_t>(initial_value);
  for (std::int64_t t = 0; t < num_frames; ++t) {
    std::int32_t& sample = samples[t * width + column];
    sum += static_cast<std::uint32_t>(sample);
    sample = static_cast<std::int32_t>(sum);
  }
}

}  // namespace esi
