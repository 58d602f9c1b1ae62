"""What a version measures beside what came before it, as a reviewer reads it."""

from __future__ import annotations

import pytest

from store.catalog.models import Measurement
from store.moderation.changes import metric_rows
from tests import making

pytestmark = pytest.mark.django_db


def test_a_measured_difference_is_rounded_and_judged_by_its_interval() -> None:
    version = making.make_base()
    of = {"version": version, "lower_is_better": True, "unit": "", "method": {}}
    Measurement.objects.create(**of, name="perplexity", value=12.999, low=12.9, high=13.1, base_value=10.001)
    Measurement.objects.create(**of, name="other", value=10.05, low=9.9, high=10.2, base_value=10.0)

    judged, within = metric_rows(version, None)

    assert (judged.old, judged.change, judged.verdict) == ("10.00", "+3.00", "down")
    assert (within.change, within.verdict) == ("+0.05, within the interval", "same")
