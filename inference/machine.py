"""How much memory this process may use: what the machine has, or less where the system holds its group of processes to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")
LIMIT_FILES = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}


def memory_bytes(*, proc: Path = PROC) -> int:
    """The machine's memory, or the least limit of the control groups around this process, whichever is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits(proc)])


def _limits(proc: Path) -> Iterator[int]:
    """Of this process's group and those around it, as far as they can be seen: in a container the outer ones can't."""
    for mount, root, kind in _mounts(proc):
        group = _group(proc, kind)
        if group is None:
            continue
        inside = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
        for folder in (inside, *inside.parents):
            try:
                said = (mount / folder / LIMIT_FILES[kind]).read_text().strip()
            except OSError:
                continue
            if said.isdigit():  # version 2 says "max" for none; version 1 a number greater than any memory
                yield int(said)


def _mounts(proc: Path) -> Iterator[tuple[Path, PurePosixPath, str]]:
    """(where it is mounted, which group is there, kind) of each hierarchy that may limit memory, from /proc/self/mountinfo."""
    for line in _lines(proc / "mountinfo"):
        place, _, system = line.partition(" - ")
        kind, _source, options = system.split()[:3]
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            root, mount = place.split()[3:5]
            yield Path(mount), PurePosixPath(root), kind


def _group(proc: Path, kind: str) -> PurePosixPath | None:
    """This process's group in the hierarchy, from /proc/self/cgroup: `0::/path` in version 2, `4:memory:/path` in version 1."""
    for line in _lines(proc / "cgroup"):
        _number, controllers, path = line.split(":", 2)
        if (controllers == "") if kind == "cgroup2" else ("memory" in controllers.split(",")):
            return PurePosixPath(path)
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
