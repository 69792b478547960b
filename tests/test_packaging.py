"""What the wheel holds; `.ci/package` compiles it, uses it, and looks into the sdist."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

# By-products of running or building in the tree.
GENERATED = {".so", ".pyc", ".nbi", ".nbc"}


def build(root: Path, out: Path, *arguments: str) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", "-o", str(out), *arguments]
    done = subprocess.run([*command, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.iterdir())


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel without its core: what is packed is chosen by the same settings, in a second."""
    out = tmp_path_factory.mktemp("wheel")
    return zipfile.ZipFile(build(root, out, "--wheel", "-Cwheel.cmake=false"))


def package_files(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for path in (root / "esi_fast").rglob("*")
        if path.is_file() and path.suffix not in GENERATED
    }


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(
    root: Path, wheel: zipfile.ZipFile
):
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == package_files(root)
    data = {name for name in packed if not name.endswith((".py", ".pyi"))}
    assert {".toml", ".jinja"} <= {Path(name).suffix for name in data}
    assert any(name.startswith("esi_fast/cqa/knowledge/") for name in data)
    assert "esi_fast/py.typed" in data
    recipes = {f"esi_fast/recipes/{path.name}" for path in (root / "tools" / "recipes").iterdir()}
    assert "esi_fast/recipes/base.toml" in recipes <= data


def test_the_wheel_says_what_it_is(root: Path, wheel: zipfile.ZipFile):
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = wheel.read(name).decode()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert f"Requires-Python: {project['requires-python']}" in metadata
    base = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    assert sum("extra ==" not in line for line in base) == len(project["dependencies"]) == 3
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_core_runs_on_every_cpu_of_its_kind(root: Path):
    """Compiled for one machine, a wheel would crash on another."""
    cmake = "\n".join(
        line
        for line in (root / "CMakeLists.txt").read_text().splitlines()
        if not line.lstrip().startswith("#")
    )
    assert "native" not in cmake
    assert "fast-math" not in cmake
    assert "-march=x86-64-v2" in cmake


def test_wheels_are_declared_for_the_pythons_that_the_metadata_names(root: Path):
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    settings = pyproject["tool"]["cibuildwheel"]
    prefix = "Programming Language :: Python :: 3."
    named = [one for one in pyproject["project"]["classifiers"] if one.startswith(prefix)]
    assert settings["build"] == [f"cp3{one.removeprefix(prefix)}-*" for one in named]
    assert {
        settings["linux"][f"manylinux-{arch}-image"] for arch in settings["linux"]["archs"]
    } == {"manylinux_2_28"}
    assert (root / ".ci/check_installed.py").is_file()
    assert "{project}/.ci/check_installed.py" in settings["test-command"]
