"""A publisher brings an adapter file by file, and writes a prompt GPT, tries it and submits it: by keyboard alone, in both languages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from safetensors.numpy import save_file

from store.accounts.models import User
from store.catalog.models import Listing, Version
from store.moderation.models import Submission
from tests import making
from tests.journeys.conftest import Judge, choose, press, reach, sign_in, write
from tests.journeys.test_signed_in_pages import BASE
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.real_model]
WITHIN_MS = 300_000
WIDTH = 576  # of SmolLM2-135M
LANGUAGES = ["en", "zh-hans"]
REFUSED = {"en": "optimizer.pt may carry code", "zh-hans": "optimizer.pt 可能带有代码"}
DRAFT_SAVED = {"en": "The draft is saved.", "zh-hans": "草稿已保存。"}
WITHDRAWN = {"en": "Withdrawn", "zh-hans": "已撤回"}
STARTER = {"en": "What is the capital of France?", "zh-hans": "法国的首都是哪里？"}
NAMES = {"en": "Plain Answers", "zh-hans": "简短的回答"}


@pytest.fixture
def adapter(tmp_path: Path) -> list[Path]:
    """The files of a LoRA on one projection of the base."""
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    config.write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    numbers = {name.format("A"): np.full((2, WIDTH), 0.01, np.float32), name.format("B"): np.full((WIDTH, 2), 0.01, np.float32)}
    save_file(numbers, weights)
    return [config, weights]


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_adapter_is_brought_checked_and_made_a_draft(
    site: Page, stack: Stack, judge: Judge, somebody: User, adapter: list[Path], language: str
) -> None:
    base = Version.objects.available().get(kind="weights", listing__slug=BASE)
    listing = making.make_listing(making.make_publisher(somebody))
    pickle = adapter[0].with_name("optimizer.pt")
    pickle.write_bytes(b"\x80\x04")
    sign_in(site, stack, somebody)
    site.on("filechooser", lambda chooser: chooser.set_files([pickle, *adapter]))
    site.goto(f"{stack.url}/{language}/studio/gpts/{listing.full_name}/")
    press(site, site.locator("main details.menu > summary"))
    press(site, site.locator("main details.menu a[href$='/files/']"))
    choose(site, site.locator("select[name=base]"), base.public_id)
    press(site, site.locator("main form button.primary"))

    press(site, site.locator("input[type=file]"))

    expect(site.locator("[data-folder-arriving]")).to_contain_text(REFUSED[language], timeout=WITHIN_MS)
    check = site.locator("form[action$='/check/'] button")
    expect(check).to_be_visible(timeout=WITHIN_MS)
    judge(site)
    press(site, check)
    make = site.locator("[data-job]:not([data-events]) #folder-standing form button.primary")
    expect(make).to_be_visible(timeout=WITHIN_MS)
    press(site, make)
    expect(site.get_by_text(DRAFT_SAVED[language])).to_be_visible()
    made = listing.versions.get()
    assert (made.kind, made.base, made.facts["rank"]) == ("adapter", base, 2)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_prompt_gpt_is_written_tried_submitted_and_withdrawn(
    site: Page, stack: Stack, judge: Judge, somebody: User, language: str
) -> None:
    base = Version.objects.available().get(kind="weights", listing__slug=BASE)
    publisher = making.make_publisher(somebody)
    sign_in(site, stack, somebody)
    site.goto(f"{stack.url}/{language}/studio/publishers/{publisher.slug}/")
    press(site, site.locator("main a[href$='/new/']").first)
    choose(site, site.locator("select[name=base]"), base.public_id)
    write(site, site.locator("[name=instructions]"), "You answer with one word.")
    write(site, site.locator("[name=starters]"), STARTER[language])
    press(site, site.locator("details:has([name=max_tokens]) > summary"))
    write(site, site.locator("[name=max_tokens]"), "8")

    press(site, site.locator("[data-starters]").get_by_role("button", name=STARTER[language]))
    expect(site.locator("#draft-text")).to_be_focused()
    site.keyboard.press("Enter")
    expect(site.locator("[data-turns] .meter .numbers")).to_contain_text("token", timeout=WITHIN_MS)
    expect(site.locator("[data-turns] .answer")).not_to_have_attribute("aria-busy", "true", timeout=WITHIN_MS)
    write(site, site.locator("[name=instructions]"), "You answer in French.")
    expect(site.locator("[data-changed]")).to_be_visible()
    judge(site)
    press(site, site.locator("[data-anew]"))
    expect(site.locator("[data-turns] li")).to_have_count(0)
    assert not publisher.listings.exists()

    short = {"en": "en", "zh-hans": "zh"}[language]
    write(site, site.locator("[name=slug]"), "plain-answers")
    write(site, site.locator(f"[name=name_{short}]"), NAMES[language])
    write(site, site.locator(f"[name=summary_{short}]"), f"{NAMES[language]}.")
    for box in (site.locator("[name=use_cases]").first, site.locator(f"[name=languages][value={short}]")):
        reach(site, box)
        site.keyboard.press("Space")
    press(site, site.locator("main form > .row button.primary"))
    expect(site.get_by_role("heading", level=1)).to_have_text(NAMES[language])
    listing = Listing.objects.get(publisher=publisher)

    press(site, site.locator("form[action$='/submit/'] button.primary"))
    submission = wait_until(lambda: Submission.objects.filter(listing=listing).first(), what="the submission")
    press(site, site.locator("form[action$='/withdraw/'] button"))
    wait_until(lambda: Submission.objects.filter(pk=submission.pk, state="withdrawn").exists(), what="the withdrawal")
    expect(site.locator("main")).to_contain_text(WITHDRAWN[language])
    assert not Listing.objects.listed().filter(pk=listing.pk).exists()
