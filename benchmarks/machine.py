"""What a benchmark ran on: nobody can use a figure without it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
)
ROOT = Path(__file__).parent.parent


def describe() -> dict[str, Any]:
    """Processor, memory, load before the first measurement, versions, and the commit that was measured."""
    fields = _cpu_fields()
    words = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "family": f"{fields.get('vendor_id', '?')} family {fields.get('cpu family', '?')} model {fields.get('model', '?')}",
        "flags": [flag for flag in FLAGS if flag in words],
        "missing": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag not in words],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "compiler": _first_line(os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++"), "--version") or "none",
        "commit": _commit(),
    }


def in_words(machine: dict[str, Any]) -> str:
    return (
        f"{machine['processor']} ({machine['family']}), {machine['cores']} cores, with {' '.join(machine['flags']) or 'no vector flags'}"
        f", without {' '.join(machine['missing']) or 'nothing looked for'}; {machine['memory_gib']} GiB; {machine['system']}; "
        f"Python {machine['python']}, torch {machine['torch']}; compiler: {machine['compiler']}; "
        f"load before: {' '.join(str(load) for load in machine['load_before'])}; commit {machine['commit']}"
    )


def _cpu_fields() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _commit() -> str:
    short = _first_line("git", "rev-parse", "--short", "HEAD")
    if not short:
        return "unknown"
    return f"{short} with changes" if _first_line("git", "status", "--porcelain", "--untracked-files=no", "--", "inference") else short


def _first_line(*command: str | None) -> str:
    """What a command says first; nothing where it cannot be run."""
    if command[0] is None:
        return ""
    words = [word for word in command if word is not None]
    try:
        said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.splitlines()[0] if said else ""
