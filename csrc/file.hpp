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
      fail_io();
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
    auto* bytes = static_cast<char*>(out);
    Cache cache = Cache::kHit;
    const auto started = std::chrono::steady_clock::now();
    while (count > 0) {
      const ssize_t got = read_some(bytes, count, begin, cache);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail_io();
      if (got == 0) {
        throw RecordError(Status::kTruncated, name_ + ": became shorter while it was read");
      }
      bytes += got;
      begin += got;
      count -= got;
    }
    // Where the file system cannot tell, time does: no memory takes that long.
    constexpr std::chrono::milliseconds kSlow{1};
    return cache == Cache::kHit ||
           (cache == Cache::kUnknown && std::chrono::steady_clock::now() - started < kSlow);
  }

  // Asks the system to begin reading; returns at once.
  void will_need() const { ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_WILLNEED); }

 private:
  [[noreturn]] void fail_io() const {
    throw RecordError(Status::kIo, name_ + ": " + std::generic_category().message(errno));
  }

  enum class Cache { kHit, kMiss, kUnknown };

  // pread(), but learning on the way whether the page cache had the bytes.
  ssize_t read_some(char* bytes, std::int64_t count, std::int64_t begin, Cache& cache) const {
#ifdef RWF_NOWAIT
    if (cache == Cache::kHit) {
      const iovec target{bytes, static_cast<std::size_t>(count)};
      const ssize_t got = ::preadv2(descriptor_, &target, 1, begin, RWF_NOWAIT);
      if (got >= 0 || errno == EINTR) return got;
      cache = errno == EAGAIN ? Cache::kMiss : Cache::kUnknown;
    }
#else
    cache = Cache::kUnknown;
#endif
    return ::pread(descriptor_, bytes, static_cast<std::size_t>(count), begin);
  }

  std::string name_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

}  // namespace detail

}  // namespace esi
