// Fuzz target: whole records, from files to samples and to the batch of twelve leads at one rate.
//
// Input: 2 bytes of options, the header up to a NUL, the bytes of the data files "d" and "e".
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "../csrc/reader.hpp"
#include "check.hpp"
#include "layout.hpp"

namespace {

using fuzz::check;

// What reading may take at one time: per byte of the header its parsed form, per byte of the data
// files a copy as stored, its samples in 32 bits, and as millivolts with their mask.
constexpr std::size_t kPerHeaderByte = 256;
constexpr std::size_t kPerDataByte = 16;
constexpr std::size_t kMore = 16 << 10;
constexpr std::size_t kMoreToResample = 2 << 20;  // filters and what lies around a signal
constexpr std::int64_t kLargestTerm = 512;        // of a ratio: longer filters cost too much time

// A private folder, removed when the process ends as it should.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "fuzz-record-XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "a folder can be made (TMPDIR)");
    root_ = name;
    path = name + "/records/";
    check(::mkdir(path.c_str(), 0700) == 0, "a folder for records");
    // What lies outside the folder of records could be read, if names were let lead there.
    for (const char* data : {"d", "e"}) {
      std::filesystem::create_symlink(path + data, root_ + "/" + data);
    }
  }
  ~Folder() { std::filesystem::remove_all(root_); }

  void write(const std::string& name, std::string_view bytes) const {
    const int file = ::open((path + name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const ssize_t written = ::write(file, bytes.data(), bytes.size());
    check(written == static_cast<ssize_t>(bytes.size()), "a file can be written");
    ::close(file);
  }

  std::string path;

 private:
  std::string root_;
};

const esi::NameTables& names() {
  static const esi::NameTables tables = {
      {{"I", 0},
       {"II", 1},
       {"III", 2},
       {"aVR", 3},
       {"aVL", 4},
       {"aVF", 5},
       {"V1", 6},
       {"V2", 7},
       {"V3", 8},
       {"V4", 9},
       {"V5", 10},
       {"V6", 11},
       {"x", -1}},
      {{"mV", 1.0}, {"uV", 1e-3}, {"V", 1e3}, {"bpm", std::nan("")}}};
  return tables;
}

// A record that is read beside every other: 40 samples of 1 mV in each of the twelve leads.
constexpr std::int64_t kGoodSamples = 40;

const Folder& folder() {
  static const Folder instance;
  static const bool filled = [] {
    std::string header = "good 12 500 " + std::to_string(kGoodSamples) + "\n";
    for (const char* lead :
         {"I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"}) {
      header += std::string("good.dat 16 200/mV 16 0 200 8000 0 ") + lead + "\n";
    }
    std::string data;
    for (std::int64_t i = 0; i < 12 * kGoodSamples; ++i) data += std::string("\xC8\x00", 2);
    instance.write("good.hea", header);
    instance.write("good.dat", data);
    return true;
  }();
  check(filled, "the good record is there");
  return instance;
}

struct Input {
  std::uint8_t options[2];
  std::string_view header;
  std::string_view data;

  bool option(int bit) const { return options[bit / 8] >> (bit % 8) & 1; }
  std::size_t memory() const {
    return kMore + kPerHeaderByte * header.size() + 2 * kPerDataByte * data.size();
  }
};

// The samples of a group by the published layouts, (num_samples, width).
std::vector<std::int64_t> samples_by_layout(const esi::Header& header, const esi::Group& group,
                                            std::int64_t num_samples, std::string_view data) {
  const fuzz::Layout& layout = *fuzz::layout_of(group.format->code);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(data.data()) + group.byte_offset;
  const std::int64_t room = static_cast<std::int64_t>(data.size()) - group.byte_offset;
  check(esi::bytes_of(*group.format, num_samples * group.width) <= room, "the samples are there");
  const std::int64_t per_frame = header.signals[0].samples_per_frame;
  std::vector<std::int64_t> samples;
  for (std::int64_t t = 0; t < num_samples; ++t) {
    for (std::int64_t i = 0; i < group.width; ++i) {
      const std::int64_t frame = t / per_frame * group.width * per_frame;
      const auto index = static_cast<std::size_t>(frame + i * per_frame + t % per_frame);
      samples.push_back(layout.load(bytes, index));
      if (layout.code != 8) continue;
      const auto& spec = header.signals[static_cast<std::size_t>(group.first + i)];
      const std::int64_t before = t > 0 ? samples[samples.size() - 1 - group.width]
                                        : spec.initial_value.value_or(spec.adc_zero);
      samples.back() = static_cast<std::int32_t>(static_cast<std::uint32_t>(before) +
                                                 static_cast<std::uint32_t>(samples.back()));
    }
  }
  return samples;
}

void check_checksums(const esi::Header& header, const esi::Group& group,
                     const std::vector<std::int64_t>& samples) {
  for (std::int64_t i = 0; i < group.width; ++i) {
    const auto& spec = header.signals[static_cast<std::size_t>(group.first + i)];
    std::int64_t sum = spec.checksum ? -*spec.checksum : 0;
    for (std::size_t k = static_cast<std::size_t>(i); k < samples.size();
         k += static_cast<std::size_t>(group.width)) {
      sum += samples[k];
    }
    check(!spec.checksum || sum % 65536 == 0, "verified: the samples add up to the checksum");
    const bool begins = group.format->code == 8 || !spec.initial_value ||
                        *spec.initial_value == samples[static_cast<std::size_t>(i)];
    check(begins, "verified: the first sample is the initial value");
  }
}

// Headers that leave no doubt: samples of one format in one file that holds them all. The number
// of samples a signal; 0 for other headers.
std::int64_t undoubted_samples(const Input& input) {
  esi::Header header;
  try {
    header = esi::parse_header(input.header);
  } catch (const esi::RecordError&) {
    return 0;
  }
  if (header.num_segments != 1 || header.signals.empty()) return 0;
  const esi::SignalSpec& first = header.signals[0];
  const fuzz::Layout* layout = fuzz::layout_of(first.format);
  if (!layout) return 0;
  for (const esi::SignalSpec& spec : header.signals) {
    const bool is_alike = spec.file == "d" && spec.format == first.format && spec.skew == 0 &&
                          spec.byte_offset == first.byte_offset &&
                          spec.samples_per_frame == first.samples_per_frame;
    if (!is_alike) return 0;
  }
  const std::int64_t room = static_cast<std::int64_t>(input.data.size()) - first.byte_offset;
  const std::int64_t frame = header.num_signals * first.samples_per_frame;
  if (room < 0 || header.num_samples > 8 * room) return 0;
  if (header.num_samples == 0) {  // the size decides: without doubt where samples are whole bytes
    const std::int64_t frame_bytes = frame * static_cast<std::int64_t>(layout->block_bytes);
    const bool is_whole = layout->samples.size() == 1 && room % frame_bytes == 0;
    return is_whole ? room / frame_bytes * first.samples_per_frame : 0;
  }
  const auto count = static_cast<std::size_t>(header.num_samples * frame);
  const std::size_t block = layout->samples.size();
  const std::size_t num_bytes = count / block * layout->block_bytes + layout->reach(count % block);
  return static_cast<std::int64_t>(num_bytes) <= room ? header.num_samples * first.samples_per_frame
                                                      : 0;
}

void check_record(const esi::RawRecord& record, const Input& input, bool verified) {
  check(record.num_samples > 0 && record.samples.size() >= record.groups.size(), "samples");
  for (std::size_t g = 0; g < record.groups.size(); ++g) {
    const esi::Group& group = record.groups[g];
    const std::filesystem::path file(group.file);
    const bool is_inside =
        !file.is_absolute() && std::find(file.begin(), file.end(), "..") == file.end();
    check(is_inside, "a data file lies in the folder of its header");
    const std::vector<std::int64_t> expected =
        samples_by_layout(record.header, group, record.num_samples, input.data);
    record.samples[g].visit([&](const auto& samples) {
      check(std::equal(samples.begin(), samples.end(), expected.begin(), expected.end()),
            "samples as decoded bit by bit");
    });
    if (verified) check_checksums(record.header, group, expected);
  }
}

// The record's samples, or nothing and why not.
bool read(esi::Reader& reader, const Input& input, bool verify, std::string& error) {
  const fuzz::MemoryLimit limit(input.memory());
  try {
    reader.open(folder().path + "r");
    reader.read(verify);
    return true;
  } catch (const esi::RecordError& reason) {
    error = reason.what();
  }
  return false;
}

// What is allowed in a row of the output that stands for `count` samples.
template <typename Sample>
void check_row(const Sample* row, std::int64_t count, const esi::BatchOptions& options) {
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (std::is_floating_point_v<Sample>) {
      check(!std::isinf(row[i]), "no infinite voltage");
      check(options.nan_policy != esi::NanPolicy::kZero || !std::isnan(row[i]), "no NaN with zero");
    } else {
      check(row[i] >= -32767 || row[i] == esi::kMissingInt16, "int16");
    }
  }
}

