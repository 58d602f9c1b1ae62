"""Time to first token: through the whole path of a running store, and directly at the engine.

    python benchmarks/first_token.py --url http://127.0.0.1:8000 --api-key gs_… --model demo/smollm2

Both sides get the same prompts in turn, one after the other, so that whatever else the machine does falls on both. Every
prompt begins with a number of its own: no prefix cache can answer it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import statistics
import time
from pathlib import Path
from urllib.parse import urlsplit

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as an engine process has it; read when torch is imported

from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.precision import usual_dtype
from inference.protocol import Delta, Finished, GenerationRequest
from inference.sampling_params import SamplingParams

PROMPT = (
    "Note {number}. The ferry leaves the harbour at seven in the morning and returns at nine in the evening. Tickets are sold on board, "
    "children travel free, bicycles cost two euros. In winter there is no ferry on Sundays. When does the ferry return?"
)
MAX_TOKENS = 8


def through_the_store(url: str, *, key: str, model: str, prompt: str) -> float:
    """Seconds from sending the request, on an open connection, to the first text of its answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
    }
    parts = urlsplit(url)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=300)
    connection.connect()
    began_at = time.perf_counter()
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    )
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"The store answered {response.status}: {response.read().decode(errors='replace')}")
    first_s = None
    while line := response.readline():
        if first_s is None and has_text(line):
            first_s = time.perf_counter() - began_at
    connection.close()
    if first_s is None:
        raise SystemExit("The store's answer had no text.")
    return first_s


def has_text(line: bytes) -> bool:
    """True for a chunk of a chat completion that carries text. Raises SystemExit on an error chunk."""
    if not line.startswith(b"data: {"):
        return False
    chunk = json.loads(line.removeprefix(b"data: "))
    if "error" in chunk:
        raise SystemExit(f"The store answered with an error: {chunk['error']}")
    return any(choice.get("delta", {}).get("content") for choice in chunk.get("choices", []))


def at_the_engine(engine: EngineCore, prompt: str) -> float:
    """Seconds from submitting the request to the first text of its answer."""
    request = GenerationRequest(
        id=f"req_{secrets.token_hex(8)}",
        base="benchmark",
        version="benchmark",
        tenant="benchmark",
        messages=[{"role": "user", "content": prompt}],
        sampling=SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0).to_json(),
        deadline=time.time() + 300,
    )
    began_at = time.perf_counter()
    engine.submit(request)
    first_s = None
    while engine.has_work:
        for _, event in engine.step():
            if isinstance(event, Finished) and event.failure:
                raise SystemExit(f"The engine answered with an error: {event.message}")
            if first_s is None and isinstance(event, Delta) and event.text:
                first_s = time.perf_counter() - began_at
    if first_s is None:
        raise SystemExit("The engine's answer had no text.")
    return first_s


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the running store")
    parser.add_argument("--api-key", default=os.environ.get("API_KEY"), help="printed by `manage.py create_api_key USERNAME`")
    parser.add_argument("--model", required=True, help="publisher/name of a base listing, without instructions of its own")
    parser.add_argument("--folder", type=Path, default=Path("var/cache/models/smollm2"), help="the same model's files")
    parser.add_argument("--dtype", default=usual_dtype(), help="the one the store's worker uses (default: as a worker here would choose)")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=3)
    options = parser.parse_args()
    if not options.api_key:
        parser.error("give --api-key or set API_KEY")
    engine = EngineCore.load(options.folder, EngineOptions(dtype=options.dtype))

    direct, whole = [], []
    for run in range(-options.warm_up, options.runs):
        prompt = PROMPT.format(number=secrets.randbelow(10**9))
        direct_s = at_the_engine(engine, prompt)
        whole_s = through_the_store(options.url, key=options.api_key, model=options.model, prompt=prompt)
        if run >= 0:
            direct.append(direct_s * 1000)
            whole.append(whole_s * 1000)

    print(f"time to first token, {options.runs} runs each, in turn, after {options.warm_up} to warm up ({options.dtype})")
    for name, times in (("at the engine", direct), ("whole path", whole)):
        tenths = statistics.quantiles(times, n=10)
        print(f"  {name:14} median {statistics.median(times):7.1f} ms   fastest tenth {tenths[0]:7.1f}   slowest tenth {tenths[-1]:7.1f}")
    engine_ms, path_ms = statistics.median(direct), statistics.median(whole)
    print(f"  difference     {path_ms - engine_ms:7.1f} ms")
    print(f"  ratio          {path_ms / engine_ms:7.2f}")


if __name__ == "__main__":
    main()
