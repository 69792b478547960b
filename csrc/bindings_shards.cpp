// The Python face of the shards: appending samples to a tar, reading them back as batches.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "crc32c.hpp"
#include "shard_reader.hpp"
#include "tar.hpp"

namespace py = pybind11;

namespace {

using Stored = py::array_t<std::int16_t, py::array::c_style>;
using Integers = py::array_t<std::int64_t, py::array::c_style>;

[[noreturn]] void raise_os_error(const std::system_error& error) {
  errno = error.code().value();
  PyErr_SetFromErrno(PyExc_OSError);
  throw py::error_already_set();
}

using Frame = py::typing::Tuple<py::bytes, py::bytes, std::uint32_t>;

std::vector<Frame> append_samples(int descriptor, const std::vector<py::bytes>& keys,
                                  const Stored& ecg, const py::bytes& npy_header,
                                  const std::vector<py::bytes>& jsons,
                                  const std::vector<std::optional<py::bytes>>& captions) {
  if (ecg.ndim() != 3) throw py::value_error("ecg must be (n, leads, T)");
  const auto count = static_cast<std::size_t>(ecg.shape(0));
  if (keys.size() != count || jsons.size() != count || captions.size() != count) {
    throw py::value_error("keys, ecg, jsons and captions differ in length");
  }
  const auto ecg_bytes = static_cast<std::size_t>(2 * ecg.shape(1) * ecg.shape(2));
  const auto* data = reinterpret_cast<const char*>(ecg.data());
  std::vector<std::string_view> texts(count);
  std::vector<esi::ShardSample> samples(count);
  for (std::size_t i = 0; i < count; ++i) {
    samples[i] = {keys[i], data + i * ecg_bytes, jsons[i], nullptr};
    if (captions[i]) {
      texts[i] = *captions[i];
      samples[i].caption = &texts[i];
    }
  }
  const std::string_view header = npy_header;
  std::vector<esi::SampleFrame> frames;
  try {
    const py::gil_scoped_release release;
    frames = esi::append_samples(descriptor, samples, header, ecg_bytes);
  } catch (const std::system_error& error) {
    raise_os_error(error);
  }
  std::vector<Frame> result;
  for (const esi::SampleFrame& frame : frames) {
    result.emplace_back(py::make_tuple(py::bytes(frame.head), py::bytes(frame.tail), frame.crc32c));
  }
  return result;
}

std::vector<std::string> read_samples(const Integers& descriptors, const Integers& begins,
                                      const Integers& sizes, const Integers& crcs,
                                      const Integers& starts, py::array out,
                                      const py::bytes& npy_header, std::int64_t num_samples,
                                      const std::string& normalize, const std::string& nan_policy,
                                      int threads) {
  if (out.ndim() != 3 || !out.dtype().is(py::dtype::of<float>()) ||
      !(out.flags() & py::array::c_style) ||
      !(out.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
    throw py::value_error("out must be a C-contiguous, aligned (n, leads, T) float32 array");
  }
  esi::ShardReadOptions options;
  options.num_leads = out.shape(1);
  options.num_samples = num_samples;
  options.crop = out.shape(2);
  options.normalization = esi::normalization_by_name(normalize);
  options.fill = esi::fill_by_name(nan_policy);
  options.num_threads = threads;
  std::vector<esi::SamplePlace> places(static_cast<std::size_t>(out.shape(0)));
  for (const Integers* given : {&descriptors, &begins, &sizes, &crcs, &starts}) {
    if (given->ndim() != 1 || given->shape(0) != out.shape(0)) {
      throw py::value_error("a place for each row of out is needed");
    }
  }
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto k = static_cast<py::ssize_t>(i);
    places[i] = {static_cast<int>(descriptors.at(k)), begins.at(k), sizes.at(k),
                 static_cast<std::uint32_t>(crcs.at(k)), starts.at(k)};
    if (places[i].start < 0 || places[i].start > num_samples - options.crop) {
      throw py::value_error("a crop lies outside its record");
    }
  }
  auto* data = static_cast<float*>(out.mutable_data());
  const std::string_view header = npy_header;
  const py::gil_scoped_release release;
  return esi::read_samples(places, header, options, data);
}

}  // namespace

void bind_shards(py::module_& m) {
  m.def(
      "crc32c",
      [](const py::bytes& data, std::uint32_t before) {
        const std::string_view bytes = data;
        return esi::crc32c(bytes.data(), bytes.size(), before);
      },
      py::arg("data"), py::arg("before") = 0,
      "CRC-32C, going on from the CRC of what came before.");
  m.def("append_samples", &append_samples, py::arg("descriptor"), py::kw_only(), py::arg("keys"),
        py::arg("ecg"), py::arg("npy_header"), py::arg("jsons"), py::arg("captions"),
        "Append samples to a tar: ecg (n, leads, T) int16. For each the bytes before its ECG, "
        "those after it, and the CRC-32C of all.");
  m.def("read_samples", &read_samples, py::arg("descriptors"), py::arg("begins"), py::arg("sizes"),
        py::arg("crcs"), py::arg("starts"), py::arg("out"), py::kw_only(), py::arg("npy_header"),
        py::arg("num_samples"), py::arg("normalize"), py::arg("nan_policy"), py::arg("threads"),
        "Read the sample at each place into out (n, leads, crop) float32, cropped from starts on; "
        "what is wrong with each, '' if nothing.");
}
