"""Job overhead: from starting a fine-tune to its first training step, on workers that are warm.

    python -m benchmarks.job_overhead

Runs a store of its own under var/benchmarks/jobs (broker, web server, workers, the demo's base), starts the same fine-tune again
and again as the form does, follows what the store and the workers say of it, and cancels it after its first step. A run begins when the
workers are warm: the processes that wait for the next job have loaded what they need. Prints the median of every stage, and what is
left of the whole when the work itself is taken off: loading the base, and the first step itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import machine

FOLDER = machine.ROOT / "var" / "benchmarks" / "jobs"
OPEN_WITHIN_S, STEP_WITHIN_S, WARM_WITHIN_S = 600.0, 300.0, 1200.0  # a first start has the demo checked
IDLE_FOR_S = 2.0  # a job process that has not computed for so long has loaded everything
STAGES = {
    "submit": "the start, until it is committed",
    "check_queued": "the data's check waits for a worker",
    "check": "the data is checked",
    "queued": "the fine-tune waits for a worker",
    "reading": "files and data are read",
    "loading": "the base is loaded",
    "stepping": "the first step is taken",
}
WORK = ("loading", "stepping")  # what is no overhead
TARGET_S = 2.0
Entry = tuple[float, dict[str, Any]]  # (unix time, what was said)


def stages(began_at: float, committed_at: float, check: Sequence[Entry], job: Sequence[Entry]) -> dict[str, float]:
    """Seconds of each of STAGES, from what was said of the check and of the fine-tune. Raises StopIteration where something is missing."""
    claimed, checked = (next(at for at, said in check if said.get("kind") == kind) for kind in ("claimed", "succeeded"))
    begun = next(at for at, said in job if said.get("kind") == "claimed")
    loading = next(at for at, said in job if said.get("stage") == "loading")
    loaded = next(at for at, said in job if at >= loading and said.get("stage") not in (None, "loading"))
    training = next(at for at, said in job if said.get("stage") == "training")
    moments = [began_at, committed_at, claimed, checked, begun, loading, loaded, training]
    return {name: after - before for name, (before, after) in zip(STAGES, pairwise(moments), strict=True)}


def table(runs: Sequence[dict[str, float]]) -> str:
    """The median of every stage, of the whole and of the overhead."""
    lines = ["| stage | seconds | |", "|---|---|---|"]
    for name, title in STAGES.items():
        lines.append(f"| {title} | {_median(run[name] for run in runs):.2f} | {'work' if name in WORK else ''} |")
    whole = _median(sum(run.values()) for run in runs)
    overhead = _median(sum(seconds for name, seconds in run.items() if name not in WORK) for run in runs)
    beyond_load = _median(sum(run.values()) - run["loading"] for run in runs)
    lines += [
        f"| until the first step is done | {whole:.2f} | |",
        f"| beyond loading the base | {beyond_load:.2f} | |",
        f"| **overhead**, beyond all work | {overhead:.2f} | wanted: under {TARGET_S:.0f} |",
    ]
    return "\n".join(lines)


def _median(values: Iterator[float]) -> float:
    return statistics.median(list(values))


# ---------------------------------------------------------------- a store


@contextmanager
def _running_store() -> Iterator[subprocess.Popen[bytes]]:
    """A store that is open, on the environment of this process."""
    log = (FOLDER / "store.log").open("wb")
    process = subprocess.Popen([sys.executable, "manage.py", "up", "--prepare"], cwd=machine.ROOT, stdout=log, stderr=log)
    try:
        _wait(lambda: b"The store is open at" in (FOLDER / "store.log").read_bytes(), OPEN_WITHIN_S, what=f"the store ({log.name})")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=90)


def _environment() -> None:
    """Of the store and of this process alike: everything in FOLDER, but for the models that were downloaded."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    own = {"VAR_DIR": str(FOLDER), "DATABASE_URL": "", "REDIS_URL": "", "BROKER_URL": "", "ARTIFACT_URL": "", "PORT": str(_free_port())}
    own |= {"VALKEY_PORT": str(_free_port()), "DEMO": "1", "DEMO_FINETUNE": "0", "SITE_URL": "", "DJANGO_SETTINGS_MODULE": "store.settings"}
    own |= {"WORKER_CACHE_DIR": os.environ.get("WORKER_CACHE_DIR") or str(machine.ROOT / "var" / "cache")}
    os.environ.update(own)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(condition: Callable[[], Any], within_s: float, *, what: str) -> Any:
    """The first true value of `condition`. Raises SystemExit when there is none in time."""
    until = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > until:
            raise SystemExit(f"After {within_s:.0f} s there was still nothing of {what}.")
        time.sleep(0.05)
    return found


