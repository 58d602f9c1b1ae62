"""One publisher with something of everything on its pages, and a reviewer with work to do, on the running stack."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Permission
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from inference.protocol import Segment
from store.accounts import keys
from store.accounts.models import Membership, Publisher, User
from store.batches import preparing
from store.billing import access, ledger
from store.billing.models import Transaction
from store.catalog import collections, following, revisions, transfers
from store.catalog.models import Version
from store.generation.models import Request
from store.jobs import claims, evaluations, files, finetunes, folders, pretraining, uploads
from store.jobs.models import Job, UploadedFile
from store.moderation import decisions
from store.moderation.models import Submission
from store.pages import saved_searches
from store.playground import sharing
from store.playground.models import Battle, Conversation
from store.ratings import rating
from store.ratings.models import Flag, Rating
from tests import making
from tests.batches import answering as batches
from tests.jobs.test_evaluations import finish, result_of
from tests.jobs.test_views import DESCRIBED
from tests.jobs.working import claim_of, fresh, looked_at, outcome_of, segment_of
from tests.moderation import acting

LONG_NAME = "A rather long name of a GPT that somebody gave it on purpose"
LONG_SUMMARY = "What it does is said here in as many words as a summary may have, " * 3
CARD = "## What it is for\n\nShort answers.\n\n- one\n- two\n\n```python\nprint('a line of code that is wider than a telephone')\n```"
EXAMPLES = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}\n' * 40
TOKENS = {"tokens": 400, "trained_tokens": 80, "longest_tokens": 10}
REPORT = {"valid": True, "lines": 40, "examples": 40, "error_count": 0, "problem_count": 0, "problems": [], **TOKENS}
PREVIEW = [[{"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "trained": False}, {"text": "Hello.", "trained": True}]]
PROBLEM = {"line": 3, "column": 1, "code": "not_json", "message": "", "detail": {}}


@dataclass(frozen=True)
class Scene:
    """Two people and the paths of the pages that each looks at, by name, in English."""

    owner: User
    owners_pages: dict[str, str]
    reviewer: User
    reviewers_pages: dict[str, str]


def build_scene(base: Version) -> Scene:
    owner, reviewer = making.make_user(), making.make_reviewer()
    publisher = making.make_publisher(owner)
    making.join(publisher, Membership.Role.MEMBER)
    live = _released(base, publisher, reviewer)
    waiting, sent_back = _submitted(base, publisher, "waiting"), _submitted(base, publisher, "sent-back")
    decisions.request_changes(reviewer, sent_back, reason="Please say in the description what it is not good at.")
    rated = _rated(live)
    keys.create_key(owner, name="laptop")
    return Scene(
        owner=owner,
        owners_pages={
            **_pages_of_the_account(owner, publisher, live),
            **_pages_of_the_studio(publisher, live, waiting, rated),
            **_pages_of_finetunes(owner, publisher, base),
            **_pages_of_uploads(owner, publisher),
            **_pages_of_pretraining(owner),
            **_pages_of_batches(owner, live),
            **_pages_of_evaluations(owner, live),
        },
        reviewer=reviewer,
        reviewers_pages=_pages_of_reviews(waiting, sent_back) | _pages_of_operations(reviewer, publisher),
    )


def _pages_of_the_account(owner: User, publisher: Publisher, live: Version) -> dict[str, str]:
    receipt, conversation = _spent(owner, live), _talked(owner, live)
    following.follow_listing(owner, live.listing)
    following.follow_publisher(owner, live.weights().listing.publisher)
    kept = collections.create(owner, name="What I use for letters to the neighbours", about=LONG_SUMMARY[:200].strip(), is_public=True)
    for listing in (live.listing, live.weights().listing):
        collections.put(owner, kept.public_id, listing)
    for search in ("q=a+letter+to+the+neighbours+about+the+noise&use_case=write&language=en", "use_case=translate", "q=%E6%91%98%E8%A6%81"):
        saved_searches.save(owner, search)
    return {
        "home": reverse("pages:home"),
        "saved searches": f"{reverse('pages:explore')}?use_case=write",
        "delete account": reverse("accounts:delete"),  # first: the sign-in must be a recent one
        "your data": reverse("accounts:privacy"),
        "account": reverse("accounts:settings"),
        "security": reverse("accounts:security"),
        "compare": f"{reverse('pages:compare')}?gpt={live.listing.full_name}&gpt={live.weights().full_name}",
        "keys": reverse("accounts:keys"),
        "publishers": reverse("accounts:publishers"),
        "members": reverse("accounts:members", args=[publisher.slug]),
        "addresses": reverse("account_email"),
        "sessions": reverse("usersessions_list"),
        "inbox": reverse("notifications:inbox"),
        "e-mails": reverse("notifications:preferences"),
        "following": reverse("pages:following"),
        "collections": reverse("pages:collections"),
        "collection": reverse("pages:collection", args=[kept.public_id]),
        "listing": reverse("pages:listing", args=[live.listing.publisher.slug, live.listing.slug]),
        "versions": reverse("pages:versions", args=[live.listing.publisher.slug, live.listing.slug]),
        "leaderboards": f"{reverse('pages:leaderboards')}?use_case=answer",
        "wallet": reverse("billing:wallet"),
        "receipt": reverse("billing:receipt", args=[receipt.public_id]),
        "conversations": reverse("playground:chat"),
        "conversation": reverse("playground:conversation", args=[conversation.public_id]),
        "shared conversation": reverse("playground:shared", args=[sharing.share(conversation, user=owner, name="Wanda").public_id]),
        "arena": reverse("playground:arena"),
        "battle": reverse("playground:battle", args=[_fought(owner, live).public_id]),
        "arena board": reverse("playground:arena_board"),
    }


def _pages_of_the_studio(publisher: Publisher, live: Version, waiting: Submission, rated: Rating) -> dict[str, str]:
    slug, address = publisher.slug, [publisher.slug, live.listing.slug]
    return {
        "new publisher": reverse("pages:studio_new_publisher"),
        "studio": reverse("pages:studio_publisher", args=[slug]),
        "new GPT": reverse("pages:studio_new_gpt", args=[slug]),
        "GPT": reverse("pages:studio_listing", args=address),
        "GPT in review": reverse("pages:studio_listing", args=[slug, waiting.listing.slug]),
        "on other sites": reverse("pages:studio_embed", args=address),
        "texts": reverse("pages:studio_texts", args=address),
        "new version": reverse("pages:studio_new_version", args=address),
        "draft": reverse("pages:studio_version", args=[*address, "1.1.0"]),
        **_pages_of_files(making.owner_of(publisher), live),
        **_pages_of_terms(making.owner_of(publisher), live),
        "standing": reverse("moderation:listing", args=[waiting.listing.public_id]),
        "reply": reverse("ratings:reply", args=[rated.public_id]),
        "ratings": reverse("ratings:all", args=[live.listing.public_id]),
        "earnings": reverse("billing:earnings", args=[slug]),
    }


def _pages_of_files(owner: User, live: Version) -> dict[str, str]:
    """For versions from files: some missing, some found wrong, some found good."""
    listing = live.listing
    begun, wrong, good = (folders.begin(owner, listing, kind=kind, base=live.weights()) for kind in ("weights", "weights", "adapter"))
    for name in ("config.json", "a-rather-long-name-of-a-file-00001-of-00002.safetensors"):
        begun.files.add(files.save(owner, listing.publisher, name=name, stream=io.BytesIO(name.encode()), purpose="model"))
    told = "The tokenizer has 50257 tokens but config.json says vocab_size 49152: they do not match."
    problems = [
        {"file": "tokenizer.json", "code": "tokenizer", "message": told},
        {"file": "config.json", "code": "file", "message": told * 2},
    ]
    facts = {"rank": 16, "projections": 210, "parameter_count": 4_884_480}
    ends = (
        (wrong, {"error_code": "folder_unusable", "error_detail": {"problems": problems}, "state": "failed"}),
        (good, {"state": "succeeded", "result": {"manifest": "0" * 64, "facts": facts}}),
    )
    for folder, end in ends:
        folder.job = Job.objects.create(kind=Job.Kind.IMPORT, publisher=listing.publisher, subject=folder.public_id, **end)
        folder.save()
    at = [listing.publisher.slug, listing.slug]
    return {
        "new GPT from files": reverse("pages:studio_new_from_files", args=at[:1]),
        "version from files": reverse("pages:studio_bring", args=at),
        "files begun": reverse("pages:studio_folder", args=[*at, begun.public_id]),
        "files wrong": reverse("pages:studio_folder", args=[*at, wrong.public_id]),
        "files good": reverse("pages:studio_folder", args=[*at, good.public_id]),
    }


def _pages_of_terms(owner: User, live: Version) -> dict[str, str]:
    """A month bought, one to be bought, a GPT offered to the owner's publisher, and theirs offered on; and an icon that waits."""
    ledger.grant(None, owner, 10_000_000, cause=f"grant:months:{owner.pk}")
    asks = {"input_price_micro": 100_000, "output_price_micro": 100_000, "monthly_price_micro": 4_000_000, "monthly_tokens": 2_000_000}
    sold, bought = (making.make_prompt(live.weights(), making.make_listing(**asks)).listing for _ in range(2))
    access.buy(owner, bought, price_micro=4_000_000, tokens=2_000_000)
    making.confirm_address(owner)
    offered = transfers.offer(making.owner_of(sold.publisher), sold, to=live.listing.publisher.slug)
    transfers.offer(owner, live.listing, to=sold.publisher.slug)
    picture = io.BytesIO()
    Image.new("RGB", (300, 300), (30, 90, 160)).save(picture, "PNG")
    revisions.set_icon(owner, live.listing, io.BytesIO(picture.getvalue()))
    return {
        "access": reverse("billing:access", args=[sold.public_id]),
        "access bought": reverse("billing:access", args=[bought.public_id]),
        "transfer": reverse("pages:studio_transfer", args=[live.listing.publisher.slug, live.listing.slug]),
        "transfer to answer": reverse("pages:studio_transfer_answer", args=[offered.public_id]),
        "domain": reverse("accounts:domain", args=[live.listing.publisher.slug]),
    }


