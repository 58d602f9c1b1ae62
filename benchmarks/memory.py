"""What an engine's process really holds beside what `inference.footprint` states: `python -m benchmarks.memory [FOLDER]`.

Each line is a fresh process that loads the model, fills the whole cache with 32 requests at once and answers them twice. The
peak is that of loading, when the files are mapped as well; those pages are the system's to take back.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path

from benchmarks import machine
from inference.config import GPTConfig
from inference.footprint import beside_bytes, cache_token_bytes, weights_bytes

MIB = 2**20
REQUESTS = 32
ANSWER = 8
DTYPES = ("float32", "bfloat16", "int8")
SMOLLM2 = machine.ROOT / "var" / "cache" / "models" / "smollm2"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SMOLLM2)
    parser.add_argument("--cache-tokens", type=int, default=4096)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--child", metavar="DTYPE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_hold(options.folder, options.child, options.cache_tokens)))
        return
    print(machine.in_words(machine.describe()))
    config = GPTConfig.from_folder(options.folder)
    print(f"{options.folder.name}: {config.parameter_count / 1e6:.0f} M parameters, cache of {options.cache_tokens} tokens; MiB\n")
    print("| dtype | path | weights | cache | beside | stated | resident | resident / stated | peak of loading |")
    print("|---|---|---|---|---|---|---|---|---|")
    beside = beside_bytes(options.folder, config, {"max_running": REQUESTS})
    for dtype in options.dtypes:
        weights, cache = weights_bytes(config, dtype), options.cache_tokens * cache_token_bytes(config, dtype)
        stated = weights + cache + beside
        parts = " | ".join(f"{part / MIB:.0f}" for part in (weights, cache, beside, stated))
        for path, native in (("pure torch", "0"), ("C++", "1")):
            held = _measure(options.folder, dtype, options.cache_tokens, native=native)
            resident, peak = held["VmRSS"], held["VmHWM"]
            print(f"| {dtype} | {path} | {parts} | {resident / MIB:.0f} | {resident / stated:.2f} | {peak / MIB:.0f} |", flush=True)


def _measure(folder: Path, dtype: str, cache_tokens: int, *, native: str) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.memory", str(folder), "--cache-tokens", str(cache_tokens), "--child", dtype]
    environment = os.environ | {"INFERENCE_NATIVE": native, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, cwd=machine.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, int] = json.loads(said.splitlines()[-1])
    return found


def _hold(folder: Path, dtype: str, cache_tokens: int) -> dict[str, int]:
    """Bytes this process holds after work that filled its cache, and held at most."""
    import inference.engine_process  # noqa: F401 what an engine's process has besides the engine
    from inference import Engine, SamplingParams

    engine = Engine.load(folder, dtype=dtype, cache_tokens=cache_tokens, max_running=REQUESTS)
    engine._core.prepare_grammars()
    drawn = random.Random(1)
    most = min(GPTConfig.from_folder(folder).vocab_size, 30_000)
    params = SamplingParams(max_tokens=ANSWER, temperature=0.8, top_p=0.9, ignore_eos=True)
    for _ in range(2):
        prompts = [[drawn.randrange(most) for _ in range(cache_tokens // REQUESTS - ANSWER)] for _ in range(REQUESTS)]
        engine.generate(prompts, params)
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line and line[0] in ("VmRSS:", "VmHWM:")}


if __name__ == "__main__":
    main()
