// The Python face of the core: records and resampling. Only the bindings know of Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "header.hpp"
#include "lanes.hpp"
#include "reader.hpp"
#include "record.hpp"
#include "resample.hpp"

namespace py = pybind11;

namespace {

using FloatRows = py::array_t<float, py::array::c_style | py::array::forcecast>;

// Headers and paths may hold bytes that are not UTF-8: they must not break an error message.
py::str text(const std::string& bytes) {
  PyObject* decoded =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace");
  if (!decoded) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

using Texts = py::typing::Tuple<py::str, py::ellipsis>;

Texts texts(const std::vector<std::string>& lines) {
  py::tuple result(lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) result[i] = text(lines[i]);
  return Texts(std::move(result));
}

// Paths come as bytes (os.fsencode): on disk they need not be text at all.
std::vector<std::string> strings(const std::vector<py::bytes>& paths) {
  return {paths.begin(), paths.end()};
}

// (num_signals, T) in file order: int16, or int32 where a format needs it.
template <typename Sample>
py::array digital(const esi::RawRecord& record) {
  const auto num_signals = static_cast<py::ssize_t>(record.header.signals.size());
  py::array_t<Sample> result({num_signals, static_cast<py::ssize_t>(record.num_samples)});
  Sample* out = result.mutable_data();
  for (std::size_t g = 0; g < record.groups.size(); ++g) {
    const std::int64_t width = record.groups[g].width;
    record.samples[g].visit(
        [&](const auto& samples) { esi::to_rows(samples.data(), record.num_samples, width, out); });
    out += width * record.num_samples;
  }
  return result;
}

// What a row of stored samples needs to become millivolts.
struct Scale {
  py::ssize_t row;
  double baseline;
  double step;
  std::optional<std::int32_t> missing;
};

template <typename Sample>
py::array_t<float> scale_rows(const py::array& samples, const std::vector<Scale>& scales) {
  const py::ssize_t num_samples = samples.shape(1);
  py::array_t<float> result({static_cast<py::ssize_t>(scales.size()), num_samples});
  float* out = result.mutable_data();
  for (const Scale& scale : scales) {
    if (scale.row < 0 || scale.row >= samples.shape(0)) throw py::value_error("no such row");
    const auto* row = static_cast<const Sample*>(samples.data()) + scale.row * num_samples;
    esi::scale_row(row, num_samples, scale.baseline, scale.step,
                   scale.missing ? &*scale.missing : nullptr, out);
    out += num_samples;
  }
  return result;
}

py::array_t<float> to_millivolts(const py::array& samples, const std::vector<py::ssize_t>& rows,
                                 const std::vector<double>& baselines,
                                 const std::vector<double>& steps,
                                 const std::vector<std::optional<std::int32_t>>& missing) {
  if (samples.ndim() != 2 || !(samples.flags() & py::array::c_style)) {
    throw py::value_error("samples must be a C-contiguous (num_signals, T) array");
  }
  if (rows.size() != baselines.size() || rows.size() != steps.size() ||
      rows.size() != missing.size()) {
    throw py::value_error("rows, baselines, steps and missing differ in length");
  }
  std::vector<Scale> scales;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    scales.push_back({rows[i], baselines[i], steps[i], missing[i]});
  }
  if (samples.dtype().is(py::dtype::of<std::int16_t>())) {
    return scale_rows<std::int16_t>(samples, scales);
  }
  if (samples.dtype().is(py::dtype::of<std::int32_t>())) {
    return scale_rows<std::int32_t>(samples, scales);
  }
  throw py::value_error("samples must be int16 or int32");
}

using StoredRecord = py::typing::Tuple<esi::Header, double, py::array>;

StoredRecord read_record(const py::bytes& stem, bool verify, bool strict) {
  const auto path = static_cast<std::string>(stem);
  esi::Reader reader(strict);
  {
    const py::gil_scoped_release release;
    reader.open(path);
    reader.read(verify);
  }
  bool is_wide = false;
  for (const esi::Samples& samples : reader.record.samples) is_wide = is_wide || samples.is_wide;
  py::array samples =
      is_wide ? digital<std::int32_t>(reader.record) : digital<std::int16_t>(reader.record);
  return StoredRecord(
      py::make_tuple(std::move(reader.record.header), reader.record.fs, std::move(samples)));
}

esi::Header read_header(const py::bytes& stem, bool strict) {
  const auto path = static_cast<std::string>(stem);
  const py::gil_scoped_release release;
  return esi::read_header(path, strict);
}

esi::Header parse_header(const py::bytes& text, bool strict) {
  esi::Header header = esi::parse_header(static_cast<std::string_view>(text));
  if (strict) esi::check_strict(static_cast<std::string_view>(text), header);
  return header;
}

using LeadOf = std::unordered_map<std::string, int>;
using MillivoltsPer = std::unordered_map<std::string, double>;

esi::NameTables name_tables(LeadOf lead_of, MillivoltsPer millivolts) {
  for (const auto& [name, lead] : lead_of) {
    if (lead >= esi::kNumLeads) throw py::value_error("lead_of maps " + name + " beyond 12 leads");
  }
  return {std::move(lead_of), std::move(millivolts)};
}

std::vector<esi::RecordResult> probe_records(const std::vector<py::bytes>& stems,
                                             double adc_units_per_mv, bool strict, int threads,
                                             LeadOf lead_of, MillivoltsPer millivolts) {
  const std::vector<std::string> paths = strings(stems);
  const esi::NameTables names = name_tables(std::move(lead_of), std::move(millivolts));
  esi::BatchOptions options;
  options.adc_units_per_mv = adc_units_per_mv;
  options.strict = strict;
  options.num_threads = threads;
  const py::gil_scoped_release release;
  return esi::probe_records(paths, names, options);
}

// The sample value that stands for "no sample", where the core knows the format and it has one.
std::optional<std::int32_t> missing_value(const esi::SignalSpec& spec) {
  const esi::Format* format = esi::native_format(spec.format);
  if (!format || !format->has_missing) return std::nullopt;
  return format->missing;
}

std::optional<std::int64_t> samples_in(int code, std::int64_t num_bytes) {
  const esi::Format* format = esi::native_format(code);
  if (!format) return std::nullopt;
  return esi::samples_in(*format, num_bytes);
}

template <typename Sample>
std::vector<esi::RecordResult> read_batch(const std::vector<std::string>& stems,
                                          const std::vector<std::int64_t>& rows, py::array& out,
                                          const esi::NameTables& names,
                                          const esi::BatchOptions& options) {
  auto* data = static_cast<Sample*>(out.mutable_data());
  const std::int64_t length = out.shape(2);
  const py::gil_scoped_release release;
  return esi::read_batch<Sample>(stems, rows, names, options, {data, length});
}

std::vector<esi::RecordResult> read_batch_any(
    const std::vector<py::bytes>& stems, const std::vector<std::int64_t>& rows, py::array out,
    double fs, const std::string& quality, const std::string& nan_policy, double adc_units_per_mv,
    bool verify, bool strict, int threads, LeadOf lead_of, MillivoltsPer millivolts) {
  if (out.ndim() != 3 || out.shape(1) != esi::kNumLeads || !(out.flags() & py::array::c_style)) {
    throw py::value_error("out must be a C-contiguous (n, 12, T) array");
  }
  if (rows.size() != stems.size()) throw py::value_error("stems and rows differ in length");
  for (std::int64_t row : rows) {
    if (row < 0 || row >= out.shape(0)) throw py::value_error("a row lies outside out");
  }
  const esi::NameTables names = name_tables(std::move(lead_of), std::move(millivolts));
  const esi::BatchOptions options{fs,
                                  &esi::quality_by_name(quality),
                                  esi::nan_policy_by_name(nan_policy),
                                  adc_units_per_mv,
                                  verify,
                                  strict,
                                  threads};
  if (out.dtype().is(py::dtype::of<float>())) {
    return read_batch<float>(strings(stems), rows, out, names, options);
  }
  if (out.dtype().is(py::dtype::of<std::int16_t>())) {
    return read_batch<std::int16_t>(strings(stems), rows, out, names, options);
  }
  throw py::value_error("out must be float32 or int16");
}

py::array_t<float> resample(const FloatRows& x, double fs_in, double fs_out,
                            const std::string& quality_name, const std::string& policy_name) {
  if (x.ndim() != 2) throw py::value_error("x must be (rows, T)");
  const esi::Quality& quality = esi::quality_by_name(quality_name);
  const esi::NanPolicy policy = esi::nan_policy_by_name(policy_name);
  const esi::Ratio ratio = esi::make_ratio(fs_in, fs_out);
  const std::int64_t rows = x.shape(0);
  const std::int64_t num_samples = x.shape(1);
  py::array_t<float> y({static_cast<py::ssize_t>(rows),
                        static_cast<py::ssize_t>(esi::output_length(num_samples, ratio))});
  const float* in = x.data();
  float* out = y.mutable_data();
  {
    const py::gil_scoped_release release;
    esi::resample_rows(in, rows, num_samples, ratio, quality, policy, out);
  }
  return y;
}

}  // namespace