bool is_missing(float value) { return std::isnan(value); }
bool is_missing(std::int16_t value) { return value == esi::kMissingInt16; }

// Without resampling the output can be told exactly.
template <typename Sample>
void check_voltages(const esi::RawRecord& record, const Sample* rows, std::int64_t length,
                    const esi::BatchOptions& options) {
  for (std::size_t g = 0; g < record.groups.size(); ++g) {
    const esi::Group& group = record.groups[g];
    for (std::int64_t i = 0; i < group.width; ++i) {
      const auto& spec = record.header.signals[static_cast<std::size_t>(group.first + i)];
      const int lead = names().lead_of.at(spec.description);
      if (lead < 0) continue;
      const bool by_header = options.adc_units_per_mv == 0.0;
      const auto zero = static_cast<double>(by_header ? spec.baseline : spec.adc_zero);
      const double step = by_header ? names().millivolts_per.at(spec.unit) / spec.gain
                                    : 1 / options.adc_units_per_mv;
      const std::int64_t count = std::min(length, record.num_samples);
      record.samples[g].visit([&](const auto& samples) {
        for (std::int64_t t = 0; t < count; ++t) {
          const std::int64_t sample = samples[static_cast<std::size_t>(t * group.width + i)];
          const Sample value = rows[lead * length + t];
          if (group.format->has_missing && sample == group.format->missing) {
            const bool stays = options.nan_policy == esi::NanPolicy::kNan;
            check(!stays || is_missing(value), "a missing sample is missing");
            check(options.nan_policy != esi::NanPolicy::kZero || value == Sample{}, "or zero");
            continue;
          }
          const auto expected = static_cast<float>((static_cast<double>(sample) - zero) * step);
          if constexpr (std::is_floating_point_v<Sample>) {
            check(value == expected, "millivolts");
          } else {
            const double microvolts = std::clamp(expected * 1e3, -32767.0, 32767.0);
            check(std::abs(value - microvolts) <= 0.51, "microvolts");
          }
        }
      });
    }
  }
}

