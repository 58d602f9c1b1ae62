"""A data file is brought in pieces by a real browser: over a lost connection, a reload, a killed server, and without a script."""

from __future__ import annotations

import hashlib
import io
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, Route, expect

from store.accounts.models import Publisher, User
from store.catalog.models import Version
from store.jobs import dispatch, uploads
from store.jobs.models import Job, Upload, UploadedFile
from tests.journeys.conftest import real_password, sign_in
from tests.journeys.test_signed_in_pages import BASE, DESK, TELEPHONE, judged, opened, shown
from tests.making import draft_prompt, join, make_listing, make_publisher
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.real_model]
PIECE = 4 * 1024 * 1024
LINE = b'{"prompt": "What is %07d?", "completion": "A number."}\n'
UPLOADED_WITHIN_MS = 120_000


@dataclass
class Wire:
    """The pieces that the page sends; those whose number is in `cut` never arrive."""

    cut: set[int] = field(default_factory=set)
    offsets: list[int] = field(default_factory=list)

    def pass_on(self, route: Route) -> None:
        if route.request.method != "PATCH":
            route.continue_()
            return
        self.offsets.append(int(route.request.headers["upload-offset"]))
        if len(self.offsets) in self.cut:
            route.abort("connectionreset")
        else:
            route.continue_()