def _pages_of_finetunes(owner: User, publisher: Publisher, base: Version) -> dict[str, str]:
    file = files.save(owner, publisher, name="examples.jsonl", stream=io.BytesIO(EXAMPLES), purpose="fine-tune")
    unfit = _finetune(
        owner, publisher, base, file, report=REPORT | {"valid": False, "error_count": 1, "problem_count": 1, "problems": [PROBLEM]}
    )
    done, running = (_finetune(owner, publisher, base, file, report=DESCRIBED | REPORT | {"preview": PREVIEW}) for _ in range(2))
    claims.claim(claim_of(done))
    claims.segment(replace(segment_of(done, 0), events=looked_at(1.9, 1.5, 1.6, answer="It lies in France, " * 12)))
    result = {"manifest": making.make_artifact().digest, "steps": 30, "validation_loss": 1.5, "best_step": 20}
    claims.finished(outcome_of(done, result=result))
    claims.claim(claim_of(running))
    for number in range(30):
        claims.segment(segment_of(running, number, done=(number + 1) / 60))
    Job.objects.filter(pk=running.pk).update(heartbeat_at=timezone.now() + timedelta(hours=1))  # no worker has it, and none shall
    return {
        "fine-tunes": reverse("jobs:finetunes", args=[publisher.slug]),
        "files": reverse("jobs:files", args=[publisher.slug]),
        "fine-tune data": reverse("jobs:new", args=[publisher.slug]),
        "fine-tune settings": reverse("jobs:settings", args=[publisher.slug, base.public_id, file.public_id]),
        "all weights": f"{reverse('jobs:settings', args=[publisher.slug, base.public_id, file.public_id])}?scope=weights",
        "from nothing": reverse("jobs:pretraining", args=[publisher.slug, file.public_id]),
        "fine-tune running": reverse("jobs:job", args=[running.public_id]),
        "fine-tune done": reverse("jobs:job", args=[done.public_id]),
        "fine-tune unfit": reverse("jobs:job", args=[unfit.public_id]),
    }


