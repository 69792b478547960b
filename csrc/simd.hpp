// Kernels for the CPU at hand: compiled for the baseline and for AVX2, chosen at run time.
//
// A kernel is a generic lambda that takes the vector width as a compile-time constant. Both
// versions do the same sums in the same order; AVX2 rounds once where it fuses multiply and add.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace esi {

enum class InstructionSet { kBaseline, kAvx2 };

// "flatten" inlines the kernel, and whatever it calls, so that all of it is compiled for AVX2.
#if defined(__x86_64__)
#define ESI_AVX2 __attribute__((target("avx2,fma"), flatten, noinline))
inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#else
#define ESI_AVX2
inline bool has_avx2() { return false; }
#endif

namespace detail {

inline std::atomic<InstructionSet>& chosen_instruction_set() {
  static std::atomic<InstructionSet> chosen{has_avx2() ? InstructionSet::kAvx2
                                                       : InstructionSet::kBaseline};
  return chosen;
}

template <typename Kernel>
ESI_AVX2 void run_avx2(const Kernel& kernel) {
  kernel(std::integral_constant<int, 8>{});
}

}  // namespace detail

// What this CPU can run, best first.
inline std::vector<std::string> instruction_sets() {
  return has_avx2() ? std::vector<std::string>{"avx2", "baseline"}
                    : std::vector<std::string>{"baseline"};
}

// For tests and benchmarks; the best one is in use from the start.
inline void use_instruction_set(const std::string& name) {
  if (name == "baseline") {
    detail::chosen_instruction_set() = InstructionSet::kBaseline;
  } else if (name == "avx2" && has_avx2()) {
    detail::chosen_instruction_set() = InstructionSet::kAvx2;
  } else {
    throw std::invalid_argument("instruction set '" + name + "' is not available on this CPU");
  }
}

// Runs kernel(width): 8 floats a vector with AVX2, 4 without (SSE, NEON).
template <typename Kernel>
void for_this_cpu(const Kernel& kernel) {
  if (detail::chosen_instruction_set().load(std::memory_order_relaxed) == InstructionSet::kAvx2) {
    detail::run_avx2(kernel);
  } else {
    kernel(std::integral_constant<int, 4>{});
  }
}

namespace detail {

// GCC's and Clang's portable SIMD: unaligned, may alias floats.
template <int WIDTH>
struct VectorOf;
template <>
struct VectorOf<4> {
  typedef float Type __attribute__((vector_size(16)));
  typedef float Load __attribute__((vector_size(16), aligned(4), may_alias));
  typedef int Int __attribute__((vector_size(16)));
};
template <>
struct VectorOf<8> {
  typedef float Type __attribute__((vector_size(32)));
  typedef float Load __attribute__((vector_size(32), aligned(4), may_alias));
  typedef int Int __attribute__((vector_size(32)));
};

}  // namespace detail

}  // namespace esi