def _become_warm(store: int) -> None:
    """Waits until no job is left, and of the job processes, one for checks and one for training, neither has computed for a while."""
    from store.jobs.models import Job

    seen: dict[int, tuple[int, float]] = {}  # process: (its ticks, since when)

    def idle() -> bool:
        now = time.monotonic()
        for pid in (waiting := _job_processes(store)):
            ticks = sum(int(word) for word in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
            if seen.get(pid, (-1, now))[0] != ticks:
                seen[pid] = (ticks, now)
        if Job.objects.exclude(state__in=Job.ENDED).exists():
            return False
        return len(waiting) == 2 and all(now - seen[pid][1] > IDLE_FOR_S for pid in waiting)

    _wait(idle, WARM_WITHIN_S, what="two warm job processes")


def _job_processes(store: int) -> list[int]:
    """Of the store whose first process is `store`."""
    children: dict[int, list[int]] = {}
    commands: dict[int, bytes] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [store]
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += below
        found += [pid for pid in below if b"inference.job_process" in commands[pid]]
    return found


# ---------------------------------------------------------------- a fine-tune


def measure(store: int, data: Path, count: int) -> Iterator[dict[str, float]]:
    """`count` times the stages of a fine-tune of the demo's base, by the demo's publisher; the first makes warm and is not told."""
    from store.accounts.models import Publisher, User
    from store.jobs import dispatch, files, finetunes
    from store.jobs.models import Job
    from store.pages.demo import finetune

    user, publisher = User.objects.get(username="publisher"), Publisher.objects.get(slug=finetune.PUBLISHER)
    base = finetunes.trainable_bases(user).get(listing__slug=finetune.BASE.slug, listing__publisher__slug=finetune.BASE.publisher)
    with data.open("rb") as stream:
        file = files.save(user, publisher, name=data.name, stream=stream, purpose="fine-tune")
    for number in range(count + 1):
        _become_warm(store)
        began_at = time.time()
        job = finetunes.start(user, publisher, base=base, file=file, settings={"batch_size": 1})
        committed_at = time.time()
        said = _wait(lambda job=job: _until_its_first_step(job), STEP_WITHIN_S, what=f"a first step of {job.public_id}")  # type: ignore[misc]
        dispatch.cancel(user, Job.objects.get(pk=job.pk))
        _wait(lambda job=job: Job.objects.get(pk=job.pk).has_ended, STEP_WITHIN_S, what="its end")  # type: ignore[misc]
        if number:
            yield stages(began_at, committed_at, *said)


def _until_its_first_step(job: Any) -> tuple[list[Entry], list[Entry]] | None:
    """What was said of its check and of itself, once it has made a step."""
    said = _said(job.public_id)
    return (_said(job.after.public_id), said) if any(event.get("step") for _at, event in said) else None


def _said(job: str) -> list[Entry]:
    from inference.protocol import progress_key
    from store.valkey import client

    entries: Any = client().xrange(progress_key(job))
    return [(int(entry.partition("-")[0]) / 1000, json.loads(fields["event"])) for entry, fields in entries]


def main() -> None:
    import django

    parser = argparse.ArgumentParser(prog="python -m benchmarks.job_overhead", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=machine.ROOT / "store" / "pages" / "demo" / "glossary" / "cards.jsonl")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    _environment()
    django.setup()
    print(f"On {machine.in_words(machine.describe())}\n")
    with _running_store() as store:
        runs = []
        for run in measure(store.pid, options.data, options.runs):
            runs.append(run)
            print(
                f"run {len(runs)}: {sum(run.values()):.2f} s to the end of the first step, {run['loading']:.2f} of them to load the base",
                file=sys.stderr,
            )
    print(table(runs))


if __name__ == "__main__":
    main()