def _pages_of_uploads(owner: User, publisher: Publisher) -> dict[str, str]:
    """Shown on the pages of files and of batches too."""
    begun = {
        name: uploads.begin(owner, of, name=name, purpose=purpose, length_bytes=length)
        for of, name, purpose, length in (
            (publisher, f"{LONG_NAME} and of its file.jsonl".replace(" ", "-"), "fine-tune", 3_000_000),
            (publisher, "arrived.csv", "fine-tune", 600_000),
            (publisher, "suite.jsonl", "evaluation", 2_000_000),
            (None, "requests.jsonl", "batch", 1_000_000),
        )
    }
    for upload in begun.values():
        uploads.append(upload, offset_bytes=0, stream=io.BytesIO(b"x" * 600_000))
    first, arrived, suite, *_others = begun.values()
    path = reverse("jobs:new", args=[publisher.slug])
    return {
        "upload to go on with": f"{path}?upload={first.public_id}",
        "upload that has arrived": f"{path}?upload={arrived.public_id}",
        "suite to go on with": f"{reverse('jobs:evaluations', args=[publisher.slug])}?upload={suite.public_id}",
    }


def _pages_of_pretraining(owner: User) -> dict[str, str]:
    """Of another publisher of theirs: of one only so many jobs run at once."""
    publisher, unfit_report = making.make_publisher(owner), {"valid": False, "error_count": 1, "problem_count": 1, "problems": [PROBLEM]}
    file = files.save(owner, publisher, name="tales.txt", stream=io.BytesIO(b"Once there was a fox.\n\n" * 40), purpose="fine-tune")
    began, *steps = looked_at(3.9, 3.5, 3.6, answer="and the fox went home, " * 12)
    with transaction.atomic():  # before the store's own processes see them
        unfit, done, running = (pretraining.start(owner, publisher, file=file, settings={"epochs": 30}) for _ in range(3))
        for job, report in ((unfit, unfit_report), (done, {}), (running, {})):
            assert job.after is not None
            claims.claim(claim_of(job.after))
            claims.finished(outcome_of(job.after, result=DESCRIBED | REPORT | report))
        for job in (done, running):
            claims.claim(claim_of(job))
            claims.segment(replace(segment_of(job, 0), events=[began | {"validation_loss": 8.31}, *steps]))
        result = {"manifest": making.make_artifact().digest, "steps": 30, "validation_loss": 3.5, "best_step": 20, "facts": making.FACTS}
        claims.finished(outcome_of(done, result=result))
        Job.objects.filter(pk=running.pk).update(heartbeat_at=timezone.now() + timedelta(hours=1))  # no worker has it, and none shall
    return {
        "pre-training running": reverse("jobs:job", args=[running.public_id]),
        "pre-training done": reverse("jobs:job", args=[done.public_id]),
        "pre-training unfit": reverse("jobs:job", args=[unfit.public_id]),
    }


