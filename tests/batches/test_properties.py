"""Whatever workers say, how often and in what order, and whoever of them is lost: each line is answered once and counted once."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from inference.protocol import Claim, Outcome, Segment, Verdict
from store.batches import preparing, results
from store.billing import ledger
from store.billing.models import Transaction
from store.catalog import publishing
from store.jobs import claims
from store.jobs.models import Job
from tests import making
from tests.batches.answering import answer, begun, fresh, jobs_of, output, segment
from tests.billing.test_ledger_properties import SEARCH

LINES = 6
WORKERS = st.sampled_from(["first", "second"])
SHARDS = st.integers(0, 2)


class Workers(RuleBasedStateMachine):
    """Two workers that claim, answer some lines, repeat themselves, speak too late and are lost."""

    @initialize()
    def batch_of_three_shards(self) -> None:
        version = making.make_prompt()
        owner = making.owner_of(version.listing.publisher)
        publishing.set_prices(owner, version.listing, input_price_micro=1_000_000, output_price_micro=1_000_000)
        self.user = making.make_user()
        ledger.grant(None, self.user, 1_000_000, cause=f"grant:{self.user.public_id}")
        self.batch = begun(self.user, version, LINES)
        self.said: list[Segment | Outcome] = []

    def job(self, shard: int) -> Job:
        jobs = jobs_of(self.batch)
        return jobs[shard % len(jobs)]

    @rule(shard=SHARDS, by=WORKERS)
    def a_worker_asks_for_a_shard(self, shard: int, by: str) -> None:
        job = self.job(shard)
        claims.claim(Claim(job=job.public_id, attempt=job.attempt, claim=by, worker=by))

    @rule(shard=SHARDS, by=WORKERS, lines=st.sets(st.integers(1, LINES)))
    def a_worker_says_what_it_answered(self, shard: int, by: str, lines: set[int]) -> None:
        job = self.job(shard)
        holds = job.state == Job.State.RUNNING and job.claim == by
        said = segment(job, by=by, only=lines)
        self.said.append(said)

        assert (claims.segment(said) is Verdict.GO_ON) == holds

    @rule(which=st.integers(0, 50))
    def something_is_said_again_or_too_late(self, which: int) -> None:
        if self.said:
            said = self.said[which % len(self.said)]
            (claims.segment if isinstance(said, Segment) else claims.finished)(said)  # type: ignore[arg-type]

    @rule(shard=SHARDS)
    def a_worker_is_lost(self, shard: int) -> None:
        job = self.job(shard)
        if job.state == Job.State.RUNNING:
            held = Job.objects.filter(pk=job.pk, claim=job.claim)
            claims.try_again(job, held, code="worker_lost", error="Lost.")
            Job.objects.filter(pk=job.pk).update(not_before=None, max_attempts=1000)

    @rule(shard=SHARDS, by=WORKERS)
    def a_worker_answers_the_rest(self, shard: int, by: str) -> None:
        job = self.job(shard)
        if job.state == Job.State.RUNNING and job.claim == by:
            self.a_worker_says_what_it_answered(shard, by, set(range(1, LINES + 1)))
            self.said.append(Outcome(job=job.public_id, attempt=job.attempt, claim=by))
            assert claims.finished(self.said[-1])  # type: ignore[arg-type]

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        if not hasattr(self, "batch"):
            return
        numbers = [number for job in jobs_of(self.batch) for number, _answered in results.answers_of(job)]
        batch = fresh(self.batch)
        assert len(numbers) == len(set(numbers)) == batch.completed
        assert (batch.prompt_tokens, batch.completion_tokens) == (5 * batch.completed, 2 * batch.completed)

    def teardown(self) -> None:
        if not hasattr(self, "batch"):
            return
        for job in jobs_of(self.batch):
            if job.state == Job.State.RUNNING:
                claims.try_again(job, Job.objects.filter(pk=job.pk), code="worker_lost", error="Lost.")
        Job.objects.update(not_before=None)
        while unended := [job for job in jobs_of(self.batch) if not job.has_ended]:
            answer(unended[0], by="last")

        assert results.write_results(self.batch.public_id)
        batch = fresh(self.batch)
        assert [line["custom_id"] for line in output(batch)] == [f"id-{number}" for number in range(1, LINES + 1)]
        assert batch.cost_micro == LINES * (5 + 2)
        assert Transaction.objects.filter(cause=batch.cause).count() == 1
        wallet = ledger.wallet_of(self.user)
        assert (wallet.balance_micro, wallet.held_micro) == (1_000_000 - batch.cost_micro, 0)


class Workings(TestCase):
    @pytest.fixture(autouse=True)
    def small_shards(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preparing, "SHARD_LINES", 2)

    def test_each_line_is_answered_once_whatever_workers_say(self) -> None:
        run_state_machine_as_test(Workers, settings=SEARCH)
