// Fuzz target: one sample decoder, the one of the format that the program's name ends in.
//
// Input: 8 bytes a size, 1 byte samples to leave undecoded, 1 byte a frame's width; then the data.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../csrc/formats.hpp"
#include "check.hpp"
#include "layout.hpp"

namespace {

using fuzz::check;

const esi::Format* format = nullptr;
const fuzz::Layout* layout = nullptr;

std::int64_t bytes_by_layout(std::int64_t count) {
  const auto block = static_cast<std::int64_t>(layout->samples.size());
  return count / block * static_cast<std::int64_t>(layout->block_bytes) +
         static_cast<std::int64_t>(layout->reach(static_cast<std::size_t>(count % block)));
}

// `number` is a count of samples, then a count of bytes.
void check_sizes(std::int64_t number) {
  using esi::bytes_of;
  using esi::samples_in;
  const std::int64_t num_bytes = bytes_of(*format, number);
  check(num_bytes == bytes_by_layout(number), "bytes_of() agrees with the layout");
  check(samples_in(*format, num_bytes) >= number, "bytes_of(n) bytes hold n samples");
  check(number == 0 || samples_in(*format, num_bytes - 1) < number, "and one byte less does not");
  const std::int64_t count = samples_in(*format, number);
  check(bytes_of(*format, count) <= number, "samples_in(b) samples lie in b bytes");
  check(bytes_of(*format, count + 1) > number, "and one sample more does not");
}

// Memory to the byte, at an odd address: what reads or writes beyond it is a finding.
template <typename Sample>
std::vector<std::int64_t> decoded(const std::vector<std::uint8_t>& bytes, std::size_t count) {
  const std::unique_ptr<std::uint8_t[]> in(new std::uint8_t[bytes.size() + 1]);
  std::copy(bytes.begin(), bytes.end(), in.get() + 1);
  const std::unique_ptr<Sample[]> out(new Sample[count]);
  esi::decode(*format, in.get() + 1, static_cast<std::int64_t>(count), out.get());
  return {out.get(), out.get() + count};
}

void check_samples(const std::vector<std::uint8_t>& bytes, std::size_t count) {
  std::vector<std::int64_t> samples(count);
  std::vector<std::uint8_t> stored(bytes.size());
  for (std::size_t i = 0; i < count; ++i) samples[i] = layout->load(bytes.data(), i);
  check(decoded<std::int32_t>(bytes, count) == samples, "32 bits: as decoded bit by bit");
  if (!format->wide) {
    check(decoded<std::int16_t>(bytes, count) == samples, "16 bits: as decoded bit by bit");
  }
  for (std::size_t i = 0; i < count; ++i) layout->store(stored.data(), i, samples[i]);
  check(decoded<std::int32_t>(stored, count) == samples, "samples stored anew are the same");
  std::vector<std::uint8_t> used(bytes.size());
  const std::int64_t all_bits_set = layout->offset - 1;
  for (std::size_t i = 0; i < count; ++i) layout->store(used.data(), i, all_bits_set);
  for (std::size_t i = 0; i < used.size(); ++i) stored[i] |= static_cast<std::uint8_t>(~used[i]);
  check(decoded<std::int32_t>(stored, count) == samples, "bits between samples have no say");
}

void check_accumulate(std::vector<std::int32_t> samples, std::int64_t width, std::uint32_t start) {
  const std::int64_t num_frames = static_cast<std::int64_t>(samples.size()) / width;
  for (std::int64_t column = 0; column < width; ++column) {
    std::vector<std::int32_t> sums = samples;
    esi::accumulate(sums.data(), num_frames, width, column, static_cast<std::int32_t>(start));
    std::uint64_t sum = start;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(samples.size()); ++i) {
      const std::int32_t before = samples[static_cast<std::size_t>(i)];
      const bool summed = i % width == column && i / width < num_frames;
      if (summed) sum += static_cast<std::uint64_t>(std::int64_t{before});
      const auto low = static_cast<std::uint32_t>(sum);
      check(sums[static_cast<std::size_t>(i)] == (summed ? static_cast<std::int32_t>(low) : before),
            "accumulate() sums its own column");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char*** argv) {
  const std::string name = (*argv)[0];
  const int code = std::atoi(name.c_str() + name.rfind('-') + 1);
  format = esi::native_format(code);
  layout = fuzz::layout_of(code);
  if (format && layout) return 0;
  std::fprintf(stderr, "%s: its name ends in no format that is decoded\n", name.c_str());
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kHead = 10;
  if (size < kHead) return -1;
  std::uint64_t number = 0;
  std::memcpy(&number, data, sizeof(number));
  check_sizes(static_cast<std::int64_t>(number >> 4));  // every size below 2^60
  const std::size_t left_out = data[8];
  const std::int64_t width = 1 + data[9] % 16;

  const auto most =
      static_cast<std::size_t>(esi::samples_in(*format, static_cast<std::int64_t>(size - kHead)));
  const std::size_t count = most - std::min(left_out, most);
  const std::int64_t num_bytes = esi::bytes_of(*format, static_cast<std::int64_t>(count));
  check(num_bytes <= static_cast<std::int64_t>(size - kHead), "no more bytes than there are");
  const std::vector<std::uint8_t> bytes(data + kHead, data + kHead + num_bytes);
  check_samples(bytes, count);
  if (format->code == 8) {
    std::vector<std::int32_t> differences(count);
    esi::decode(*format, bytes.data(), static_cast<std::int64_t>(count), differences.data());
    check_accumulate(differences, width, static_cast<std::uint32_t>(number));
  }
  return 0;
}
