"""Starting a fine-tune: files, settings, who may, what it costs, and the version made of its result."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.utils import timezone

from store.accounts.models import User
from store.billing import ledger
from store.billing.models import Reservation
from store.catalog import artifacts, listings
from store.catalog.errors import ArtifactRejected
from store.catalog.models import Version
from store.errors import NotAllowed, NotFound
from store.jobs import checkpoints, claims, dispatch, files, finetunes
from store.jobs.errors import (
    BaseNotTrainable,
    FileRejected,
    FileTooLarge,
    InvalidSetting,
    NothingToPublish,
    StorageFull,
    TooLargeToTrain,
    TooManyFinetunes,
)
from store.jobs.models import Job, UploadedFile
from store.notifications.models import Notification
from tests.jobs.working import claim_of, fresh, looked_at, outcome_of, queued, segment_of
from tests.making import join, make_artifact, make_base, make_listing, make_publisher, make_user, owner_of

pytestmark = pytest.mark.django_db(transaction=True)
LINE = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}\n'
GOOD = {
    **{"valid": True, "examples": 4, "error_count": 0, "problems": [], "tokens": 40, "trained_tokens": 8, "longest_tokens": 10},
    "findings": [{"kind": "email", "count": 2, "lines": [1, 3]}, {"kind": "key", "count": 0, "lines": []}],
    "overlap": {"held_out": 1, "exact": 1, "near": 0, "lines": [4]},
}
BAD = GOOD | {
    "valid": False,
    "examples": 3,
    "error_count": 2,
    "problems": [{"line": 2, "column": 1, "code": "not_json", "message": "", "detail": {}}],
}


class Scene:
    """A publisher with a file, and a base that may be fine-tuned."""

    def __init__(self) -> None:
        self.publisher = make_publisher()
        self.owner: User = owner_of(self.publisher)
        self.base = make_base()
        self.file = self.put(LINE * 4)

    def put(self, content: bytes, name: str = "chat.jsonl") -> UploadedFile:
        return files.save(self.owner, self.publisher, name=name, stream=io.BytesIO(content), purpose="fine-tune")

    def start(self, user: User | None = None, **settings: Any) -> Job:
        return finetunes.start(user or self.owner, self.publisher, base=self.base, file=self.file, settings=settings)

    def validate(self, job: Job, report: dict[str, Any]) -> None:
        assert job.after is not None
        claims.claim(claim_of(job.after))
        claims.finished(outcome_of(job.after, result=report))

    def finish(self, job: Job, *, events: Sequence[dict[str, Any]] = (), **result: Any) -> Job:
        """The run of a worker that told `events`."""
        self.validate(job, GOOD)
        claims.claim(claim_of(job))
        if events:
            claims.segment(replace(segment_of(job, 0), events=list(events)))
        claims.finished(outcome_of(job, result={"manifest": make_artifact().digest, "steps": 3, **result}))
        return fresh(job)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_equal_files_are_one_and_a_path_is_not_part_of_a_name(scene: Scene) -> None:
    again = scene.put(LINE * 4, name="C:\\Users\\me\\chat.jsonl")

    assert again == scene.file
    assert (scene.file.name, scene.file.size_bytes) == ("chat.jsonl", len(LINE) * 4)


def test_a_file_that_is_too_large_empty_or_of_another_kind_is_refused_and_leaves_nothing(scene: Scene, settings: Any) -> None:
    settings.MAX_UPLOAD_BYTES = 1000
    before = UploadedFile.objects.count()

    with pytest.raises(FileTooLarge):
        scene.put(LINE * 100)
    with pytest.raises(FileRejected):
        scene.put(b"")
    with pytest.raises(FileRejected):
        scene.put(LINE, name="weights.bin")

    assert UploadedFile.objects.count() == before


def test_tables_and_texts_are_files_to_train_on_each_for_what_it_holds(scene: Scene) -> None:
    scene.file = scene.put(b"prompt,completion\nHi,Hello.\n", name="Chat.CSV")
    table = scene.start()
    scene.file = scene.put(b"Once upon a time.", name="tale.TXT")
    text = scene.start(method="text", seed=7, validation_share=0.2)

    with pytest.raises(InvalidSetting) as refused:
        scene.start()

    assert refused.value.param == "method"
    assert table.after is not None
    assert text.after is not None
    assert (table.after.params["name"], table.after.params["use"]) == ("Chat.CSV", "supervised")
    looked_at = {name: text.after.params[name] for name in ("name", "use", "seed", "validation_share")}
    assert looked_at == {"name": "tale.TXT", "use": "text", "seed": 7, "validation_share": 0.2}
    assert Job.objects.filter(kind=Job.Kind.FINETUNE).count() == 2


@pytest.mark.parametrize(
    ("name", "line", "method"),
    [
        ("a.jsonl", LINE, "supervised"),
        ("a.jsonl", b'{"prompt":"a","completion":"b"}\n', "supervised"),
        ("a.csv", b"a,b\n", "supervised"),
        ("a.CSV", b"a,b\n", "supervised"),
        ("a.jsonl", b'{"text":"a"}\n', "text"),
        ("a.csv", b"a\n", "text"),
        ("a.txt", b"a\n\n", "text"),
    ],
)
def test_no_file_has_more_steps_than_are_held_for_it(scene: Scene, name: str, line: bytes, method: str) -> None:
    file = scene.put((line * 1001).rstrip(b"\n"), name=name)

    assert finetunes.most_steps(file, {"batch_size": 8, "epochs": 1, "method": method}) >= math.ceil(1001 / 8)


def test_the_files_of_a_publisher_take_no_more_room_together_than_is_allowed(scene: Scene, settings: Any) -> None:
    settings.UPLOADED_BYTES_PER_PUBLISHER = len(LINE) * 10  # of which the scene's own file takes 4
    nobodys = LINE.swapcase() * 7  # bytes that no other test keeps

    with pytest.raises(StorageFull) as refused:
        scene.put(nobodys)
    exactly = scene.put(LINE * 6)
    again, other_name = scene.put(LINE * 6), scene.put(LINE * 6, name="same-bytes.jsonl")

    assert str(refused.value) == (
        f"The files of {scene.publisher.name} take 376\xa0bytes of the 940\xa0bytes allowed, and this one has 658\xa0bytes. "
        "Train on a file that is here already, or ask the store's operator for more room."
    )
    assert (again, other_name.sha256) == (exactly, exactly.sha256)
    assert files.kept_bytes(scene.publisher) == len(LINE) * 10
    with pytest.raises(ArtifactRejected):
        artifacts.read_blob(hashlib.sha256(nobodys).hexdigest(), max_bytes=1000)
    assert Scene().put(LINE * 6).sha256 == exactly.sha256  # another publisher has room of its own


def test_files_that_come_at_once_take_no_more_room_than_there_is(scene: Scene, settings: Any) -> None:
    settings.UPLOADED_BYTES_PER_PUBLISHER = len(LINE) * 10

    def bring(number: int) -> bool:
        try:
            scene.put(LINE * 2 + LINE.replace(b"Hi", b"H%d" % number))
        except StorageFull:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(bring, range(6)))

    assert taken.count(True) == 2
    assert files.kept_bytes(scene.publisher) == len(LINE) * 10


def test_the_data_is_checked_before_the_training_is_queued(scene: Scene) -> None:
    job = scene.start(epochs=2)

    assert job.after is not None
    assert (job.state, job.after.kind) == (Job.State.WAITING, Job.Kind.VALIDATION)
    assert [message["kind"] for message in queued("jobs.checks")] == ["validation"]
    assert queued() == []

    scene.validate(job, GOOD)

    (message,) = queued()
    assert message["params"]["settings"] | {"seed": 0} == {
        "rank": 8,
        "alpha": 16.0,
        "epochs": 2,
        "learning_rate": 2e-4,
        "batch_size": 8,
        "max_length": 512,
        "validation_share": 0.1,
        "dropout": 0.0,
        "beta": 0.1,
        "patience": 0,
        "seed": 0,
        "method": "supervised",
        "scope": "adapter",
        "targets": "all",
        "rank_stabilised": False,
        "recompute": False,
    }
    assert message["params"]["file"] == scene.file.sha256


def test_a_file_with_a_bad_line_ends_the_fine_tune_before_it_was_queued_and_its_owner_is_told(scene: Scene) -> None:
    job = scene.start()

    scene.validate(job, BAD)

    job = fresh(job)
    assert (job.state, job.error_code, job.error_detail["error_count"], job.error_detail["line"]) == (
        Job.State.FAILED,
        "data_invalid",
        2,
        2,
    )
    assert queued() == []
    assert list(Notification.objects.values_list("user", "kind")) == [(scene.owner.pk, "job_failed")]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 65}, "rank"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"epochs": 51}, "epochs"),
        ({"validation_share": 0.9}, "validation_share"),
        ({"pickle": 1}, "pickle"),
        ({"method": "magic"}, "method"),
        ({"targets": ["all"]}, "targets"),
        ({"rank_stabilised": "yes"}, "rank_stabilised"),
        ({"recompute": 2}, "recompute"),
        ({"beta": 0}, "beta"),
        ({"method": "preference", "dropout": 0.1}, "dropout"),
        ({"scope": "everything"}, "scope"),
        ({"scope": "weights", "rank": 8}, "rank"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name_and_nothing_is_written(scene: Scene, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        scene.start(**wrong)

    assert refused.value.param == param
    assert not Job.objects.exists()


def test_only_owners_and_maintainers_start_one_on_a_base_that_allows_it(scene: Scene) -> None:
    member, stranger = join(scene.publisher, "member"), make_user()

    with pytest.raises(NotAllowed):
        scene.start(member)
    with pytest.raises(NotFound):
        scene.start(stranger)
    scene.base = make_base(allow_finetune=False)
    with pytest.raises(BaseNotTrainable):
        scene.start()

    assert not Job.objects.exists()


def test_the_file_of_another_publisher_is_refused(scene: Scene) -> None:
    scene.file = Scene().file

    with pytest.raises(InvalidSetting):
        scene.start()

    assert not Job.objects.exists()


def test_one_person_has_only_so_many_waiting_or_running_and_may_start_another_when_one_is_paused(scene: Scene, settings: Any) -> None:
    settings.FINETUNES_PER_PERSON = 2
    first, _ = scene.start(), scene.start()
    before = Job.objects.count()

    with pytest.raises(TooManyFinetunes) as refused:
        scene.start()
    assert str(refused.value) == (
        "At most 2 fine-tunes of one person may wait or run at a time. Wait until one has ended, or pause or cancel one."
    )
    assert Job.objects.count() == before
    assert scene.start(join(scene.publisher, "maintainer")).state == Job.State.WAITING  # a colleague's are counted for themselves

    scene.validate(first, GOOD)
    dispatch.pause(scene.owner, first)
    assert scene.start().state == Job.State.WAITING
    with pytest.raises(TooManyFinetunes):
        dispatch.resume(scene.owner, first)
    assert fresh(first).state == Job.State.PAUSED


def test_of_many_started_at_once_only_as_many_begin_as_one_person_may_have(scene: Scene, settings: Any) -> None:
    settings.FINETUNES_PER_PERSON = 2

    def begin(number: int) -> bool:
        try:
            scene.start(seed=number)
        except TooManyFinetunes:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(6) as pool:
        begun = list(pool.map(begin, range(6)))

    assert begun.count(True) == Job.objects.filter(kind=Job.Kind.FINETUNE).count() == 2


def test_the_most_it_can_cost_is_held_and_what_it_took_is_paid(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10
    ledger.grant(None, scene.owner, 1000, cause="grant:test")

    job = scene.start(batch_size=1)
    wallet = ledger.wallet_of(scene.owner)
    assert (wallet.balance_micro, wallet.held_micro) == (1000, 10 * 11 * 3)
    scene.finish(job, steps=9)

    wallet.refresh_from_db()
    assert (wallet.balance_micro, wallet.held_micro) == (910, 0)


def test_one_that_is_cancelled_is_not_paid_and_is_held_anew_when_it_is_tried_again(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10
    ledger.grant(None, scene.owner, 1000, cause="grant:test")
    job = scene.start(batch_size=1)

    dispatch.cancel(scene.owner, job)
    released = ledger.wallet_of(scene.owner).held_micro
    dispatch.retry(scene.owner, fresh(job))
    held = ledger.wallet_of(scene.owner).held_micro
    scene.finish(fresh(job), steps=2)

    wallet = ledger.wallet_of(scene.owner)
    assert (released, held, wallet.held_micro, wallet.balance_micro) == (0, 330, 0, 980)
    assert sorted(Reservation.objects.values_list("state", flat=True)) == ["settled", "voided"]


def paused_for_a_month(scene: Scene, job: Job) -> Job:
    """Its training was claimed, paused after a segment, and laid aside until what was held went back."""
    scene.validate(job, GOOD)
    job = fresh(job)
    claims.claim(claim_of(job))
    dispatch.pause(scene.owner, job)
    claims.segment(segment_of(job, 0))
    with time_machine.travel(timezone.now() + timedelta(days=31)):
        assert ledger.void_expired() == 1
    job = fresh(job)
    assert (job.state, ledger.wallet_of(scene.owner).held_micro) == (Job.State.PAUSED, 0)
    return job


def test_one_that_was_paused_for_a_month_is_held_anew_when_it_goes_on_and_paid(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10
    ledger.grant(None, scene.owner, 1000, cause="grant:test")
    job = paused_for_a_month(scene, scene.start(batch_size=1))

    dispatch.resume(scene.owner, job)
    held = ledger.wallet_of(scene.owner).held_micro
    job = fresh(job)
    claims.claim(claim_of(job))
    claims.finished(outcome_of(job, result={"manifest": make_artifact().digest, "steps": 12}))

    wallet = ledger.wallet_of(scene.owner)
    assert (held, wallet.held_micro, wallet.balance_micro) == (330, 0, 880)


def test_one_that_was_paused_for_a_month_stays_paused_when_its_cost_is_no_longer_covered(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10
    ledger.grant(None, scene.owner, 330, cause="grant:test")
    job = paused_for_a_month(scene, scene.start(batch_size=1))
    ledger.reserve(scene.owner, cause="generation:other", amount_micro=1, expires_at=timezone.now())

    with pytest.raises(ledger.InsufficientCredit) as refused:
        dispatch.resume(scene.owner, job)

    assert "Ask the store's operator for credit" in str(refused.value)
    assert refused.value.detail == {"needed_micro": 330, "available_micro": 329}
    assert (fresh(job).state, fresh(job).attempt, ledger.wallet_of(scene.owner).held_micro) == (Job.State.PAUSED, job.attempt, 1)


def test_a_short_pause_keeps_what_is_held_and_going_on_keeps_it_for_longer(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10
    ledger.grant(None, scene.owner, 330, cause="grant:test")
    job = scene.start(batch_size=1)
    scene.validate(job, GOOD)
    dispatch.pause(scene.owner, fresh(job))

    with time_machine.travel(timezone.now() + timedelta(days=29)):
        dispatch.resume(scene.owner, fresh(job))

    reservation = Reservation.objects.get()
    assert (reservation.cause, reservation.state, reservation.amount_micro) == (job.cause, "held", 330)
    assert reservation.expires_at > timezone.now() + timedelta(days=58)


@pytest.mark.parametrize("begin_again", [dispatch.resume, dispatch.retry])
def test_one_does_not_go_on_once_the_leave_to_train_was_taken_back(scene: Scene, begin_again: Any) -> None:
    job = scene.start()
    scene.validate(job, GOOD)
    (dispatch.pause if begin_again is dispatch.resume else dispatch.cancel)(scene.owner, job)
    before = fresh(job)
    listings.set_permissions(owner_of(scene.base.listing.publisher), scene.base.listing, allow_finetune=False, allow_download=False)

    with pytest.raises(BaseNotTrainable):
        begin_again(scene.owner, fresh(job))

    assert (fresh(job).state, fresh(job).attempt) == (before.state, before.attempt)


def test_one_that_waits_for_a_worker_for_a_month_keeps_what_is_held(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10
    ledger.grant(None, scene.owner, 330, cause="grant:test")
    job = scene.start(batch_size=1)

    with time_machine.travel(timezone.now() + timedelta(days=31)):
        assert ledger.void_expired() == 0
    scene.finish(job, steps=33)

    wallet = ledger.wallet_of(scene.owner)
    assert (wallet.held_micro, wallet.balance_micro) == (0, 0)


def test_who_cannot_pay_starts_nothing(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10

    with pytest.raises(ledger.InsufficientCredit):
        scene.start()

    assert not Job.objects.exists()


def test_the_result_becomes_a_draft_with_its_lineage(scene: Scene) -> None:
    job = scene.finish(scene.start(), train_loss=1.5)
    listing = make_listing(scene.publisher)

    version = finetunes.make_version(scene.owner, job, listing=listing, number="1.0.0")

    assert (version.kind, version.state, version.base, version.made_by) == ("adapter", "draft", scene.base, job.public_id)
    assert version.artifact is not None
    assert version.artifact.digest == job.result["manifest"]
    assert (version.facts["train_loss"], version.facts["file"]) == (1.5, scene.file.sha256)
    assert version.facts["data_report"] == {
        "examples": 4,
        "tokens": 40,
        "findings": {"email": 2},
        "overlap": {"held_out": 1, "exact": 1},
    }
    assert list(version.ancestry.values_list("ancestor", flat=True)) == [scene.base.pk]


def test_a_version_can_be_made_of_any_checkpoint_of_a_run(scene: Scene) -> None:
    events = looked_at(1.5, 1.2, 1.4)
    measured = {"train_loss": 1.1, "validation_loss": 1.2, "base_validation_loss": 2.0, "examples": 4}
    job = scene.finish(scene.start(), events=events, best_step=20, **measured)
    listing = make_listing(scene.publisher)

    best = finetunes.make_version(scene.owner, job, listing=listing, number="1.0.0", step=20)
    last = finetunes.make_version(scene.owner, job, listing=listing, number="1.1.0", step=30)
    with pytest.raises(NothingToPublish):
        finetunes.make_version(scene.owner, job, listing=listing, number="1.2.0", step=25)

    assert best.artifact is not None
    assert last.artifact is not None
    assert (best.artifact.digest, last.artifact.digest) == (job.result["manifest"], events[3]["snapshot"])
    assert (best.facts["validation_loss"], best.facts["train_loss"]) == (1.2, 1.1)
    assert {name: last.facts.get(name) for name in measured} == measured | {"validation_loss": 1.4, "train_loss": None}
    assert (best.facts["steps"], last.facts["steps"]) == (20, 30)
    assert (last.base, last.made_by, last.facts["settings"]) == (scene.base, job.public_id, job.params["settings"])


@pytest.mark.parametrize(("losses", "best"), [((1.5, 1.2, 1.4), 20), ((1.2, 1.2), 10), ((None, None), None), ((), None)])
def test_the_best_checkpoint_had_the_least_held_out_loss_where_that_was_measured(
    losses: tuple[float | None, ...], best: int | None
) -> None:
    found = checkpoints.checkpoints(looked_at(*losses))

    assert [point.step for point in found if point.is_best] == ([] if best is None else [best])
    assert (found[0].step, found[0].snapshot) == (0, "")


def test_what_is_asked_on_the_way_is_the_persons_own_or_left_to_the_worker(scene: Scene, settings: Any) -> None:
    settings.FINETUNES_PER_PERSON = 9

    def start(*prompts: str) -> Job:
        return finetunes.start(scene.owner, scene.publisher, base=scene.base, file=scene.file, settings={}, prompts=prompts)

    assert start(" Where is it? ", "", "你好").params["prompts"] == ["Where is it?", "你好"]
    assert start().params["prompts"] == []
    for wrong in (["a", "b", "c", "d"], ["a" * 301]):
        with pytest.raises(InvalidSetting) as refused:
            start(*wrong)
        assert refused.value.param == "prompts"
    assert Job.objects.filter(kind="finetune").count() == 2


def test_no_version_is_made_by_a_stranger_of_an_unfinished_job_or_for_another_publisher(scene: Scene) -> None:
    unfinished, job = scene.start(), scene.finish(scene.start())
    listing = make_listing(scene.publisher)
    before = Version.objects.count()

    with pytest.raises(NotFound):
        finetunes.make_version(make_user(), job, listing=listing, number="1.0.0")
    with pytest.raises(NothingToPublish):
        finetunes.make_version(scene.owner, unfinished, listing=listing, number="1.0.0")
    with pytest.raises(NothingToPublish):
        finetunes.make_version(scene.owner, job, listing=make_listing(), number="1.0.0")

    assert Version.objects.count() == before


def test_all_weights_are_trained_with_settings_of_their_own(scene: Scene) -> None:
    job = scene.start(scope="weights", epochs=2)

    settings = job.params["settings"]
    assert (settings["scope"], settings["learning_rate"], settings["epochs"]) == ("weights", 1e-4, 2)
    assert not finetunes.OF_ADAPTERS & settings.keys()
    assert job.params["base"] == scene.base.artifact.digest  # type: ignore[union-attr]


@pytest.mark.parametrize(("parameters", "said"), [(134_515_008, "135M"), (None, "unknown")])
def test_all_weights_of_a_base_that_is_too_large_are_not_trained_but_an_adapter_is(
    scene: Scene, settings: Any, parameters: int | None, said: str
) -> None:
    settings.MAX_PARAMETERS_TRAINED_IN_FULL = 100_000_000
    scene.base.facts |= {"parameters": parameters}
    scene.base.save()

    with pytest.raises(TooLargeToTrain) as refused:
        scene.start(scope="weights")

    assert not Job.objects.exists()
    assert (refused.value.param, str(refused.value)) == (
        "scope",
        "All weights are trained here only of bases of at most 100M parameters; "
        f"those of {scene.base.full_name}: {said}. Train an adapter, or choose a smaller base.",
    )
    assert scene.start(scope="adapter").state == Job.State.WAITING


def test_weights_that_were_trained_become_a_draft_that_knows_what_they_were_trained_from(scene: Scene) -> None:
    told = {"parameter_count": 1000, "context_length": 64, "architecture": "LlamaForCausalLM", "dtype": "float32"}
    job = scene.finish(scene.start(scope="weights"), facts=told, best_step=2, validation_loss=1.5)
    listing = make_listing(scene.publisher)

    version = finetunes.make_version(scene.owner, job, listing=listing, number="1.0.0")

    assert (version.kind, version.state, version.base, version.made_by) == ("weights", "draft", scene.base, job.public_id)
    assert (version.artifact.digest, version.weights()) == (job.result["manifest"], version)  # type: ignore[union-attr]
    assert list(version.ancestry.values_list("ancestor", flat=True)) == [scene.base.pk]
    kept = {"parameters", "context_length", "architecture", "dtype", "file", "settings", "data_report", "steps", "validation_loss"}
    assert version.facts.keys() == kept
    assert (version.facts["parameters"], version.facts["steps"], version.facts["validation_loss"]) == (1000, 2, 1.5)