def _pages_of_batches(owner: User, live: Version) -> dict[str, str]:
    name = live.listing.full_name
    with transaction.atomic():  # before the store's own processes see them
        done = batches.start(owner, [*(batches.line_of(f"{n}", name) for n in range(40)), b"wrong"], name=f"{LONG_NAME}.jsonl")
        preparing.prepare(done.public_id)
        done = batches.answer_all(done)
        failed = batches.start(owner, [b" "], name="empty.jsonl")
        preparing.prepare(failed.public_id)
        running = batches.begun(owner, live, 50)
        (job,) = batches.jobs_of(running)
        batches.claim(job)
        claims.segment(batches.segment(job, only=range(1, 20)))
        Job.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now() + timedelta(hours=1))  # no worker has it, and none shall
    return {
        "batches": reverse("batches:list"),
        "new batch": reverse("batches:new"),
        "batch running": reverse("batches:batch", args=[running.public_id]),
        "batch done": reverse("batches:batch", args=[done.public_id]),
        "batch failed": reverse("batches:batch", args=[failed.public_id]),
    }


def _pages_of_evaluations(owner: User, live: Version) -> dict[str, str]:
    slug, suites = live.listing.publisher.slug, ["answer", "chat", "json"]
    with transaction.atomic():  # before the store's own processes see them
        unfit = evaluations.start(owner, live, suites=suites)
        claims.claim(claim_of(unfit))
        detail = {"error_count": 1, "problems": [PROBLEM]}
        claims.failed(outcome_of(unfit, error="Wrong.", code="suite_invalid", detail=detail))
        done = finish(evaluations.start(owner, live, suites=suites), result_of(live))
        running = evaluations.start(owner, live, suites=suites)
        claims.claim(claim_of(running))
        event = {"suite": "answer", "of": "own", "seconds": 8.0, "values": {"f1": 31.25}}
        claims.segment(Segment(running.public_id, 1, "c1", number=0, checkpoint="0" * 64, events=[event], done=0.3))
        Job.objects.filter(pk=running.pk).update(heartbeat_at=timezone.now() + timedelta(hours=1))  # no worker has it, and none shall
    return {
        "evaluations": reverse("jobs:evaluations", args=[slug]),
        "new evaluation": reverse("jobs:evaluate", args=[slug, live.public_id]),
        "evaluation running": reverse("jobs:job", args=[running.public_id]),
        "evaluation done": reverse("jobs:job", args=[done.public_id]),
        "evaluation unfit": reverse("jobs:job", args=[unfit.public_id]),
        "measured": reverse("pages:measured", args=[slug, live.listing.slug, live.number]),
    }


