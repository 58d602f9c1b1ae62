"""A throw-away PostgreSQL server for a test run, from whatever PostgreSQL the machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoPostgreSQL(RuntimeError):
    pass


def _binaries() -> Path:
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not candidates:
        raise NoPostgreSQL("No initdb was found. Install PostgreSQL (Debian: apt-get install postgresql) and run the tests again.")
    return candidates[0]


def _as_server_user(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as the user its package made."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


@contextmanager
def server(folder: Path, *, port: int) -> Iterator[None]:
    """A server on a socket in `folder` and on 127.0.0.1:`port`, without durability, ended and removed afterwards."""
    binaries, cluster = _binaries(), folder / "cluster"
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    quiet = {"stdout": subprocess.DEVNULL, "check": True, "cwd": folder}
    subprocess.run(
        _as_server_user(str(binaries / "initdb"), "-D", str(cluster), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"),
        **quiet,  # type: ignore[call-overload]
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off -c full_page_writes=off"
    control = [str(binaries / "pg_ctl"), "-D", str(cluster), "-w", "-l", str(folder / "log")]
    subprocess.run(_as_server_user(*control, "-o", options, "start"), **quiet)  # type: ignore[call-overload]
    try:
        yield
    finally:
        subprocess.run(_as_server_user(*control, "-m", "immediate", "stop"), **quiet)  # type: ignore[call-overload]
        shutil.rmtree(cluster, ignore_errors=True)
