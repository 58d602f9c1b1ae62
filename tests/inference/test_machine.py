"""A worker in a container counts with the container's memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference.machine import memory_bytes

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
NO_LIMIT = {"cgroup2": ("memory.max", "max"), "cgroup": ("memory.limit_in_bytes", "9223372036854771712")}


def machine(folder: Path, *, kind: str, group: str, root: str = "/", limits: dict[str, int]) -> Path:
    """A /proc/self of a process in `group`, whose hierarchy is mounted from `root` on; `limits` are by folder below the mount."""
    proc, mount = folder / "proc", folder / "groups"
    proc.mkdir()
    options = "rw" if kind == "cgroup2" else "rw,memory"
    (proc / "mountinfo").write_text(
        f"30 23 0:27 / /tmp rw - tmpfs tmpfs rw\n31 30 0:28 {root} {mount} rw,relatime shared:9 - {kind} cgroup {options}\n"
    )
    (proc / "cgroup").write_text(f"0::{group}\n" if kind == "cgroup2" else f"5:cpu,cpuacct:/else\n4:memory:{group}\n0::/\n")
    name, unlimited = NO_LIMIT[kind]
    for place in ["", *limits]:
        (mount / place).mkdir(parents=True, exist_ok=True)
        (mount / place / name).write_text(f"{limits.get(place, unlimited)}\n")
    return proc


@pytest.mark.parametrize("kind", ["cgroup2", "cgroup"])
def test_the_limit_of_the_own_group_counts(tmp_path: Path, kind: str) -> None:
    proc = machine(tmp_path, kind=kind, group="/slice/worker", limits={"slice/worker": 2**30})

    assert memory_bytes(proc=proc) == 2**30


@pytest.mark.parametrize("kind", ["cgroup2", "cgroup"])
def test_the_least_limit_of_the_groups_around_counts(tmp_path: Path, kind: str) -> None:
    proc = machine(tmp_path, kind=kind, group="/slice/worker", limits={"slice/worker": 2**30, "slice": 2**29})

    assert memory_bytes(proc=proc) == 2**29


@pytest.mark.parametrize("kind", ["cgroup2", "cgroup"])
@pytest.mark.parametrize(("group", "root"), [("/", "/"), ("/docker/a", "/docker/a"), ("/docker/a", "/elsewhere")])
def test_in_a_container_its_group_is_what_is_mounted(tmp_path: Path, kind: str, group: str, root: str) -> None:
    proc = machine(tmp_path, kind=kind, group=group, root=root, limits={"": 2**28})

    assert memory_bytes(proc=proc) == 2**28


@pytest.mark.parametrize("kind", ["cgroup2", "cgroup"])
def test_without_a_limit_it_is_what_the_machine_has(tmp_path: Path, kind: str) -> None:
    assert memory_bytes(proc=machine(tmp_path, kind=kind, group="/slice", limits={})) == PHYSICAL


def test_where_there_are_no_groups_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert memory_bytes(proc=tmp_path) == PHYSICAL
