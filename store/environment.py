"""What of this process's environment a process may know that is trusted less than the store: the broker, a worker, an import.

Each list says what is passed on, so that a variable nobody thought of stays here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

# Of the machine and its libraries: where things are, how they compute, how they reach out.
MACHINE = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"}
MACHINE |= {"LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
MACHINE |= {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "XDG_CACHE_HOME", "MALLOC_ARENA_MAX", "TOKENIZERS_PARALLELISM"}
COMPUTING = ("OMP_", "MKL_", "KMP_", "GOMP_", "ONEDNN_", "OPENBLAS_", "NUMEXPR_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH", "PYTORCH_")
MACHINE_PREFIXES = ("LC_", "PYTHON", "HF_", "TRANSFORMERS_", *COMPUTING)
HUB_TOKENS = {"HF_TOKEN", "HF_OAUTH_TOKEN"}  # only who downloads needs them

ARTIFACTS_PREFIXES = ("AWS_",)
WORKER = {"LOG_LEVEL", "LOG_JSON", "CXX"}
WORKER_PREFIXES = ("WORKER_", "INFERENCE_", *ARTIFACTS_PREFIXES)
ADDRESSES = {"WORKER_REDIS_URL", "WORKER_BROKER_URL"}  # a worker has its addresses under names of its own, REDIS_URL and BROKER_URL
IMPORT_PREFIXES = ("PIP_", *ARTIFACTS_PREFIXES)


def of_machine(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """What any program needs, and nothing of the installation."""
    return _chosen(given, lambda name: _is_of(name.upper(), MACHINE, MACHINE_PREFIXES) and name not in HUB_TOKENS)


def of_workers(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """A worker's settings and the credentials of the artifact store; the caller adds the addresses."""
    return of_machine(given) | _chosen(given, lambda name: _is_of(name, WORKER, WORKER_PREFIXES) and name not in ADDRESSES)


def of_imports(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """What downloads a model and stores it."""
    return of_machine(given) | _chosen(given, lambda name: _is_of(name, HUB_TOKENS, IMPORT_PREFIXES))


def _chosen(given: Mapping[str, str] | None, wanted: Callable[[str], bool]) -> dict[str, str]:
    return {name: value for name, value in (os.environ if given is None else given).items() if wanted(name)}


def _is_of(name: str, names: set[str], prefixes: tuple[str, ...]) -> bool:
    return name in names or name.startswith(prefixes)
