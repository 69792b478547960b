"""tools/view without a browser: what a folder holds, what is said of a record, what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shard_tree import build

from esi_fast.cqa.caption import prompts_for
from esi_fast.cqa.concepts import concepts, split_concept
from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.search import EcgIndex
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.inputs import read_ecg
from esi_fast.signal.measurements import Measurements
from esi_fast.signal.records import read_record
from esi_fast.signal.simulate_tree import write_tree
from esi_fast.view import markup
from esi_fast.view.describe import FINDINGS, Describer, measure_record, probabilities
from esi_fast.view.folder import Chosen, open_folder, read_uploaded
from esi_fast.view.page import bind, show


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("view")
    write_tree(base / "ecgs", 6, seed=5, fs=250)
    return base


@pytest.fixture(scope="module")
def record_path(tree: Path) -> Path:
    return sorted((tree / "ecgs").rglob("*.hea"))[0]


def tiny_model(contrast: str = "softmax") -> ESI:
    torch.manual_seed(0)
    config = ESIConfig(
        encoder="convnextv2_zepto", fs=100.0, num_samples=1000, embed_dim=16, max_tokens=24,
        decoder_dim=16, decoder_layers=1, decoder_heads=2, contrast=contrast,
    )  # fmt: skip
    words = [prompt for name in FINDINGS for prompt in prompts_for(name)]
    return ESI.from_captions(config, words, vocab_size=300, hidden=16, layers=1, heads=2).eval()


@pytest.fixture(scope="module")
def describer() -> Describer:
    return Describer(tiny_model())


def test_a_database_is_listed_by_its_keys_with_what_it_says(tree: Path, record_path: Path):
    folder = open_folder(tree / "ecgs")
    assert len(folder.names) == 6
    chosen = folder.read(record_path.stem)
    np.testing.assert_array_equal(chosen.record.signal, read_record(record_path).signal)
    entry = next(one for one in open_catalogue(tree / "ecgs") if one.key == record_path.stem)
    assert chosen.said == "; ".join(entry.statements) != ""
    with pytest.raises(ValueError, match="no recording 'absent' in this folder"):
        folder.read("absent")


def test_shards_are_listed_and_read(tree: Path, tmp_path: Path):
    out = tmp_path / "shards"
    build(open_catalogue(tree / "ecgs"), out, fs=100, measure=False, workers=1)
    folder = open_folder(out)
    assert len(folder.names) == 6
    chosen = folder.read(folder.names[0])
    assert (chosen.record.fs, chosen.record.signal.shape) == (100.0, (12, 1000))
    entry = next(one for one in open_catalogue(tree / "ecgs") if one.key == chosen.name)
    assert chosen.said == "; ".join(entry.statements)


def test_loose_files_and_wfdb_records_are_listed_together(tmp_path: Path, record_path: Path):
    for suffix in (".hea", ".dat"):
        shutil.copy(record_path.with_suffix(suffix), tmp_path)
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub/one.npy", np.zeros((12, 500)))
    (tmp_path / "notes.txt").write_text("not an ECG")
    folder = open_folder(tmp_path)
    assert list(folder.names) == [record_path.stem, "sub/one.npy"]
    with pytest.raises(ValueError, match="does not say its rate"):
        folder.read("sub/one.npy")


def test_a_database_without_calibration_is_read_with_its_known_gain(shared_data: Path):
    root = shared_data / "ludb"
    catalogue = open_catalogue(root)
    entry = next(iter(catalogue))
    shown = open_folder(root).read(entry.key).record.signal
    gain = catalogue.adc_units_per_mv
    assert gain
    digital = read_record(entry.path).digital  # ADC units, in the standard order of leads
    spans = np.ptp(digital / gain, axis=1)
    np.testing.assert_allclose(np.ptp(shown, axis=1), spans, rtol=1e-4)


def test_names_are_found_by_their_words(tree: Path):
    folder = open_folder(tree / "ecgs")
    name = folder.names[3]
    assert name in folder.find(name[2:6], 10)
    assert folder.find("no such name", 10) == []
    assert folder.find("", 2) == list(folder.names[:2])


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no recording"):
        open_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_folder(tmp_path / "absent")


def test_an_uploaded_record_may_lie_in_two_folders(tmp_path: Path, record_path: Path):
    for suffix in (".hea", ".dat"):
        (tmp_path / suffix[1:]).mkdir()
        shutil.copy(record_path.with_suffix(suffix), tmp_path / suffix[1:])
    parts = [next((tmp_path / one).iterdir()) for one in ("dat", "hea")]
    uploaded = read_uploaded(parts, None, None)
    np.testing.assert_array_equal(uploaded.record.signal, read_record(record_path).signal)


def test_what_cannot_be_an_upload_is_refused_without_a_path(tmp_path: Path, record_path: Path):
    bad = tmp_path / "bad.hea"
    bad.write_text("nonsense\n")
    header, data = record_path, record_path.with_suffix(".dat")
    for paths, message in (
        ([], "nothing was uploaded"),
        ([data], "needs its WFDB header"),
        ([header, bad], "2 files are more than one recording"),
        ([bad], "bad.hea"),
        ([header], data.name),
    ):
        with pytest.raises((ValueError, OSError), match=re.escape(message)) as caught:
            read_uploaded(paths, None, None)
        assert "/tmp" not in str(caught.value)


def test_probabilities_are_the_models_own():
    cosine = np.array([0.5, 0.3, -0.2])
    softmax = torch.softmax(torch.tensor(20 * cosine), dim=0).numpy()
    np.testing.assert_allclose(probabilities(cosine, 20.0, 0.0, is_sigmoid=False), softmax)
    sigmoid = torch.sigmoid(torch.tensor(20 * cosine - 4)).numpy()
    np.testing.assert_allclose(probabilities(cosine, 20.0, -4.0, is_sigmoid=True), sigmoid)


@pytest.mark.parametrize("contrast", ["softmax", "sigmoid"])
def test_findings_are_what_the_model_scores(record_path: Path, contrast: str):
    model = tiny_model(contrast)
    record = read_record(record_path)
    found = Describer(model, FINDINGS[:4]).describe(record)
    ecg = model.encode_ecg(model.preprocess(record)[None])
    logits = []
    for name in FINDINGS[:4]:
        prompts = model.encode_text(list(prompts_for(name))).mean(0)
        cosine = torch.nn.functional.cosine_similarity(ecg[0], prompts, dim=0)
        logits.append(cosine * model.logit_scale.exp()[0] + model.logit_bias[0])
    stacked = torch.stack(logits)
    want = stacked.sigmoid() if contrast == "sigmoid" else stacked.softmax(0)
    got = [one.probability for one in found.findings]
    np.testing.assert_allclose(got, sorted(want.tolist(), reverse=True), rtol=1e-4)
    assert found.caption == model.caption(model.preprocess(record)[None])[0]
    assert found.seen.startswith("The model saw 10 s at 100 Hz")
    assert found.measurements.heart_rate == measure_record(record).measurements.heart_rate


def test_a_recording_without_a_sample_is_not_described(describer: Describer):
    nothing = read_ecg(np.full((12, 1000), np.nan, np.float32), fs=100, unit="mV")
    with pytest.raises(ValueError, match="every sample that the model would see is missing"):
        describer.describe(nothing)


def test_every_finding_is_in_the_concept_table():
    assert {split_concept(name)[0] for name in FINDINGS} <= set(concepts())
    assert len(set(FINDINGS)) == len(FINDINGS)


def test_the_page_says_what_the_model_did_not_see(record_path: Path, describer: Describer):
    record = read_record(record_path)
    signal = np.tile(record.signal, (1, 2))
    signal[8] = np.nan
    seen = describer.describe(replace(record, signal=signal)).seen
    assert "the first of 20 s" in seen
    assert "Not recorded, and zero to the model: V3" in seen


def test_the_page_of_a_record_and_of_a_bad_file(record_path: Path, describer: Describer):
    chosen = Chosen("<b>x", read_record(record_path), "said <i>so</i>")
    message, picture, measured, findings, caption, neighbours = show(lambda: chosen, describer)
    assert message == ""
    assert picture is not None
    assert picture.width > 1000
    assert "Heart rate" in measured
    assert neighbours == ""
    assert findings.count("<tr>") == 11
    assert "Uncalibrated" in findings
    assert "generated by the model" in caption
    assert "said &lt;i&gt;so&lt;/i&gt;" in caption

    def refuse() -> Chosen:
        raise ValueError("bad.hea is <not> a header")

    message, *rest = show(refuse, describer)
    assert "bad.hea is &lt;not&gt; a header" in message
    assert rest == [None, "", "", "", ""]
    without_model = show(lambda: chosen, None)
    assert without_model[3] == ""
    assert "generated by the model" not in without_model[4]


def test_neighbours_are_the_indexs_without_the_record_itself(
    tree: Path, tmp_path: Path, describer: Describer
):
    build(open_catalogue(tree / "ecgs"), tmp_path / "shards", fs=100, measure=False, workers=1)
    index = EcgIndex.build(describer.model, tmp_path / "shards", tmp_path / "index")
    folder = open_folder(tmp_path / "shards")
    name = folder.names[2]
    neighbours = show(lambda: folder.read(name), describer, index)[-1]
    found = re.findall(r"<tr><td>(\w+)</td>", neighbours)
    assert found == [hit.key for hit in index.query_key(name, 5)]
    assert len(found) == 5
    assert "among 6 records" in neighbours


def test_what_was_not_measured_says_why():
    measurements = Measurements(reasons={"pr": 'no "P" wave'}, lead_quality={"V1": "flat"})
    text = markup.measurement_table(measurements, {"flat": ["V1"], "reversal": ["RA/LA"]})
    assert 'title="no &quot;P&quot; wave"' in text
    assert "nan" not in text
    assert "V1: flat" in text
    assert "electrodes possibly exchanged: RA/LA" in text
    assert math.isnan(measurements.pr)


def test_only_loopback_is_bound_and_a_taken_port_is_named():
    with bind(0) as bound:
        host, port = bound.getsockname()
        assert host == "127.0.0.1"
        bound.listen()
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 cannot be used"):
            bind(port)


def test_a_wrong_command_line_is_one_line_and_exit_2(root: Path, tmp_path: Path):
    for arguments, message in (
        ((tmp_path / "absent",), "is not a folder"),
        ((tmp_path, "--model", tmp_path), "has no config.json"),
        ((tmp_path, "--index", tmp_path / "absent"), "see tools/search build"),
        ((tmp_path, "--port", 70000), "--port 70000 is not in 0..65535"),
    ):
        done = run(root, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("tools/view: error: ")
        assert done.stderr.count("\n") == 1
        assert message in done.stderr


def test_a_folder_without_recordings_fails_before_a_page_is_served(root: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(root, tmp_path, "--port", taken.getsockname()[1])
        assert (done.returncode, done.stdout) == (1, "")
        assert "cannot be used" in done.stderr
    done = run(root, tmp_path, "--port", 0)
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds no recording" in done.stderr


def run(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, root / "tools/view", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