def _pages_of_reviews(waiting: Submission, sent_back: Submission) -> dict[str, str]:
    return {
        "queue": reverse("moderation:queue"),
        "queue checking": reverse("moderation:queue") + "?show=checking",
        "queue decided": reverse("moderation:queue") + "?show=decided",
        "queue suspended": reverse("moderation:queue") + "?show=suspended",
        "submission": reverse("moderation:submission", args=[waiting.public_id]),
        "submission decided": reverse("moderation:submission", args=[sent_back.public_id]),
        "reviewed GPT": reverse("moderation:listing", args=[sent_back.listing.public_id]),
        "flags": reverse("ratings:flags"),
        "empty wallet": reverse("billing:wallet"),
        "empty inbox": reverse("notifications:inbox"),
        "empty conversations": reverse("playground:chat"),
        "empty studio": reverse("pages:studio"),
    }


def _pages_of_operations(operator: User, publisher: Publisher) -> dict[str, str]:
    """The reviewer runs the store too. One job has failed in the depths of the code."""
    User.objects.filter(pk=operator.pk).update(is_staff=True)
    operator.user_permissions.add(*Permission.objects.filter(codename__in=["view_job", "change_job"], content_type__app_label="jobs"))
    traceback = "Traceback (most recent call last):\n" + '  File "inference/training.py", line 200, in _step\n' * 12
    failed: dict[str, Any] = {
        "error": "It ended in a way nobody foresaw. " * 8,
        "error_code": "internal",
        "error_detail": {"traceback": traceback},
    }
    Job.objects.create(kind=Job.Kind.CHECK, state=Job.State.FAILED, publisher=publisher, finished_at=timezone.now(), **failed)
    address = reverse("pages:operations")
    return {"operations": address, "operations waiting": f"{address}?show=waiting", "operations failed": f"{address}?show=failed"}


# ---------------------------------------------------------------- what stands on them


