// What every fuzz target needs: a check that ends the process, and a limit on memory.
#pragma once

#include <sanitizer/allocator_interface.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace fuzz {

inline void check(bool holds, const char* claim) {
  if (holds) return;
  std::fprintf(stderr, "CHECK FAILED: %s\n", claim);
  std::abort();
}

// An error message is one short line of printable characters, whatever the file held.
inline void check_message(const std::string& message) {
  bool is_line = !message.empty() && message.size() < 400;
  for (char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    is_line = is_line && byte >= 0x20 && byte != 0x7F;
  }
  if (is_line) return;
  std::fprintf(stderr, "CHECK FAILED: an error is one short line of printable characters: %s\n",
               message.c_str());
  std::abort();
}

// While it lives, more than `limit` bytes allocated at one time are a finding.
class MemoryLimit {
 public:
  explicit MemoryLimit(std::size_t limit) {
    static const bool installed = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0;
    check(installed, "the sanitizer calls the memory hooks");
    live_ = 0;
    limit_ = static_cast<std::int64_t>(limit);
  }
  ~MemoryLimit() { limit_ = INT64_MAX; }
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  static void on_malloc(const volatile void*, std::size_t size) {
    live_ += static_cast<std::int64_t>(size);
    if (live_ <= limit_) return;
    const std::int64_t limit = limit_;
    limit_ = INT64_MAX;  // reporting allocates, too
    std::fprintf(stderr, "CHECK FAILED: memory stays below %lld bytes (one more block of %zu)\n",
                 static_cast<long long>(limit), size);
    std::abort();
  }

  static void on_free(const volatile void* block) {
    live_ -=
        static_cast<std::int64_t>(__sanitizer_get_allocated_size(const_cast<const void*>(block)));
  }

  static inline std::atomic<std::int64_t> live_{0};
  static inline std::atomic<std::int64_t> limit_{INT64_MAX};
};

}  // namespace fuzz
