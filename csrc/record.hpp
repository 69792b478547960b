// One WFDB record from disk, as stored: header, data files, sizes, checksums.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <string>
#include <system_error>
#include <vector>

#include "formats.hpp"
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
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  std::int64_t size() const { return size_; }

  // Bytes begin .. begin + count, which the caller knows to lie within size().
  void read(std::int64_t begin, std::int64_t count, void* out) const {
    auto* bytes = static_cast<char*>(out);
    while (count > 0) {
      const ssize_t got = ::pread(descriptor_, bytes, static_cast<std::size_t>(count), begin);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail_io();
      if (got == 0) {
        throw RecordError(Status::kTruncated, name_ + ": became shorter while it was read");
      }
      bytes += got;
      begin += got;
      count -= got;
    }
  }

 private:
  [[noreturn]] void fail_io() const {
    throw RecordError(Status::kIo, name_ + ": " + std::generic_category().message(errno));
  }

  std::string name_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

// Refuses names that would reach outside the record's folder.
inline void check_data_file_name(const std::string& name) {
  bool leaves = name.empty() || name[0] == '/' || name.find('\0') != std::string::npos;
  for (std::size_t begin = 0; begin <= name.size() && !leaves;) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    leaves = name.compare(begin, end - begin, "..") == 0;
    begin = end + 1;
  }
  if (leaves) fail("the file " + quote(name) + " lies outside the record's folder");
}

}  // namespace detail

// Reads and parses `stem`.hea.
inline Header read_header(const std::string& stem) {
  const std::string name = detail::base_name(stem) + ".hea";
  const detail::File file(stem + ".hea");
  constexpr std::int64_t kLargest = 16 << 20;
  if (file.size() > kLargest) {
    throw RecordError(Status::kFormat, name + ": " + std::to_string(file.size()) +
                                           " bytes are no header (at most 16 MiB)");
  }
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, file.size(), text.data());
  try {
    return parse_header(text);
  } catch (const RecordError& error) {
    throw RecordError(error.status(), name + ": " + error.what());
  }
}

// The signals that share one data file; a frame of it holds one sample of each.
struct Group {
  std::string file;
  std::int64_t first = 0;  // index of its first signal
  std::int64_t width = 0;  // its number of signals
  std::int64_t byte_offset = 0;
  const NativeFormat* format = nullptr;
};

// How the signals lie in files; throws kUnsupported for what only the wfdb package reads.
inline std::vector<Group> group_signals(const Header& header) {
  const auto unsupported = [](const std::string& reason) {
    throw RecordError(Status::kUnsupported, reason);
  };
  // Names first: what is handed on to another reader must not leave the folder either.
  for (const SignalSpec& spec : header.signals) detail::check_data_file_name(spec.file);
  for (const std::string& segment : header.segments) detail::check_data_file_name(segment);
  if (header.num_segments != 1) unsupported("several segments");
  if (header.signals.empty()) detail::fail("the header describes no signals");
  std::vector<Group> groups;
  for (std::size_t i = 0; i < header.signals.size(); ++i) {
    const SignalSpec& spec = header.signals[i];
    const NativeFormat* format = native_format(spec.format);
    if (!format) unsupported("format " + std::to_string(spec.format));
    if (spec.samples_per_frame != 1) unsupported("several samples per frame");
    if (spec.skew != 0) unsupported("skewed signals");
    if (groups.empty() || groups.back().file != spec.file) {
      for (const Group& group : groups) {
        if (group.file == spec.file) unsupported("a data file whose signals are not in sequence");
      }
      groups.push_back({spec.file, static_cast<std::int64_t>(i), 0, spec.byte_offset, format});
    }
    Group& group = groups.back();
    if (spec.byte_offset != group.byte_offset || format != group.format) {
      detail::fail("the signals of " + detail::quote(spec.file) +
                   " differ in format or byte offset");
    }
    ++group.width;
  }
  return groups;
}

// The number of samples a signal, proved against the size of a data file.
inline std::int64_t samples_in(const Group& group, std::int64_t file_size,
                               std::int64_t num_samples) {
  const std::int64_t frame = group.width * group.format->bytes_per_sample;
  const std::int64_t available = std::max<std::int64_t>(0, file_size - group.byte_offset);
  const std::string name = detail::base_name(group.file);
  if (num_samples > available / frame) {
    throw RecordError(Status::kTruncated,
                      name + ": expected " +
                          std::to_string(group.byte_offset + num_samples * frame) +
                          " bytes, found " + std::to_string(file_size));
  }
  if (num_samples > 0) return num_samples;
  if (available % frame != 0 || file_size < group.byte_offset) {
    throw RecordError(Status::kTruncated, name + ": " + std::to_string(file_size) +
                                              " bytes are no whole number of frames of " +
                                              std::to_string(frame) + " bytes");
  }
  return available / frame;
}

