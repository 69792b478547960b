"""What `pip install esi-fast` alone must give: run by an interpreter that has the wheel.

Standard library, numpy and torch only. No compiler and no source tree may be needed: the caller
takes them away. A record is written by hand, so that reader and test share no code.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLES, FS, GAIN = 500, 250, 200.0


def main() -> int:
    """Every check; an AssertionError names what does not hold."""
    import numpy as np
    import torch

    import esi_fast as ef
    from esi_fast import kernels

    source_tree = Path(__file__).resolve().parent.parent
    installed = Path(ef.__file__).resolve().parent
    assert not installed.is_relative_to(source_tree), f"{installed} is the source tree"
    assert shutil.which("cc") is None, "a compiler is at hand: this would prove nothing"
    for extra in ("wfdb", "numba", "transformers", "deepspeed"):
        assert importlib.util.find_spec(extra) is None, f"{extra} is there: base only, please"

    # A record in format 16, as the WFDB manual describes it, in MIMIC-IV-ECG's order of leads.
    rng = np.random.default_rng(0)
    digital = rng.integers(-2000, 2000, (len(LEADS), SAMPLES), dtype=np.int16)
    with tempfile.TemporaryDirectory() as folder:
        header = [f"one {len(LEADS)} {FS} {SAMPLES}"]
        for lead, row in zip(LEADS, digital, strict=True):
            checksum = int(row.sum(dtype=np.int64)) & 0xFFFF
            header.append(f"one.dat 16 {GAIN:g}/mV 16 0 {row[0]} {checksum} 0 {lead}")
        Path(folder, "one.hea").write_text("\n".join(header) + "\n")
        Path(folder, "one.dat").write_bytes(digital.T.astype("<i2").tobytes())
        record = ef.read_record(Path(folder, "one"))
        batch = ef.read_records([Path(folder, "one")], fs=FS)
    assert (record.fs, record.signal.shape) == (FS, (12, SAMPLES))
    for lead, row in zip(LEADS, digital, strict=True):
        got = record.signal[record.leads.index(lead)]
        np.testing.assert_allclose(got, row / GAIN, rtol=1e-6)
    np.testing.assert_array_equal(batch.signal[0], record.signal)
    assert ef.resample(record.signal, FS, 100).shape == (12, SAMPLES * 100 // FS)

    x = torch.randn(2, 50, 8, requires_grad=True)
    gamma, beta = torch.randn(8), torch.randn(8)
    norm = x.pow(2).sum(1, keepdim=True).sqrt()
    want = gamma * (x * norm / (norm.mean(-1, keepdim=True) + 1e-6)) + beta + x
    got = kernels.grn(x, gamma, beta, eps=1e-6)
    torch.testing.assert_close(got, want)
    got.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    conv = torch.nn.Conv1d(8, 8, 7, padding=3, groups=8)
    want = conv(x.mT).mT
    torch.testing.assert_close(kernels.depthwise_conv1d(x, conv.weight, conv.bias, padding=3), want)

    command = [sys.executable, "-I", "-m", "esi_fast"]
    report = subprocess.run(command, capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stdout + report.stderr
    assert "pip install 'esi-fast[data]'" in report.stdout
    version = importlib.metadata.version("esi-fast")
    sys.stdout.write(f"esi_fast {version} of {installed} reads records and runs kernels\n")
    return 0


if __name__ == "__main__":
    os.chdir(tempfile.gettempdir())
    sys.exit(main())
