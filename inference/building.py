"""Compiles `native.cpp`, once per source, compiler and kind of processor. Knows nothing of torch, so that a worker may
do it before it takes requests and no request ever waits for a compiler."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = (
    *("-std=c++17", "-O2", "-march=native", "-fopenmp", "-fPIC", "-shared"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),  # nothing that would hide a NaN or reorder a sum
)
OF_GCC = ("-fpeel-loops", "-ftree-vectorize", "-fvect-cost-model=dynamic")  # what helps of -O3, which compiles four times as long
BUILD_WITHIN_S = 120.0


class NotBuilt(Exception):
    """There is no compiled file; the message says why."""


def compiler() -> str | None:
    """The C++ compiler: CXX, g++ or clang++. None without one, or where INFERENCE_NATIVE is 0."""
    if os.environ.get("INFERENCE_NATIVE", "1") == "0":
        return None
    return next((found for name in (os.environ.get("CXX"), "g++", "clang++") if name and (found := shutil.which(name))), None)


def built(*more_flags: str) -> Path:
    """The shared object for this machine, compiled if it is not there yet (about 10 s). Raises NotBuilt."""
    used = compiler()
    if used is None:
        raise NotBuilt("there is no C++ compiler (g++ or clang++), or INFERENCE_NATIVE is 0")
    try:
        version = _run([used, "--version"])
        flags = (*FLAGS, *(() if "clang" in version else OF_GCC), *more_flags)
        target = _folder() / f"native-{_key(version, flags)}.so"
        if not target.exists():
            _compile(used, flags, target)
    except subprocess.CalledProcessError as error:
        raise NotBuilt(f"{used} failed: {error.stderr[-2000:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(str(error)) from error
    return target


def _compile(used: str, flags: Sequence[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        made = Path(aside) / target.name
        _run([used, *flags, str(SOURCE), "-o", str(made)])
        made.replace(target)  # whole or not at all, also when two build at once


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpt-store"


def _key(version: str, flags: Sequence[str]) -> str:
    parts = (SOURCE.read_text(encoding="utf-8"), *flags, version, _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=BUILD_WITHIN_S).stdout


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
