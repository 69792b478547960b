// Files: whole reads by name, and whether the page cache had them.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>

#include "header.hpp"

namespace esi {

namespace detail {

inline std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 == 0: the whole path
}

inline std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// Whether the page cache had the bytes of a read.
enum class Cache { kHit, kMiss, kUnknown };

// pread(), but learning on the way whether the page cache had the bytes.
inline ssize_t read_some(int descriptor, char* bytes, std::int64_t count, std::int64_t begin,
                         Cache& cache) {
#ifdef RWF_NOWAIT
  if (cache == Cache::kHit) {
    const iovec target{bytes, static_cast<std::size_t>(count)};
    const ssize_t got = ::preadv2(descriptor, &target, 1, begin, RWF_NOWAIT);
    if (got >= 0 || errno == EINTR) return got;
    cache = errno == EAGAIN ? Cache::kMiss : Cache::kUnknown;
  }
#else
  cache = Cache::kUnknown;
#endif
  return ::pread(descriptor, bytes, static_cast<std::size_t>(count), begin);
}

// How a read of `count` bytes ended: how many there were (fewer at the file's end), errno or 0, and
// whether the page cache had them.
struct ReadOutcome {
  std::int64_t count = 0;
  int error = 0;
  bool cached = true;
};

inline ReadOutcome read_at(int descriptor, std::int64_t begin, std::int64_t count, void* out) {
  auto* bytes = static_cast<char*>(out);
  ReadOutcome outcome;
  Cache cache = Cache::kHit;
  const auto started = std::chrono::steady_clock::now();
  while (outcome.count < count) {
    const ssize_t got = read_some(descriptor, bytes + outcome.count, count - outcome.count,
                                  begin + outcome.count, cache);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) outcome.error = errno;
    if (got <= 0) break;
    outcome.count += got;
  }
  // Where the file system cannot tell, time does: no memory takes that long.
  constexpr std::chrono::milliseconds kSlow{1};
  outcome.cached = cache == Cache::kHit ||
                   (cache == Cache::kUnknown && std::chrono::steady_clock::now() - started < kSlow);
  return outcome;
}

// An open regular file.
class File {
 public:
  explicit File(const std::string& path) : name_(base_name(path)) {
    if (path.find('\0') != std::string::npos) {
      throw RecordError(Status::kMissing, name_ + ": no such file");
    }
    // O_NONBLOCK: a named pipe in a data folder must not hang the reader.
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) {
      const bool absent = errno == ENOENT || errno == ENOTDIR;
      if (absent) throw RecordError(Status::kMissing, name_ + ": no such file");
      fail_io(errno);
    }
    struct stat info{};
    if (::fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode)) {
      ::close(descriptor_);
      throw RecordError(Status::kIo, name_ + ": not a regular file");
    }
    size_ = static_cast<std::int64_t>(info.st_size);
  }
  File(File&& other) noexcept
      : name_(std::move(other.name_)),
        descriptor_(std::exchange(other.descriptor_, -1)),
        size_(other.size_) {}
  File& operator=(File&&) = delete;
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  std::int64_t size() const { return size_; }

  // Bytes begin .. begin + count, which the caller knows to lie within size(). False if they had
  // to be fetched from a disk.
  bool read(std::int64_t begin, std::int64_t count, void* out) const {
    const ReadOutcome outcome = read_at(descriptor_, begin, count, out);
    if (outcome.error != 0) fail_io(outcome.error);
    if (outcome.count < count) {
      throw RecordError(Status::kTruncated, name_ + ": became shorter while it was read");
    }
    return outcome.cached;
  }

  // Asks the system to begin reading; returns at once.
  void will_need() const { ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_WILLNEED); }

 private:
  [[noreturn]] void fail_io(int error) const {
    throw RecordError(Status::kIo, name_ + ": " + std::generic_category().message(error));
  }

  std::string name_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

}  // namespace detail

}  // namespace esi
