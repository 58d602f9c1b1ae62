"""A publisher brings an adapter file by file and chats with a prompt GPT while writing it, in a real browser and with a real worker."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect
from safetensors.numpy import save_file

from store.accounts.models import User
from store.catalog.models import Version
from tests import making
from tests.journeys.conftest import sign_in
from tests.journeys.test_signed_in_pages import BASE
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.real_model]
WITHIN_MS = 300_000
WIDTH = 576  # of SmolLM2-135M


@pytest.fixture
def adapter(tmp_path: Path) -> list[Path]:
    """The files of a LoRA on one projection of the base."""
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    config.write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    numbers = {name.format("A"): np.full((2, WIDTH), 0.01, np.float32), name.format("B"): np.full((WIDTH, 2), 0.01, np.float32)}
    save_file(numbers, weights)
    return [config, weights]


def test_an_adapter_is_brought_checked_and_made_a_draft(site: Page, stack: Stack, somebody: User, adapter: list[Path]) -> None:
    base = Version.objects.available().get(kind="weights", listing__slug=BASE)
    listing = making.make_listing(making.make_publisher(somebody))
    pickle = adapter[0].with_name("optimizer.pt")
    pickle.write_bytes(b"\x80\x04")
    sign_in(site, stack, somebody)
    site.goto(stack.url + reverse("pages:studio_bring", args=[listing.publisher.slug, listing.slug]))
    site.locator("select[name=base]").select_option(base.public_id)
    site.get_by_role("button", name="Choose the files").click()

    site.locator("input[type=file]").set_input_files([pickle, *adapter])

    expect(site.get_by_text("optimizer.pt may carry code")).to_be_visible(timeout=WITHIN_MS)
    site.get_by_role("button", name="Check the files").click(timeout=WITHIN_MS)
    expect(site.get_by_role("heading", name="The files are good")).to_be_visible(timeout=WITHIN_MS)
    site.get_by_role("button", name="Make the draft version").click()
    expect(site.get_by_text("The draft is saved.")).to_be_visible()
    made = listing.versions.get()
    assert (made.kind, made.base, made.facts["rank"]) == ("adapter", base, 2)


def test_a_prompt_gpt_answers_while_it_is_written(site: Page, stack: Stack, somebody: User) -> None:
    publisher = making.make_publisher(somebody)
    sign_in(site, stack, somebody)
    site.goto(stack.url + reverse("pages:studio_new_gpt", args=[publisher.slug]))
    site.locator("[name=instructions]").fill("You answer with one word.")
    site.locator("[name=starters]").fill("What is the capital of France?")
    site.locator("details:has([name=max_tokens]) > summary").click()
    site.locator("[name=max_tokens]").fill("8")

    site.get_by_role("button", name="What is the capital of France?").click()
    site.locator("#draft-text").press("Enter")

    expect(site.locator("[data-turns] .meter .numbers")).to_contain_text("token", timeout=WITHIN_MS)
    expect(site.locator("[data-turns] .answer")).not_to_have_attribute("aria-busy", "true", timeout=WITHIN_MS)
    site.locator("[name=instructions]").fill("You answer in French.")
    expect(site.locator("[data-changed]")).to_be_visible()
    site.get_by_role("button", name="Start over").click()
    expect(site.locator("[data-turns] li")).to_have_count(0)
    assert not publisher.listings.exists()