@pytest.fixture
def publisher(somebody: User) -> Publisher:
    return make_publisher(somebody)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of four pieces, like no other."""
    path = tmp_path / f"numbers-{os.urandom(4).hex()}.jsonl"
    first, size = int.from_bytes(os.urandom(2), "big"), len(LINE % 0)
    path.write_bytes(b"".join(LINE % (first + number) for number in range(3 * PIECE // size + 1000)))
    return path


@pytest.fixture
def wire(site: Page, stack: Stack, somebody: User, publisher: Publisher) -> Iterator[Wire]:
    """The page on which data are chosen, and what it sends."""
    sign_in(site, stack, somebody)
    wire = Wire()
    site.route("**/studio/uploads/**", wire.pass_on)
    site.goto(_address(stack, publisher))
    yield wire
    site.unroute_all(behavior="wait")


def _address(stack: Stack, publisher: Publisher) -> str:
    return f"{stack.url}/en/studio/publishers/{publisher.slug}/finetunes/new/"


def _choose(page: Page, file: Path) -> None:
    page.locator("input[type=file]").set_input_files(file)


def _go_on(page: Page) -> None:
    page.locator("select[name=base]").select_option(index=0)
    page.get_by_role("button", name="Next: settings").click()


def _await_settings(page: Page, publisher: Publisher, file: Path) -> None:
    """The next step, which stands on the very file."""
    page.wait_for_url("**/finetunes/new/*/*/", timeout=UPLOADED_WITHIN_MS)
    kept = UploadedFile.objects.get(publisher=publisher)
    assert (kept.name, kept.size_bytes) == (file.name, file.stat().st_size)
    assert kept.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert page.url.rstrip("/").endswith(kept.public_id)


def test_a_form_sent_early_waits_for_its_file_which_goes_on_over_a_cut_connection(
    site: Page, wire: Wire, publisher: Publisher, file: Path
) -> None:
    wire.cut = {2}

    _choose(site, file)
    expect(site.locator("[data-upload-said]")).to_contain_text("The connection was lost.")
    _go_on(site)

    _await_settings(site, publisher, file)
    assert wire.offsets == [0, PIECE, PIECE, 2 * PIECE, 3 * PIECE]


def test_after_a_reload_the_upload_goes_on_where_it_was(site: Page, stack: Stack, wire: Wire, publisher: Publisher, file: Path) -> None:
    wire.cut = set(range(3, 100))
    said = site.locator("[data-upload-said]")

    _choose(site, file)
    expect(said).to_contain_text("The connection was lost.")
    site.reload()
    expect(said).to_have_text(f"The upload of {file.name} is not complete. Choose the file again to go on.")
    assert Upload.objects.get(publisher=publisher).offset_bytes == 2 * PIECE
    wire.cut, wire.offsets = set(), []
    _choose(site, file)
    expect(said).to_have_text(f"{file.name} is uploaded.", timeout=UPLOADED_WITHIN_MS)
    _go_on(site)

    _await_settings(site, publisher, file)
    assert wire.offsets == [2 * PIECE, 3 * PIECE]


def test_a_web_server_killed_under_an_upload_costs_one_piece(
    site: Page, stack: Stack, wire: Wire, publisher: Publisher, file: Path
) -> None:
    killed: list[int] = []

    def kill(route: Route) -> None:
        if route.request.method == "PATCH" and len(wire.offsets) == 2 and not killed:
            killed.extend(stack.pids("uvicorn", "store.asgi"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        wire.pass_on(route)

    site.unroute_all()
    site.route("**/studio/uploads/**", kill)

    _choose(site, file)
    expect(site.locator("[data-upload-said]")).to_have_text(f"{file.name} is uploaded.", timeout=UPLOADED_WITHIN_MS)
    _go_on(site)

    _await_settings(site, publisher, file)
    assert killed
    assert wire.offsets == [0, PIECE, 2 * PIECE, 2 * PIECE, 3 * PIECE]


def test_an_upload_that_is_cancelled_leaves_nothing_and_another_file_may_be_chosen(
    site: Page, wire: Wire, publisher: Publisher, file: Path, tmp_path: Path
) -> None:
    wire.cut = {2}
    other = tmp_path / "other.jsonl"
    other.write_bytes(LINE % 1)

    _choose(site, file)
    expect(site.locator("[data-upload-said]")).to_contain_text("The connection was lost.")
    with site.expect_response(lambda answer: answer.request.method == "DELETE") as answered:
        site.get_by_role("button", name="Cancel the upload").click()
    expect(site.get_by_role("button", name="Cancel the upload")).to_be_hidden()
    expect(site.locator("input[type=file]")).to_be_focused()
    assert answered.value.status == 204
    assert not Upload.objects.filter(publisher=publisher).exists()
    _choose(site, other)
    _go_on(site)

    _await_settings(site, publisher, other)


def test_a_file_that_cannot_be_taken_is_said_at_once(site: Page, wire: Wire, publisher: Publisher, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"x")

    _choose(site, picture)

    expect(site.locator("[data-upload-said]")).to_contain_text("named something.jsonl, .csv or .txt.")
    assert (wire.offsets, Upload.objects.filter(publisher=publisher).count()) == ([], 0)


def test_a_publisher_without_room_is_told_so_at_once(site: Page, wire: Wire, publisher: Publisher, somebody: User, file: Path) -> None:
    whole = {"sha256": "0" * 64, "size_bytes": settings.UPLOADED_BYTES_PER_PUBLISHER}
    UploadedFile.objects.create(publisher=publisher, created_by=somebody, purpose="fine-tune", name="all.jsonl", **whole)

    _choose(site, file)

    expect(site.locator("[data-upload-said]")).to_contain_text("Train on a file that is here already")
    assert (wire.offsets, Upload.objects.filter(publisher=publisher).count()) == ([], 0)


def test_a_file_chosen_in_place_of_another_takes_its_place_in_the_store_too(
    site: Page, wire: Wire, publisher: Publisher, file: Path, tmp_path: Path
) -> None:
    wire.cut = {2}
    other = tmp_path / "other $& {name}.jsonl"
    other.write_bytes(LINE % 1)

    _choose(site, file)
    expect(site.locator("[data-upload-said]")).to_contain_text("The connection was lost.")
    with site.expect_response(lambda answer: answer.request.method == "DELETE"):
        _choose(site, other)
    expect(site.locator("[data-upload-said]")).to_have_text(f"{other.name} is uploaded.")

    assert [upload.name for upload in Upload.objects.filter(publisher=publisher)] == [other.name]
    _go_on(site)
    _await_settings(site, publisher, other)


def test_a_file_that_changes_under_its_upload_is_asked_for_again(site: Page, wire: Wire, publisher: Publisher, file: Path) -> None:
    wire.cut = {2}
    said = site.locator("[data-upload-said]")

    _choose(site, file)
    expect(said).to_contain_text("The connection was lost.")
    file.write_bytes(LINE % 1)
    expect(said).to_have_text("The file has changed since it was chosen. Choose it again.")
    _choose(site, file)
    expect(said).to_have_text(f"{file.name} is uploaded.")
    _go_on(site)

    _await_settings(site, publisher, file)


def test_two_tabs_bring_one_file_together(site: Page, stack: Stack, wire: Wire, publisher: Publisher, file: Path) -> None:
    wire.cut = {2}
    _choose(site, file)
    expect(site.locator("[data-upload-said]")).to_contain_text("The connection was lost.")
    tab = site.context.new_page()
    tab.goto(_address(stack, publisher))
    _choose(tab, file)

    for page in (site, tab):
        expect(page.locator("[data-upload-said]")).to_have_text(f"{file.name} is uploaded.", timeout=UPLOADED_WITHIN_MS)
    assert Upload.objects.filter(publisher=publisher).count() == 1
    for page in (site, tab):
        _go_on(page)
        _await_settings(page, publisher, file)


@pytest.mark.parametrize("other", [False, True], ids=["the same file", "another of its name and size"])
def test_another_browser_goes_on_from_the_list_but_only_with_a_file_that_begins_likewise(
    browser: Browser, site: Page, stack: Stack, wire: Wire, somebody: User, publisher: Publisher, file: Path, other: bool
) -> None:
    wire.cut = set(range(3, 100))
    _choose(site, file)
    expect(site.locator("[data-upload-said]")).to_contain_text("The connection was lost.")
    site.goto("about:blank")
    page, elsewhere = browser.new_page(), Wire()
    sign_in(page, stack, somebody)
    page.route("**/studio/uploads/**", elsewhere.pass_on)
    page.goto(f"{stack.url}/en/studio/publishers/{publisher.slug}/files/")

    page.get_by_role("row").filter(has_text=file.name).get_by_role("link", name="Go on").click()
    expect(page.locator("[data-upload-said]")).to_have_text(f"The upload of {file.name} is not complete. Choose the file again to go on.")
    if other:
        file.write_bytes(file.read_bytes().replace(b"A number.", b"Of course", 1))
    _choose(page, file)
    expect(page.locator("[data-upload-said]")).to_have_text(f"{file.name} is uploaded.", timeout=UPLOADED_WITHIN_MS)
    _go_on(page)

    _await_settings(page, publisher, file)
    assert elsewhere.offsets == [PIECE * number for number in range(0 if other else 2, 4)]
    page.unroute_all(behavior="wait")
    page.goto(f"{stack.url}/en/studio/publishers/{publisher.slug}/files/")
    if other:
        page.get_by_role("row").filter(has_text=file.name).get_by_role("button", name="Remove").click()
        expect(page.get_by_text(f"The upload of {file.name} is removed.")).to_be_visible()
    expect(page.get_by_role("heading", name="Your unfinished uploads")).to_have_count(0)
    page.close()


def test_a_suite_goes_on_from_the_list_once_it_is_chosen_what_it_measures(
    site: Page, stack: Stack, somebody: User, publisher: Publisher, tmp_path: Path
) -> None:
    content = b'{"prompt": "Where is Paris?", "expected": "France"}\n' * 40
    suite = tmp_path / "suite.jsonl"
    suite.write_bytes(content)
    version = draft_prompt(Version.objects.available().get(kind="weights", listing__slug=BASE), make_listing(publisher))
    begun = uploads.begin(somebody, publisher, name=suite.name, purpose="evaluation", length_bytes=len(content))
    uploads.append(begun, offset_bytes=0, stream=io.BytesIO(content[:100]))
    sign_in(site, stack, somebody)
    wire = Wire()
    site.route("**/studio/uploads/**", wire.pass_on)
    site.goto(f"{stack.url}/en/studio/publishers/{publisher.slug}/files/")

    site.get_by_role("row").filter(has_text=suite.name).get_by_role("link", name="Go on").click()
    site.get_by_role("link", name=f"Measure {version.full_name}").click()
    expect(site.locator("[data-upload-said]")).to_have_text(f"The upload of {suite.name} is not complete. Choose the file again to go on.")
    _choose(site, suite)
    expect(site.locator("[data-upload-said]")).to_have_text(f"{suite.name} is uploaded.", timeout=UPLOADED_WITHIN_MS)
    site.get_by_role("button", name="Measure").click()
    site.wait_for_url("**/studio/jobs/*/")

    job = Job.objects.get(kind=Job.Kind.EVALUATION, subject=version.public_id)
    dispatch.cancel(somebody, job)
    assert job.params["file"] == hashlib.sha256(content).hexdigest()
    assert wire.offsets == [100]
    site.unroute_all(behavior="wait")


def test_who_shares_a_browser_does_not_see_the_name_of_anothers_file(
    site: Page, stack: Stack, wire: Wire, publisher: Publisher, file: Path
) -> None:
    wire.cut = set(range(2, 100))
    _choose(site, file)
    expect(site.locator("[data-upload-said]")).to_contain_text("The connection was lost.")
    colleague = real_password(join(publisher, "maintainer"))

    site.context.clear_cookies()
    sign_in(site, stack, colleague)
    site.goto(_address(stack, publisher))

    expect(site.locator("html.scripted")).to_be_attached()
    expect(site.locator("[data-upload-said]")).to_have_text("")


def test_an_upload_under_way_is_whole_on_every_screen_and_told_to_who_does_not_see_it(
    browser: Browser, stack: Stack, somebody: User, publisher: Publisher, file: Path
) -> None:
    page, _complaints = opened(browser, stack, somebody)
    wire = Wire(cut=set(range(3, 100)))
    page.route("**/studio/uploads/**", wire.pass_on)
    page.goto(_address(stack, publisher))
    told = page.get_by_role("status").and_(page.locator("[data-upload-told]"))
    expect(told).to_have_text("")  # there before it speaks, or it would not be heard

    _choose(page, file)

    expect(told).to_contain_text("The connection was lost.")
    wrong = shown(page, "upload-waiting", (TELEPHONE, DESK)) + judged(page, *DESK)
    file.write_bytes(LINE % 1)
    expect(told).to_have_text("The file has changed since it was chosen. Choose it again.", timeout=UPLOADED_WITHIN_MS)
    wrong += shown(page, "upload-stopped", (DESK, TELEPHONE)) + judged(page, *TELEPHONE)
    page.unroute_all(behavior="wait")
    page.context.close()
    assert wrong == []


def test_without_a_script_the_form_brings_the_file(
    browser: Browser, stack: Stack, somebody: User, publisher: Publisher, file: Path
) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        sign_in(page, stack, somebody)
        page.goto(_address(stack, publisher))
        _choose(page, file)
        _go_on(page)

        _await_settings(page, publisher, file)
        assert not Upload.objects.filter(publisher=publisher).exists()