double rate_of(const Input& input) {
  constexpr double kRates[] = {500.0, 100.0, 257.0, 1000.0};
  return kRates[input.options[1] % 4];
}

bool has_long_filter(double fs_in, double fs_out) {
  try {
    const esi::Ratio ratio = esi::make_ratio(fs_in, fs_out);
    return std::max(ratio.up, ratio.down) > kLargestTerm;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

// `record`: what the reader made of the same files, unless it refused them.
template <typename Sample>
void fuzz_batch(const Input& input, const esi::RawRecord* record) {
  constexpr std::int64_t kLengths[] = {1, 17, 64, 300};
  esi::BatchOptions options;
  options.strict = input.option(0);
  options.verify = input.option(1);
  options.quality = &esi::quality_by_name(input.option(3) ? "scipy" : "hq");
  options.nan_policy = static_cast<esi::NanPolicy>(input.options[0] / 16 % 3);
  options.fs = rate_of(input);
  const std::int64_t length = kLengths[input.options[1] / 4 % 4];
  options.adc_units_per_mv = input.option(12) ? 200.0 : 0.0;
  esi::use_instruction_set(input.option(13) ? "baseline" : esi::instruction_sets().front());

  // Beside a good record, which it must not harm.
  const std::unique_ptr<Sample[]> out(new Sample[static_cast<std::size_t>(2 * 12 * length)]);
  std::vector<esi::RecordResult> results;
  {
    const fuzz::MemoryLimit limit(input.memory() + kMoreToResample);
    results = esi::read_batch<Sample>({folder().path + "r", folder().path + "good"}, {1, 0},
                                      names(), options, {out.get(), length});
  }
  check(results[1].status == esi::Status::kOk, "the good record is read");
  check_row(out.get(), 12 * length, options);
  const double millivolt = std::is_floating_point_v<Sample> ? 1.0 : 1000.0;
  for (int l = 0; l < 12 && !input.option(3); ++l) {
    check(std::abs(out[l * length] / millivolt - 1.0) < 2e-3, "the good record keeps its voltage");
  }

  const esi::RecordResult& result = results[0];
  const Sample* rows = out.get() + 12 * length;
  if (result.status == esi::Status::kUnresolved) {
    check(!result.unresolved.empty(), "unresolved names are named");
    return;  // the rows are written when the names are known
  }
  check_row(rows, 12 * length, options);
  if (result.status != esi::Status::kOk) {
    fuzz::check_message(result.error);
    const bool to_zero = options.nan_policy == esi::NanPolicy::kZero;
    for (std::int64_t i = 0; i < 12 * length; ++i) {
      check(to_zero ? rows[i] == Sample{} : is_missing(rows[i]), "a failed record has no samples");
    }
    return;
  }
  check(record && result.num_samples == record->num_samples, "as many samples as read");
  check(std::isfinite(result.fs) && result.fs > 0.0, "a sampling frequency");
  if (result.fs == options.fs) check_voltages(*record, rows, length, options);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return -1;
  Input input{{data[0], data[1]}, {}, {}};
  const std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::size_t end = std::min(rest.find('\0'), rest.size());
  input.header = rest.substr(0, end);
  input.data = rest.substr(std::min(end + 1, rest.size()));
  folder().write("r.hea", input.header);
  folder().write("d", input.data);
  folder().write("e", input.data);

  const bool verify = input.option(1);
  esi::Reader reader(input.option(0));
  std::string error;
  const bool is_read = read(reader, input, verify, error);
  if (is_read) {
    check_record(reader.record, input, verify);
  } else {
    fuzz::check_message(error);
  }
  if (!verify && !input.option(0)) {
    const std::int64_t num_samples = undoubted_samples(input);
    const bool is_right = is_read && reader.record.num_samples == num_samples;
    check(num_samples == 0 || is_right, "a record without any doubt is read");
  }
  if (is_read && input.option(14)) {
    // A reader that has read other records before gives the same.
    static esi::Reader tolerant;
    check(read(tolerant, input, verify, error), "what strict reads is read without it, too");
    check_record(tolerant.record, input, verify);
  }
  if (input.option(15) && !(is_read && has_long_filter(reader.record.fs, rate_of(input)))) {
    const esi::RawRecord* record = is_read ? &reader.record : nullptr;
    input.option(2) ? fuzz_batch<float>(input, record) : fuzz_batch<std::int16_t>(input, record);
  }
  return 0;
}
