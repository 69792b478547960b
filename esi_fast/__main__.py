"""``python -m esi_fast`` prints what is installed and what will run."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_NAME = "esi-fast"
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<extras>[\w, -]+)\])?(>=(?P<least>[\d.]+))?")
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")
_PLATFORM = re.compile(r"""platform_system\s*==\s*["'](\w+)["']""")


@dataclass(frozen=True)
class Requirement:
    """A package that esi_fast asks for.

    Attributes:
        name: as the package index spells it.
        least: the oldest version that will do, or "".
        extra: which extra asks for it; "" for the base installation.
    """

    name: str
    least: str
    extra: str

    @property
    def installed(self) -> str:
        """The version that is installed, or ""."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return ""

    @property
    def problem(self) -> str:
        """What is wrong with it, or ""."""
        if not self.installed:
            return "not installed"
        if _numbers(self.installed) < _numbers(self.least):
            return f"{self.installed} is too old: {self.least} is needed"
        return ""


def requirements() -> list[Requirement]:
    """What the installed package asks for here, extras that name other extras resolved."""
    found: list[Requirement] = []
    parts: list[tuple[str, str]] = []  # an extra, and one that it takes in
    for line in importlib.metadata.requires(_NAME) or ():
        text, _, marker = line.partition(";")
        system = _PLATFORM.search(marker)
        match = _REQUIREMENT.match(text.strip())
        if match is None or (system and system[1] != platform.system()):
            continue
        extra = named[1] if (named := _EXTRA.search(marker)) else ""
        if match["extras"]:
            parts += [(extra, part.strip()) for part in match["extras"].split(",")]
        else:
            found.append(Requirement(match["name"], match["least"] or "", extra))
    # "all" takes in "train", which takes in "model": two rounds.
    for _ in range(2):
        for whole, part in parts:
            asked = [Requirement(one.name, one.least, whole) for one in found if one.extra == part]
            found += [one for one in asked if one not in found]
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu is (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in match[0].split(".")) if match else ()


def report() -> tuple[list[str], bool]:
    """The lines of the report, and whether the base installation works."""
    asked = requirements()
    core, core_works = _core()
    kernels, kernels_work = _kernels()
    base = [one for one in asked if not one.extra]
    lines = [
        f"esi_fast {importlib.metadata.version(_NAME)}, Python {platform.python_version()}, "
        f"{platform.platform()}",
        core,
        f"CPU: {len(os.sched_getaffinity(0))} usable of {os.cpu_count()} "
        f"({platform.processor() or platform.machine()})",
        *_gpus(),
        "",
        *kernels,
        "",
        "base: " + ", ".join(f"{one.name} {one.problem or one.installed}" for one in base),
        *_extras([one for one in asked if one.extra]),
    ]
    return lines, core_works and kernels_work and not any(one.problem for one in base)


def _core() -> tuple[str, bool]:
    """What the compiled core can use of this CPU."""
    try:
        from esi_fast.signal.resample import _core as core
    except ImportError as error:
        return f"core: does not load ({error}): pip install --force-reinstall {_NAME}", False
    best, *others = core.instruction_sets()
    also = f", also {', '.join(others)}" if others else ""
    return f"core: {core.__file__}, uses {best}{also}", True


def _kernels() -> tuple[list[str], bool]:
    try:
        from esi_fast.kernels import describe
    except ImportError as error:
        return [f"esi_fast.kernels: do not load ({error}): pip install torch"], False
    return describe().splitlines(), True


def _gpus() -> Iterator[str]:
    try:
        import torch
    except ImportError:
        yield "GPU: unknown, since torch is not installed"
        return
    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        yield f"GPU: none (torch is built with {built})"
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield (
            f"GPU {index}: {about.name}, {about.total_memory / 2**30:.0f} GiB, compute capability "
            f"{about.major}.{about.minor}, CUDA {torch.version.cuda}"
        )


def _extras(asked: list[Requirement]) -> Iterator[str]:
    """A line for each extra: the versions it has, or what is amiss and how to get it."""
    for extra in dict.fromkeys(one.extra for one in asked):
        if extra == "all":
            continue
        packages = [one for one in asked if one.extra == extra]
        amiss = [f"{one.name} {one.problem}" for one in packages if one.problem]
        if amiss:
            yield f"{extra}: {', '.join(amiss)}: pip install '{_NAME}[{extra}]'"
        else:
            yield f"{extra}: " + ", ".join(f"{one.name} {one.installed}" for one in packages)


def main(arguments: list[str]) -> int:
    """Print the report; 1 where the base installation does not work."""
    parser = argparse.ArgumentParser(
        prog="python -m esi_fast",
        description="Print versions, CPU and GPUs, what runs each kernel, and which extras are "
        "installed. Ends with 1 if the base installation does not work.",
    )
    parser.parse_args(arguments)
    lines, works = report()
    print("\n".join(lines))  # noqa: T201 (it is the result)
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
