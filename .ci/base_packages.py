"""Link what the base installation of esi_fast asks for, and nothing else, into a folder.

So a clean environment has numpy, torch, triton and what these need, in the versions of the
environment that runs this, without the gigabytes of another download.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement


def closure(name: str) -> list[str]:
    """The distributions that one needs here without extras, itself left out."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        for line in importlib.metadata.requires(waiting.pop()) or ():
            needed = Requirement(line)
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            if needed.name not in found:
                found.append(needed.name)
                waiting.append(needed.name)
    return found


def main(folder: Path) -> None:
    """Make the folder."""
    folder.mkdir(parents=True)
    names = closure("esi-fast")
    assert {"numpy", "torch"} <= set(names), names
    for name in names:
        distribution = importlib.metadata.distribution(name)
        # The first parts of its files' names: packages, modules, the folder of its metadata.
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not link.is_symlink():
                link.symlink_to(Path(str(distribution.locate_file(top))).resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