// A header and its samples as stored: group after group, each (num_samples, width).
struct RawRecord {
  Header header;
  std::vector<Group> groups;
  std::int64_t num_samples = 0;
  std::vector<std::vector<std::int16_t>> samples;  // one a group
};

// One thread's reader; its buffers are used again from record to record.
class Reader {
 public:
  RawRecord record;

  // Parses the header, groups the signals and settles num_samples, reading no samples.
  void open(const std::string& stem) {
    record.header = read_header(stem);
    folder_ = detail::folder_of(stem);
    try {
      record.groups = group_signals(record.header);
    } catch (const RecordError& error) {
      if (error.status() != Status::kUnsupported) {
        throw RecordError(error.status(), detail::base_name(stem) + ".hea: " + error.what());
      }
      check_segments();
      throw;
    }
  }

  void probe(const std::string& stem) {
    open(stem);
    measure();
  }

  // Reads the samples of the record that open() found.
  void read(bool verify) {
    measure();
    record.samples.resize(record.groups.size());
    for (std::size_t g = 0; g < record.groups.size(); ++g) {
      const Group& group = record.groups[g];
      const detail::File file(folder_ + group.file);
      const std::int64_t count = record.num_samples * group.width;
      const std::int64_t num_bytes = count * group.format->bytes_per_sample;
      if (file.size() - group.byte_offset < num_bytes) {
        samples_in(group, file.size(), record.num_samples);  // shrank since: throws
      }
      bytes_.resize(static_cast<std::size_t>(num_bytes));
      file.read(group.byte_offset, num_bytes, bytes_.data());
      record.samples[g].resize(static_cast<std::size_t>(count));
      decode_16(bytes_.data(), count, record.samples[g].data());
      if (verify) verify_checksums(group, record.samples[g].data());
    }
  }

 private:
  // The data files that the segments of a record name must lie in its folder, too.
  void check_segments() const {
    for (const std::string& segment : record.header.segments) {
      if (segment == "~") continue;  // a gap
      const Header header = read_header(folder_ + segment);
      if (header.num_segments != 1) detail::fail(segment + ".hea: segments within a segment");
      for (const SignalSpec& spec : header.signals) detail::check_data_file_name(spec.file);
    }
  }

  void measure() {
    std::int64_t num_samples = record.header.num_samples;
    for (const Group& group : record.groups) {
      const detail::File file(folder_ + group.file);
      const std::int64_t found = samples_in(group, file.size(), record.header.num_samples);
      if (&group != &record.groups.front() && found != num_samples) {
        throw RecordError(Status::kTruncated,
                          group.file + ": holds " + std::to_string(found) + " samples a signal, " +
                              record.groups.front().file + " " + std::to_string(num_samples));
      }
      num_samples = found;
    }
    if (num_samples == 0) {
      throw RecordError(Status::kTruncated, record.groups.front().file + ": holds no samples");
    }
    record.num_samples = num_samples;
  }

  void verify_checksums(const Group& group, const std::int16_t* samples) {
    sums_.resize(static_cast<std::size_t>(group.width));
    checksums(samples, record.num_samples, group.width, sums_.data());
    for (std::int64_t i = 0; i < group.width; ++i) {
      const SignalSpec& spec = record.header.signals[static_cast<std::size_t>(group.first + i)];
      const std::uint16_t sum = sums_[static_cast<std::size_t>(i)];
      // Writers state the 16 bits signed or unsigned: both are the same bits.
      if (spec.checksum && static_cast<std::uint16_t>(*spec.checksum) != sum) {
        const bool is_signed = *spec.checksum <= std::numeric_limits<std::int16_t>::max();
        const int shown = is_signed ? static_cast<std::int16_t>(sum) : sum;
        throw RecordError(Status::kChecksum, detail::base_name(group.file) + ": checksum of lead " +
                                                 spec.description + " is " + std::to_string(shown) +
                                                 ", header says " + std::to_string(*spec.checksum));
      }
    }
  }

  std::string folder_;
  std::vector<std::uint8_t> bytes_;
  std::vector<std::uint16_t> sums_;
};

}  // namespace esi
