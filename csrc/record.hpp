// One WFDB record from disk, as stored: header, data files, sizes, checksums.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "file.hpp"
#include "formats.hpp"
#include "header.hpp"
#include "kernels.hpp"
#include "strict.hpp"

namespace esi {

namespace detail {

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

// Reads and parses `stem`.hea; `strict` refuses what strays from the published syntax.
inline Header read_header(const std::string& stem, bool strict) {
  const std::string name = detail::base_name(stem) + ".hea";
  const detail::File file(stem + ".hea");
  constexpr std::int64_t kLargest = 4 << 20;
  if (file.size() > kLargest) {
    throw RecordError(Status::kFormat, name + ": " + std::to_string(file.size()) +
                                           " bytes are no header (at most 4 MiB)");
  }
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, file.size(), text.data());
  try {
    Header header = parse_header(text);
    if (strict) check_strict(text, header);
    return header;
  } catch (const RecordError& error) {
    throw RecordError(error.status(), name + ": " + error.what());
  }
}

// The signals that share one data file; a frame of it holds samples_per_frame of each.
struct Group {
  std::string file;
  std::int64_t first = 0;  // index of its first signal
  std::int64_t width = 0;  // its number of signals
  std::int64_t byte_offset = 0;
  const Format* format = nullptr;
};

// How the signals lie in files; throws kUnsupported for what it hands on to Python.
inline std::vector<Group> group_signals(const Header& header, bool strict) {
  const auto unsupported = [](const std::string& reason) {
    throw RecordError(Status::kUnsupported, reason);
  };
  // Names first: what is handed on to another reader must not leave the folder either.
  for (const SignalSpec& spec : header.signals) detail::check_data_file_name(spec.file);
  for (const std::string& segment : header.segments) detail::check_data_file_name(segment);
  if (header.num_segments != 1) unsupported("several segments");
  if (header.signals.empty()) detail::fail("the header describes no signals");
  const std::int64_t samples_per_frame = header.signals[0].samples_per_frame;
  std::vector<Group> groups;
  for (std::size_t i = 0; i < header.signals.size(); ++i) {
    const SignalSpec& spec = header.signals[i];
    const Format* format = native_format(spec.format);
    if (!format && !is_flac(spec.format)) {
      detail::fail("format " + std::to_string(spec.format) + " is not one of WFDB's");
    }
    if (!format) unsupported("format " + std::to_string(spec.format));
    if (spec.samples_per_frame != samples_per_frame) unsupported("unequal samples per frame");
    // wfdb averages the samples of a frame; this reader keeps them.
    if (strict && samples_per_frame != 1) unsupported("several samples per frame");
    if (spec.skew != 0) unsupported("skewed signals");
    if (groups.empty() || groups.back().file != spec.file) {
      // All are open at one time, and no record of an ECG is spread over as many.
      constexpr std::size_t kMostFiles = 256;
      if (groups.size() == kMostFiles) detail::fail("more than 256 data files");
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

// The number of frames, proved against the size of a data file.
inline std::int64_t frames_in(const Group& group, std::int64_t samples_per_frame,
                              std::int64_t file_size, std::int64_t stated_frames) {
  const Format& format = *group.format;
  const std::int64_t frame = group.width * samples_per_frame;
  const std::int64_t available = std::max<std::int64_t>(0, file_size - group.byte_offset);
  const std::int64_t frames = samples_in(format, available) / frame;
  const std::string name = detail::base_name(group.file);
  if (stated_frames > frames) {
    const bool countable = stated_frames < (std::int64_t{1} << 58) / frame;
    throw RecordError(Status::kTruncated,
                      name + ": expected " +
                          (countable ? std::to_string(group.byte_offset +
                                                      bytes_of(format, stated_frames * frame)) +
                                           " bytes"
                                     : std::to_string(stated_frames) + " frames of " +
                                           std::to_string(frame) + " samples") +
                          ", found " + std::to_string(file_size));
  }
  if (stated_frames > 0) return stated_frames;
  // Packed formats may end in an incomplete block; anything else is a part of a frame.
  const std::int64_t left = available - bytes_of(format, frames * frame);
  if (file_size < group.byte_offset || left >= format.block_bytes ||
      (left > 0 && format.block_samples == 1)) {
    throw RecordError(Status::kTruncated, name + ": " + std::to_string(file_size) +
                                              " bytes are no whole number of frames of " +
                                              std::to_string(frame) + " samples");
  }
  return frames;
}

// Samples as stored: (num_samples, width), in 16 bits or, where Format::wide says so, in 32.
struct Samples {
  bool is_wide = false;
  std::vector<std::int16_t> narrow;
  std::vector<std::int32_t> wide;

  // visitor(std::vector<int16_t or int32_t>&), whichever is in use.
  template <typename Visitor>
  void visit(const Visitor& visitor) {
    is_wide ? visitor(wide) : visitor(narrow);
  }
  template <typename Visitor>
  void visit(const Visitor& visitor) const {
    is_wide ? visitor(wide) : visitor(narrow);
  }
};

// A header and its samples, group after group.
struct RawRecord {
  Header header;
  std::vector<Group> groups;
  std::int64_t num_samples = 0;  // of a signal
  double fs = 0.0;               // the header's, times the samples of a frame
  std::vector<Samples> samples;  // one a group
};

// One thread's reader; its buffers are used again from record to record.
class Reader {
 public:
  explicit Reader(bool strict = false) : strict_(strict) {}

  RawRecord record;

  // Parses the header and groups the signals, touching no data file.
  void open(const std::string& stem) {
    record.header = read_header(stem, strict_);
    folder_ = detail::folder_of(stem);
    try {
      record.groups = group_signals(record.header, strict_);
    } catch (const RecordError& error) {
      if (error.status() != Status::kUnsupported) {
        throw RecordError(error.status(), detail::base_name(stem) + ".hea: " + error.what());
      }
      check_segments();
      throw;
    }
    samples_per_frame_ = record.header.signals[0].samples_per_frame;
    record.fs = record.header.fs * static_cast<double>(samples_per_frame_);
  }

  // Settles num_samples by the sizes of the data files, reading no samples.
  void measure() {
    files_.clear();
    std::int64_t num_frames = 0;
    for (const Group& group : record.groups) {
      files_.emplace_back(folder_ + group.file);
      const std::int64_t found =
          frames_in(group, samples_per_frame_, files_.back().size(), record.header.num_samples);
      if (files_.size() > 1 && found != num_frames) {
        throw RecordError(Status::kTruncated, group.file + ": holds " + std::to_string(found) +
                                                  " frames, " + record.groups.front().file + " " +
                                                  std::to_string(num_frames));
      }
      num_frames = found;
    }
    if (num_frames == 0) {
      throw RecordError(Status::kTruncated, record.groups.front().file + ": holds no samples");
    }
    record.num_samples = num_frames * samples_per_frame_;
  }

  // Reads the samples of the record that open() found. False if a disk had to be waited for.
  bool read(bool verify) {
    measure();
    bool cached = true;
    record.samples.resize(record.groups.size());
    for (std::size_t g = 0; g < record.groups.size(); ++g) {
      const Group& group = record.groups[g];
      record.samples[g].is_wide = group.format->wide;
      record.samples[g].visit(
          [&](auto& samples) { cached = read_group(group, files_[g], samples) && cached; });
      if (verify) {
        record.samples[g].visit([&](const auto& samples) { verify_group(group, samples.data()); });
      }
    }
    files_.clear();
    return cached;
  }

 private:
  // The data files that the segments of a record name must lie in its folder, too.
  void check_segments() const {
    for (const std::string& segment : record.header.segments) {
      if (segment == "~") continue;  // a gap
      const Header header = read_header(folder_ + segment, strict_);
      if (header.num_segments != 1) detail::fail(segment + ".hea: segments within a segment");
      for (const SignalSpec& spec : header.signals) detail::check_data_file_name(spec.file);
    }
  }

  template <typename Sample>
  bool read_group(const Group& group, const detail::File& file, std::vector<Sample>& samples) {
    const std::int64_t count = record.num_samples * group.width;
    const std::int64_t num_bytes = bytes_of(*group.format, count);
    samples.resize(static_cast<std::size_t>(count));
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const bool as_stored = group.format->code == 16;
#else
    const bool as_stored = false;
#endif
    bool cached = true;
    if (as_stored) {
      cached = file.read(group.byte_offset, num_bytes, samples.data());
    } else {
      bytes_.resize(static_cast<std::size_t>(num_bytes));
      cached = file.read(group.byte_offset, num_bytes, bytes_.data());
      decode(*group.format, bytes_.data(), count, samples.data());
    }
    if (samples_per_frame_ > 1) interleave(group.width, samples);
    if constexpr (sizeof(Sample) == sizeof(std::int32_t)) {
      for (std::int64_t i = 0; i < group.width && group.format->code == 8; ++i) {
        const SignalSpec& spec = spec_of(group, i);
        accumulate(samples.data(), record.num_samples, group.width, i,
                   spec.initial_value.value_or(spec.adc_zero));
      }
    }
    return cached;
  }

  // Frames that hold all samples of one signal before the next -> one sample of each in turn.
  template <typename Sample>
  void interleave(std::int64_t width, std::vector<Sample>& samples) const {
    const std::int64_t per_frame = width * samples_per_frame_;
    std::vector<Sample> frame(static_cast<std::size_t>(per_frame));
    for (auto begin = samples.begin(); begin != samples.end(); begin += per_frame) {
      std::copy(begin, begin + per_frame, frame.begin());
      for (std::int64_t i = 0; i < per_frame; ++i) {
        begin[i % samples_per_frame_ * width + i / samples_per_frame_] =
            frame[static_cast<std::size_t>(i)];
      }
    }
  }

  const SignalSpec& spec_of(const Group& group, std::int64_t column) const {
    return record.header.signals[static_cast<std::size_t>(group.first + column)];
  }

  template <typename Sample>
  void verify_group(const Group& group, const Sample* samples) {
    sums_.resize(static_cast<std::size_t>(group.width));
    checksums(samples, record.num_samples, group.width, sums_.data());
    for (std::int64_t i = 0; i < group.width; ++i) {
      const SignalSpec& spec = spec_of(group, i);
      const std::uint16_t sum = sums_[static_cast<std::size_t>(i)];
      // Writers state the 16 bits signed or unsigned: both are the same bits.
      if (spec.checksum && static_cast<std::uint16_t>(*spec.checksum) != sum) {
        const bool is_signed = *spec.checksum <= std::numeric_limits<std::int16_t>::max();
        mismatch(group, spec, "checksum", is_signed ? static_cast<std::int16_t>(sum) : sum,
                 *spec.checksum);
      }
      // Of format 8 it says where the differences begin.
      if (group.format->code != 8 && spec.initial_value && *spec.initial_value != samples[i]) {
        mismatch(group, spec, "first sample", samples[i], *spec.initial_value);
      }
    }
  }

  [[noreturn]] static void mismatch(const Group& group, const SignalSpec& spec, const char* what,
                                    std::int64_t found, std::int64_t stated) {
    throw RecordError(Status::kChecksum, detail::base_name(group.file) + ": " + what + " of lead " +
                                             spec.description + " is " + std::to_string(found) +
                                             ", header says " + std::to_string(stated));
  }

  bool strict_;
  std::int64_t samples_per_frame_ = 1;
  std::string folder_;
  std::vector<detail::File> files_;
  std::vector<std::uint8_t> bytes_;
  std::vector<std::uint16_t> sums_;
};

}  // namespace esi
