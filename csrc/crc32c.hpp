// CRC-32C (Castagnoli), which CPUs compute in hardware: finds a flipped byte as fast as memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace esi {

namespace detail {

inline constexpr std::uint32_t kCastagnoli = 0x82F63B78;  // reflected

struct CrcTable {
  std::uint32_t of_byte[256] = {};
  constexpr CrcTable() {
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      std::uint32_t crc = byte;
      for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ kCastagnoli : crc >> 1;
      of_byte[byte] = crc;
    }
  }
};
inline constexpr CrcTable kCrcTable;

inline std::uint32_t crc_step(std::uint32_t crc, const unsigned char* data) {
  return kCrcTable.of_byte[(crc ^ *data) & 0xFF] ^ crc >> 8;
}

inline std::uint32_t crc_step8(std::uint32_t crc, const unsigned char* data) {
#if defined(__SSE4_2__)
  std::uint64_t word;
  std::memcpy(&word, data, 8);
  return static_cast<std::uint32_t>(_mm_crc32_u64(crc, word));
#elif defined(__ARM_FEATURE_CRC32)
  std::uint64_t word;
  std::memcpy(&word, data, 8);
  return __crc32cd(crc, word);
#else
  for (int i = 0; i < 8; ++i) crc = crc_step(crc, data + i);
  return crc;
#endif
}

// Product of two polynomials modulo Castagnoli's, bits reflected: x^0 is the highest bit.
constexpr std::uint32_t crc_product(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product = 0;
  for (int bit = 31; bit >= 0; --bit) {
    if (a >> bit & 1) product ^= b;
    b = b & 1 ? b >> 1 ^ kCastagnoli : b >> 1;
  }
  return product;
}

// What a register is multiplied by when `num_bytes` zero bytes follow.
constexpr std::uint32_t crc_zeros(std::size_t num_bytes) {
  std::uint32_t power = 0x00800000;  // x^8
  std::uint32_t result = 0x80000000;
  for (; num_bytes; num_bytes >>= 1) {
    if (num_bytes & 1) result = crc_product(result, power);
    power = crc_product(power, power);
  }
  return result;
}

}  // namespace detail

// Of `data`, going on from the CRC of what came before it (0 at the start).
inline std::uint32_t crc32c(const void* data, std::size_t num_bytes, std::uint32_t before = 0) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  std::uint32_t crc = ~before;
  // The instruction takes one step a cycle but three cycles each: three blocks keep it busy.
  constexpr std::size_t kBlock = 4096;
  constexpr std::uint32_t kOneBlock = detail::crc_zeros(kBlock);
  constexpr std::uint32_t kTwoBlocks = detail::crc_zeros(2 * kBlock);
  for (; num_bytes >= 3 * kBlock; num_bytes -= 3 * kBlock, bytes += 3 * kBlock) {
    std::uint32_t second = 0;
    std::uint32_t third = 0;
    for (std::size_t i = 0; i < kBlock; i += 8) {
      crc = detail::crc_step8(crc, bytes + i);
      second = detail::crc_step8(second, bytes + kBlock + i);
      third = detail::crc_step8(third, bytes + 2 * kBlock + i);
    }
    crc = detail::crc_product(kTwoBlocks, crc) ^ detail::crc_product(kOneBlock, second) ^ third;
  }
  for (; num_bytes >= 8; num_bytes -= 8, bytes += 8) crc = detail::crc_step8(crc, bytes);
  for (; num_bytes > 0; --num_bytes, ++bytes) crc = detail::crc_step(crc, bytes);
  return ~crc;
}

}  // namespace esi
