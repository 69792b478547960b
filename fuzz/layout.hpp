// The WFDB sample formats once more, bit by bit from the published layouts: slow, and written
// apart from csrc/formats.hpp, so that the two can be compared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fuzz {

// `count` bits of a byte of the block, from bit `first` on.
struct Bits {
  std::size_t byte;
  int first;
  int count;
};

struct Layout {
  int code;
  std::size_t block_bytes;
  std::int64_t offset;                     // the stored number that means 0; 0: two's complement
  std::vector<std::vector<Bits>> samples;  // of one block, each from its lowest bits up

  // The bytes that the first `count` samples of a block reach into.
  std::size_t reach(std::size_t count) const {
    std::size_t bytes = 0;
    for (std::size_t k = 0; k < count; ++k) {
      for (const Bits& bits : samples[k]) bytes = bits.byte + 1 > bytes ? bits.byte + 1 : bytes;
    }
    return bytes;
  }

  std::int64_t load(const std::uint8_t* bytes, std::size_t index) const {
    bytes += index / samples.size() * block_bytes;
    std::int64_t number = 0;
    int position = 0;
    for (const Bits& bits : samples[index % samples.size()]) {
      for (int b = bits.first; b < bits.first + bits.count; ++b, ++position) {
        if (bytes[bits.byte] & (1 << b)) number += std::int64_t{1} << position;
      }
    }
    if (offset != 0) return number - offset;
    const std::int64_t half = std::int64_t{1} << (position - 1);
    return number >= half ? number - 2 * half : number;
  }

  // Sets the bits of a sample in bytes that are zero there.
  void store(std::uint8_t* bytes, std::size_t index, std::int64_t value) const {
    bytes += index / samples.size() * block_bytes;
    const std::uint64_t number = static_cast<std::uint64_t>(value + offset);
    int position = 0;
    for (const Bits& bits : samples[index % samples.size()]) {
      for (int b = bits.first; b < bits.first + bits.count; ++b, ++position) {
        if (number >> position & 1) bytes[bits.byte] |= static_cast<std::uint8_t>(1 << b);
      }
    }
  }
};

inline const Layout* layout_of(int code) {
  static const std::vector<Layout> layouts = {
      {8, 1, 0, {{{0, 0, 8}}}},
      {16, 2, 0, {{{0, 0, 8}, {1, 0, 8}}}},
      {24, 3, 0, {{{0, 0, 8}, {1, 0, 8}, {2, 0, 8}}}},
      {32, 4, 0, {{{0, 0, 8}, {1, 0, 8}, {2, 0, 8}, {3, 0, 8}}}},
      {61, 2, 0, {{{1, 0, 8}, {0, 0, 8}}}},
      {80, 1, 128, {{{0, 0, 8}}}},
      {160, 2, 32768, {{{0, 0, 8}, {1, 0, 8}}}},
      {212, 3, 0, {{{0, 0, 8}, {1, 0, 4}}, {{2, 0, 8}, {1, 4, 4}}}},
      {310, 4, 0, {{{0, 1, 7}, {1, 0, 3}}, {{2, 1, 7}, {3, 0, 3}}, {{1, 3, 5}, {3, 3, 5}}}},
      {311, 4, 0, {{{0, 0, 8}, {1, 0, 2}}, {{1, 2, 6}, {2, 0, 4}}, {{2, 4, 4}, {3, 0, 6}}}},
  };
  for (const Layout& layout : layouts) {
    if (layout.code == code) return &layout;
  }
  return nullptr;
}

}  // namespace fuzz
