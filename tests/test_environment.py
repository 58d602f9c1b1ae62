"""What a process is told that is trusted less than the store."""

from __future__ import annotations

from store import environment

GIVEN = {
    "PATH": "/bin",
    "LD_LIBRARY_PATH": "/usr/lib/cuda",
    "https_proxy": "http://proxy:3128",
    "CUDA_VISIBLE_DEVICES": "0",
    "HF_ENDPOINT": "https://hub.example",
    "HF_TOKEN": "of the hub",
    "PIP_INDEX_URL": "https://user:password@index.example/simple",
    "AWS_SECRET_ACCESS_KEY": "of the artifacts",
    "WORKER_THREADS": "2",
    "WORKER_VLLM": "3fa9c1d2=http://127.0.0.1:8100",
    "WORKER_VLLM_KEY": "of the vLLM server",
    "WORKER_REDIS_URL": "redis://worker:password@valkey/0",
    "LOG_JSON": "1",
    "SECRET_KEY": "of the store",
    "DATABASE_URL": "postgres://store:password@db/store",
    "REDIS_URL": "redis://store:password@valkey/0",
    "BROKER_URL": "amqp://store:password@rabbit",
    "EMAIL_HOST_USER": "store",
    "EMAIL_HOST_PASSWORD": "of the mail server",
    "METRICS_TOKEN": "of the metrics",
    "PGPASSWORD": "of somebody's shell",
    "SOMETHING_NEW": "that nobody thought of",
}
OF_WORKERS = {"WORKER_THREADS", "WORKER_VLLM", "WORKER_VLLM_KEY"}
MACHINE = {"PATH", "LD_LIBRARY_PATH", "https_proxy", "CUDA_VISIBLE_DEVICES", "HF_ENDPOINT"}


def test_the_broker_is_told_of_the_machine_alone() -> None:
    assert set(environment.of_machine(GIVEN)) == MACHINE


def test_a_worker_is_told_its_own_settings_and_how_to_reach_the_artifacts() -> None:
    assert set(environment.of_workers(GIVEN)) == MACHINE | {"AWS_SECRET_ACCESS_KEY", "LOG_JSON", *OF_WORKERS}


def test_an_import_is_told_how_to_download_and_how_to_reach_the_artifacts() -> None:
    assert set(environment.of_imports(GIVEN)) == MACHINE | {"HF_TOKEN", "PIP_INDEX_URL", "AWS_SECRET_ACCESS_KEY"}
