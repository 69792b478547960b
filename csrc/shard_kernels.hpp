// Passes over the int16 samples of a lead in a shard: sums, and conversion to float32.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels.hpp"
#include "simd.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#define ESI_USE_AVX2 __attribute__((target("avx2,fma")))
#endif

namespace esi {

namespace detail {

// Count, sum and sum of squares of the samples that are there: exact.
struct LeadSums {
  std::int64_t count = 0;
  std::int64_t sum = 0;
  std::int64_t squares = 0;

  double mean() const {
    return count ? static_cast<double>(sum) / static_cast<double>(count) : 0.0;
  }
};

inline LeadSums lead_sums_plain(const std::int16_t* x, std::int64_t length) {
  LeadSums sums;
  for (std::int64_t i = 0; i < length; ++i) {
    const std::int64_t is_there = x[i] != kMissingInt16;
    const std::int64_t value = is_there * x[i];
    sums.count += is_there;
    sums.sum += value;
    sums.squares += value * value;
  }
  return sums;
}

// x / 1000, to the nearest float32.
struct ToMillivolts {
  float operator()(float x) const { return x / 1000.0f; }
#if defined(__x86_64__)
  ESI_USE_AVX2 __m256 operator()(__m256 x) const {
    return _mm256_div_ps(x, _mm256_set1_ps(1000.0f));
  }
#endif
};

struct ToZScores {
  float mean;
  float scale;
  float operator()(float x) const { return (x - mean) * scale; }
#if defined(__x86_64__)
  ESI_USE_AVX2 __m256 operator()(__m256 x) const {
    return _mm256_mul_ps(_mm256_sub_ps(x, _mm256_set1_ps(mean)), _mm256_set1_ps(scale));
  }
#endif
};

template <typename Convert>
void convert_plain(const std::int16_t* x, std::int64_t length, float missing, float* out,
                   const Convert& convert) {
  for (std::int64_t i = 0; i < length; ++i) {
    const float value = convert(static_cast<float>(x[i]));
    out[i] = x[i] == kMissingInt16 ? missing : value;
  }
}

#if defined(__x86_64__)

ESI_USE_AVX2 inline LeadSums lead_sums_avx2(const std::int16_t* x, std::int64_t length) {
  const __m256i mark = _mm256_set1_epi16(kMissingInt16);
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i zero = _mm256_setzero_si256();
  __m256i squares = zero;  // four of 64 bits
  LeadSums sums;
  std::int64_t i = 0;
  while (i + 16 <= length) {
    // Short enough for 32 bits to hold the sums of pairs, and 16 the counts.
    const std::int64_t end = std::min(length - 15, i + (std::int64_t{1} << 15));
    __m256i sum = zero;
    __m256i missing = zero;
    for (; i < end; i += 16) {
      const __m256i samples = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
      const __m256i is_missing = _mm256_cmpeq_epi16(samples, mark);
      const __m256i values = _mm256_andnot_si256(is_missing, samples);
      missing = _mm256_sub_epi16(missing, is_missing);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(values, ones));
      // At most 2 * 32767^2, which 31 bits hold.
      const __m256i pairs = _mm256_madd_epi16(values, values);
      squares = _mm256_add_epi64(squares, _mm256_unpacklo_epi32(pairs, zero));
      squares = _mm256_add_epi64(squares, _mm256_unpackhi_epi32(pairs, zero));
    }
    alignas(32) std::int32_t sums_of_pairs[8];
    alignas(32) std::uint16_t counts[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums_of_pairs), sum);
    _mm256_store_si256(reinterpret_cast<__m256i*>(counts), missing);
    for (const std::int32_t one : sums_of_pairs) sums.sum += one;
    for (const std::uint16_t one : counts) sums.count -= one;
  }
  alignas(32) std::int64_t of_lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(of_lanes), squares);
  for (const std::int64_t one : of_lanes) sums.squares += one;
  const LeadSums rest = lead_sums_plain(x + i, length - i);
  return {sums.count + i + rest.count, sums.sum + rest.sum, sums.squares + rest.squares};
}

// A batch is larger than the caches and read by others: it is written past them, in a third of the
// time.
template <typename Convert>
ESI_USE_AVX2 void convert_avx2(const std::int16_t* x, std::int64_t length, float missing,
                               float* out, const Convert& convert) {
  const auto unaligned = static_cast<std::int64_t>(
      (32 - reinterpret_cast<std::uintptr_t>(out) % 32) % 32 / sizeof(float));
  std::int64_t i = std::min(length, unaligned);
  convert_plain(x, i, missing, out, convert);
  const __m256i mark = _mm256_set1_epi32(kMissingInt16);
  const __m256 instead = _mm256_set1_ps(missing);
  for (; i + 8 <= length; i += 8) {
    const __m256i samples =
        _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i)));
    const __m256 value = convert(_mm256_cvtepi32_ps(samples));
    const __m256 is_missing = _mm256_castsi256_ps(_mm256_cmpeq_epi32(samples, mark));
    _mm256_stream_ps(out + i, _mm256_blendv_ps(value, instead, is_missing));
  }
  convert_plain(x + i, length - i, missing, out + i, convert);
  _mm_sfence();  // all is in place before anyone is told
}

#endif

inline LeadSums lead_sums(const std::int16_t* x, std::int64_t length) {
#if defined(__x86_64__)
  if (chosen_instruction_set() == InstructionSet::kAvx2) return lead_sums_avx2(x, length);
#endif
  return lead_sums_plain(x, length);
}

// out = convert(x), `missing` where there is no sample.
template <typename Convert>
void convert_samples(const std::int16_t* x, std::int64_t length, float missing, float* out,
                     const Convert& convert) {
#if defined(__x86_64__)
  if (chosen_instruction_set() == InstructionSet::kAvx2) {
    convert_avx2(x, length, missing, out, convert);
    return;
  }
#endif
  convert_plain(x, length, missing, out, convert);
}

}  // namespace detail

}  // namespace esi