void bind_quality(py::module_& m);
void bind_shards(py::module_& m);

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() =
      "The compiled core: WFDB records and resampling (esi_fast.signal), shards (esi_fast.data).";

  static PyObject* record_error =
      PyErr_NewExceptionWithDoc("esi_fast._core.RecordError",
                                "args: (status, message), as in RecordResult.", nullptr, nullptr);
  if (!record_error) throw py::error_already_set();
  m.attr("RecordError") = py::reinterpret_borrow<py::object>(record_error);
  py::register_local_exception_translator([](std::exception_ptr raised) {
    try {
      if (raised) std::rethrow_exception(raised);
    } catch (const esi::RecordError& error) {
      const py::tuple args = py::make_tuple(esi::status_name(error.status()), text(error.what()));
      PyErr_SetObject(record_error, args.ptr());
    }
  });

  py::class_<esi::SignalSpec>(m, "SignalSpec", "One signal line of a header, defaults filled in.")
      .def_property_readonly("file", [](const esi::SignalSpec& s) { return text(s.file); })
      .def_readonly("format", &esi::SignalSpec::format)
      .def_readonly("samples_per_frame", &esi::SignalSpec::samples_per_frame)
      .def_readonly("skew", &esi::SignalSpec::skew)
      .def_readonly("byte_offset", &esi::SignalSpec::byte_offset)
      .def_readonly("gain", &esi::SignalSpec::gain)
      .def_readonly("baseline", &esi::SignalSpec::baseline)
      .def_property_readonly("unit", [](const esi::SignalSpec& s) { return text(s.unit); })
      .def_readonly("adc_resolution", &esi::SignalSpec::adc_resolution)
      .def_readonly("adc_zero", &esi::SignalSpec::adc_zero)
      .def_readonly("initial_value", &esi::SignalSpec::initial_value)
      .def_readonly("checksum", &esi::SignalSpec::checksum)
      .def_property_readonly("missing", &missing_value)
      .def_property_readonly("description",
                             [](const esi::SignalSpec& s) { return text(s.description); });

  py::class_<esi::Header>(m, "Header", "A parsed header; num_samples is 0 where it states none.")
      .def_property_readonly("name", [](const esi::Header& h) { return text(h.name); })
      .def_readonly("num_segments", &esi::Header::num_segments)
      .def_readonly("num_signals", &esi::Header::num_signals)
      .def_readonly("fs", &esi::Header::fs)
      .def_readonly("num_samples", &esi::Header::num_samples)
      .def_readonly("signals", &esi::Header::signals)
      .def_property_readonly("segments", [](const esi::Header& h) { return texts(h.segments); })
      .def_readonly("segment_lengths", &esi::Header::segment_lengths)
      .def_property_readonly("comments", [](const esi::Header& h) { return texts(h.comments); });

  py::class_<esi::RecordResult>(m, "RecordResult", "What became of one record of a batch.")
      .def_property_readonly("status",
                             [](const esi::RecordResult& r) { return esi::status_name(r.status); })
      .def_property_readonly("error", [](const esi::RecordResult& r) { return text(r.error); })
      .def_property_readonly("source_leads",
                             [](const esi::RecordResult& r) { return text(r.source_leads); })
      .def_property_readonly("unresolved",
                             [](const esi::RecordResult& r) { return texts(r.unresolved); })
      .def_readonly("clipped", &esi::RecordResult::clipped)
      .def_readonly("fs", &esi::RecordResult::fs)
      .def_readonly("num_samples", &esi::RecordResult::num_samples);

  m.def("parse_header", &parse_header, py::arg("text"), py::kw_only(), py::arg("strict"),
        "Parse the bytes of a header.");
  m.def("read_header", &read_header, py::arg("stem"), py::kw_only(), py::arg("strict"),
        "Read STEM.hea.");
  m.def(
      "read_record", &read_record, py::arg("stem"), py::kw_only(), py::arg("verify"),
      py::arg("strict"),
      "The header of a record, its rate, and its samples as stored, (num_signals, T) int16/int32.");
  m.def("samples_in", &samples_in, py::arg("format"), py::arg("num_bytes"),
        "The most samples of a format that lie in so many bytes; None for other formats.");
  m.def("to_millivolts", &to_millivolts, py::arg("samples"), py::kw_only(), py::arg("rows"),
        py::arg("baselines"), py::arg("steps"), py::arg("missing"),
        "Rows of (num_signals, T) samples: (sample - baseline) * step, NaN where missing.");
  m.def("probe_records", &probe_records, py::arg("stems"), py::kw_only(),
        py::arg("adc_units_per_mv"), py::arg("strict"), py::arg("threads"), py::arg("lead_of"),
        py::arg("millivolts"), "Rate and length of each record, from headers and file sizes.");
  m.def("read_batch", &read_batch_any, py::arg("stems"), py::arg("rows"), py::arg("out"),
        py::kw_only(), py::arg("fs"), py::arg("quality"), py::arg("nan_policy"),
        py::arg("adc_units_per_mv"), py::arg("verify"), py::arg("strict"), py::arg("threads"),
        py::arg("lead_of"), py::arg("millivolts"),
        "Read stems[i] into out[rows[i]]: (n, 12, T) float32 mV or int16 uV.");
  m.def("resample", &resample, py::arg("x"), py::arg("fs_in"), py::arg("fs_out"),
        py::arg("quality"), py::arg("nan_policy"),
        "(rows, T) -> (rows, ceil(T * fs_out / fs_in)) float32.");
  m.def("instruction_sets", &esi::instruction_sets, "What this CPU can run, best first.");
  m.def("use_instruction_set", &esi::use_instruction_set, py::arg("name"),
        "Choose one of instruction_sets(); the best one is in use from the start.");
  m.def(
      "output_length",
      [](std::int64_t num_samples, double fs_in, double fs_out) {
        return esi::output_length(num_samples, esi::make_ratio(fs_in, fs_out));
      },
      py::arg("num_samples"), py::arg("fs_in"), py::arg("fs_out"),
      "ceil(num_samples * fs_out / fs_in).");

  bind_quality(m);
  bind_shards(m);
}
