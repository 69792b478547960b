// The Python face of the quality flags.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quality.hpp"

namespace py = pybind11;

namespace {

using FloatRows = py::array_t<float, py::array::c_style | py::array::forcecast>;

std::vector<std::optional<esi::QualityFindings>> assess_records(const py::array& signal, double fs,
                                                                int threads) {
  if (signal.ndim() != 3 || signal.shape(1) != esi::kNumLeads ||
      !(signal.flags() & py::array::c_style)) {
    throw py::value_error("signal must be a C-contiguous (n, 12, T) array");
  }
  const std::int64_t n = signal.shape(0);
  const std::int64_t num_samples = signal.shape(2);
  const auto assess = [&](const auto* samples) {
    const py::gil_scoped_release release;
    return esi::assess_records(samples, n, num_samples, fs, threads);
  };
  if (signal.dtype().is(py::dtype::of<float>())) {
    return assess(static_cast<const float*>(signal.data()));
  }
  if (signal.dtype().is(py::dtype::of<std::int16_t>())) {
    return assess(static_cast<const std::int16_t*>(signal.data()));
  }
  throw py::value_error("signal must be float32 or int16");
}

py::array_t<std::int64_t> find_beats(const FloatRows& leads, double rate) {
  if (leads.ndim() != 2 || !(rate >= esi::kLowestBlockRate)) {
    throw py::value_error("leads must be (L, N), at 50 Hz or more");
  }
  std::vector<const float*> rows;
  for (py::ssize_t i = 0; i < leads.shape(0); ++i) rows.push_back(leads.data(i, 0));
  const std::vector<std::int64_t> beats = esi::find_beats(rows, leads.shape(1), rate);
  return py::array_t<std::int64_t>(static_cast<py::ssize_t>(beats.size()), beats.data());
}

}  // namespace

void bind_quality(py::module_& m) {
  using Findings = esi::QualityFindings;
  py::class_<Findings>(m, "QualityFindings", "What is wrong with a record; leads by number.")
      .def_readonly("flat", &Findings::flat)
      .def_readonly("missing", &Findings::missing)
      .def_readonly("clipped", &Findings::clipped)
      .def_readonly("out_of_range", &Findings::out_of_range)
      .def_property_readonly("equations", [](const Findings& f) { return f.limbs.equations; })
      .def_property_readonly("exchanged", [](const Findings& f) { return f.limbs.exchanged; })
      .def_property_readonly("lead", [](const Findings& f) { return f.limbs.lead; })
      .def_property_readonly("gain", [](const Findings& f) { return f.limbs.gain; })
      .def_property_readonly("limb_reversal", [](const Findings& f) { return f.reversals.limbs; })
      .def_property_readonly("chest_reversal", [](const Findings& f) { return f.reversals.chest; })
      .def_readonly("mains", &Findings::mains)
      .def_readonly("wander", &Findings::wander);

  m.def("assess_records", &assess_records, py::arg("signal"), py::arg("fs"), py::kw_only(),
        py::arg("threads"),
        "(n, 12, T) float32 mV or int16 uV: what is wrong with each record, None if nothing.");
  m.def("find_beats", &find_beats, py::arg("leads"), py::arg("rate"),
        "(L, N) mV, none flat: where the middle of each QRS complex is.");
}
