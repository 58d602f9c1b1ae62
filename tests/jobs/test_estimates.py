"""What a fine-tune will probably take."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from store.jobs.estimates import Estimate, estimate
from store.jobs.finetunes import checked_settings
from store.jobs.models import Job
from tests.jobs.test_finetunes import GOOD, LINE, Scene
from tests.jobs.test_views import signed_in
from tests.making import make_base

pytestmark = pytest.mark.django_db(transaction=True)
REPORT = GOOD | {"examples": 100, "tokens": 20_000}


@pytest.fixture
def scene() -> Scene:
    return Scene()


def of(scene: Scene, **settings: Any) -> Estimate:
    return estimate(scene.file, scene.base, checked_settings(settings))


def test_it_is_guessed_from_the_size_while_nobody_has_counted(scene: Scene) -> None:
    scene.file = scene.put((LINE * 1000)[:40_000])

    found = of(scene, epochs=2, batch_size=8, validation_share=0.0)

    assert (found.tokens, found.steps) == (20_000, 26)
    assert (found.seconds, found.counted) == (None, False)


def test_after_a_check_of_the_file_for_this_base_it_is_counted(scene: Scene) -> None:
    scene.validate(scene.start(), REPORT)

    found = of(scene, epochs=3, batch_size=8, validation_share=0.2)

    assert (found.steps, found.tokens, found.counted) == (30, 48_000, True)


def test_of_a_large_file_no_more_is_held_out_than_a_run_measures_itself_on(scene: Scene) -> None:
    scene.validate(scene.start(), REPORT | {"examples": 10_000, "tokens": 1_000_000})

    found = of(scene, epochs=1, batch_size=10, validation_share=0.1)

    assert (found.steps, found.tokens) == (990, 990_000)


@pytest.mark.parametrize("change", [{"max_length": 64}, {"method": "preference"}, "base", "file", "bad"], ids=str)
def test_a_check_of_something_else_counts_nothing(scene: Scene, change: dict[str, Any] | str) -> None:
    scene.validate(scene.start(), REPORT | ({"valid": False} if change == "bad" else {}))
    if change == "base":
        scene.base = make_base(slug="another")
    if change == "file":
        scene.file = scene.put(LINE * 5)

    assert not of(scene, **(change if isinstance(change, dict) else {})).counted


def test_the_time_is_that_of_the_last_runs_of_this_kind_on_this_base(scene: Scene) -> None:
    for seconds in (100, 10_000, 200, 50, 80, 100):
        scene.finish(scene.start(), tokens=20_000, seconds=seconds)
    Job.objects.filter(kind=Job.Kind.VALIDATION).update(result=REPORT)

    found = of(scene, epochs=1, validation_share=0.0)

    assert found.seconds == pytest.approx(100)  # the median pace of the last five is 200 tokens a second
    assert of(scene, method="preference", validation_share=0.0).seconds is None


def test_the_page_estimates_what_is_typed_and_starts_nothing(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 0
    scene.validate(scene.start(), REPORT)
    client, path = signed_in(scene.owner), reverse("jobs:settings", args=[scene.publisher.slug, scene.base.public_id, scene.file.public_id])
    before = Job.objects.count()
    page = client.get(path)
    typed = page.context["form"].initial | {"epochs": 10, "batch_size": 4, "validation_share": 0.0, "estimate": "1"}

    again = client.post(path, typed)

    assert (page.context["estimate"].steps, again.context["estimate"].steps) == (36, 250)
    assert (again.status_code, Job.objects.count()) == (200, before)
    assert "No run on this base has ended yet" in again.content.decode()


def test_of_all_weights_it_tells_size_and_memory_and_the_time_of_runs_that_trained_them(scene: Scene) -> None:
    scene.finish(scene.start(), tokens=20_000, seconds=10)
    scene.finish(scene.start(scope="weights"), tokens=20_000, seconds=100)
    Job.objects.filter(kind=Job.Kind.VALIDATION).update(result=REPORT)
    size_bytes = scene.base.artifact.size_bytes  # type: ignore[union-attr]

    adapter, weights = (of(scene, scope=scope, epochs=1, validation_share=0.0) for scope in ("adapter", "weights"))

    assert (adapter.seconds, adapter.result_bytes, adapter.memory_bytes) == (pytest.approx(10), None, None)
    assert (weights.seconds, weights.result_bytes) == (pytest.approx(100), size_bytes)
    assert weights.memory_bytes == size_bytes + 24 * scene.base.facts["parameters"]