def _released(base: Version, publisher: Publisher, reviewer: User) -> Version:
    """A GPT with a long name that is listed, and a draft of its next version."""
    texts = {language: {"name": LONG_NAME, "summary": LONG_SUMMARY[:200].strip(), "card": CARD} for language in ("en", "zh-hans")}
    listing = making.make_listing(publisher, f"live-{publisher.slug}", texts=texts, input_price_micro=100_000, output_price_micro=200_000)
    submission = acting.pass_checks(acting.submit(making.draft_prompt(base, listing)))
    decisions.approve(reviewer, submission)
    making.draft_prompt(base, listing, number="1.1.0", instructions="Answer in two sentences.", change_log="Longer answers.")
    return Version.objects.select_related("listing__publisher").get(listing=listing, number="1.0.0")


def _submitted(base: Version, publisher: Publisher, slug: str) -> Submission:
    listing = making.make_listing(publisher, f"{slug}-{publisher.slug}")
    submission = acting.submit(making.draft_prompt(base, listing), note="The starters are the best way to see what it does.")
    evidence = {"asked": 2, "repetitive": 1, "answers": [{"prompt": "What is a token?", "answer": "Once upon a time " * 30}]}
    warned = {"state": "warned", "code": "answers_repetitive", "finding": "An answer repeats itself.", "evidence": evidence}
    acting.end_check(submission, "generates", result=acting.PASSED | warned)
    submission.refresh_from_db()
    return submission


def _used(user: User, version: Version, number: int = 0) -> Request:
    return Request.objects.create(
        version=version,
        user=user,
        source="chat",
        state="finished",
        finish_reason="stop",
        prompt_tokens=12,
        completion_tokens=30 + number,
        deadline_at=timezone.now(),
    )


def _rated(live: Version) -> Rating:
    for stars, text in ((5, "Does what it says. " * 12), (2, "不太好用,回答太短。")):
        user = making.make_user()
        _used(user, live)
        rated = rating.rate(user, live.listing, stars=stars, text=text)
    Flag.objects.create(rating=rated, user=making.make_user(), reason=Flag.Reason.SPAM)
    return rated


def _spent(owner: User, live: Version) -> Transaction:
    """Credit of the owner, and what others paid for the GPT."""
    for user in (making.make_user(), owner):
        ledger.grant(None, user, 5_000_000, cause=f"grant:{user.public_id}", memo="Welcome")
        for number in range(3):
            request = _used(user, live, number)
            ledger.reserve(user, cause=request.cause, amount_micro=12_345, expires_at=timezone.now() + timedelta(minutes=5))
            detail = {"prompt_tokens": 12, "completion_tokens": 30, "input_price_micro": 100_000, "output_price_micro": 200_000}
            receipt = ledger.settle(request.cause, amount_micro=12_345, version=live, memo=live.full_name, detail=detail)
    assert receipt is not None
    return receipt


def _talked(owner: User, live: Version) -> Conversation:
    for title in ("A question about glaciers that is long enough to be cut in the list", "你好"):
        conversation = Conversation.objects.create(version=live, user=owner, title=title)
        conversation.messages.create(role="user", text=f"{title}?\n\n" + "x" * 200)
        conversation.messages.create(role="assistant", text=CARD, request=_used(owner, live))
    return conversation


def _fought(owner: User, live: Version) -> Battle:
    """With a vote."""
    sides = {"version_a": live, "version_b": live.weights(), "request_a": _used(owner, live), "request_b": _used(owner, live)}
    said = {"text": f"{LONG_NAME}?", "answer_a": CARD, "answer_b": "x" * 200}
    return Battle.objects.create(user=owner, vote="a", voted_at=timezone.now(), **sides, **said)


def _finetune(owner: User, publisher: Publisher, base: Version, file: UploadedFile, *, report: dict[str, Any]) -> Job:
    """With its data checked: ready to be trained, if they will do."""
    job = finetunes.start(owner, publisher, base=base, file=file, settings={})
    assert job.after is not None
    claims.claim(claim_of(job.after))
    claims.finished(outcome_of(job.after, result=report))
    return fresh(job)
