"""The generated icon, stars, and numbers as each language writes them."""

from __future__ import annotations

import re

import pytest
from django.utils import translation

from store.billing.prices import Price
from store.pages import figures
from store.pages.templatetags import ui


def test_an_icon_is_drawn_from_the_name_alone() -> None:
    svg = ui.glyph("demo-lab/headline", "adapter")

    assert 'class="glyph adapter hue-0' in svg
    opacities = re.findall(r'opacity="([\d.]+)"', svg)
    assert opacities == ["0.64", "1", "0.64", "0.16", "0.16", "0.64", "0.64", "1", "0.16", "1", "0.36", "0.64", "0.36", "0.36", "0.64"]
    assert svg == ui.glyph("demo-lab/headline", "adapter")
    assert svg != ui.glyph("demo-lab/headlines", "adapter")


@pytest.mark.parametrize(("kind", "shape"), [("weights", "rect"), ("adapter", "circle"), ("prompt", "path")])
def test_the_shape_of_an_icon_says_the_kind(kind: str, shape: str) -> None:
    assert len(re.findall(f'<{shape} class="cell"', ui.glyph("a/b", kind))) == 15


@pytest.mark.parametrize(("value", "width"), [(5, "79.0"), (4.6, "72.6"), (2, "31.0"), (0, "0.0")])
def test_stars_are_filled_as_far_as_the_mean(value: float, width: str) -> None:
    svg = ui.stars(value)

    assert f'<svg width="{width}" height="14">' in svg
    assert 'role="img" aria-label="' in svg


@pytest.mark.parametrize(
    ("micro", "english", "chinese"),
    [
        (0, "$0.00", "US$0.00"),
        (1_500_000, "$1.50", "US$1.50"),
        (104, "$0.000104", "US$0.000104"),
        (1_234_567_800_000, "$1,234,567.80", "US$1,234,567.80"),
        (-20_000, "−$0.02", "−US$0.02"),
    ],
)
def test_money_has_as_many_decimals_as_it_takes(micro: int, english: str, chinese: str) -> None:
    with translation.override("en"):
        assert figures.money(micro) == english
    with translation.override("zh-hans"):
        assert figures.money(micro) == chinese


def test_large_numbers_are_shortened_in_the_steps_of_the_language() -> None:
    with translation.override("en"):
        assert [figures.compact(n) for n in (999, 1234, 91_640, 1_200_000)] == ["999", "1.2K", "91.6K", "1.2M"]
    with translation.override("zh-hans"):
        assert [figures.compact(n) for n in (999, 1234, 91_640, 120_000_000)] == ["999", "1,234", "9.2万", "1.2亿"]


def test_numbers_use_a_true_minus_and_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    with translation.override("en"):
        assert figures.number(-1234.5, 1) == "−1,234.5"
        assert figures.number(18.46, 1) == "18.5"
        assert figures.signed(8.6, 1) == "+8.6"
        assert figures.signed(-2.71, 1) == "−2.7"
        assert figures.signed(0.04, 1) == "±0.0"


def test_an_offer_names_both_prices_only_when_they_differ() -> None:
    with translation.override("en"):
        assert figures.offer(Price()) == "Free"
        assert figures.offer(Price(100_000, 100_000)) == "$0.10 / 1M tokens"
        assert figures.offer(Price(50_000, 100_000)) == "$0.05 in, $0.10 out / 1M tokens"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.41, "0.4 s"), (41, "41 s"), (370, "6 min 10 s"), (7500, "2 h 5 min"), (180_000, "2 days")]
)
def test_lengths_of_time_are_said_in_their_unit(seconds: float, said: str) -> None:
    with translation.override("en"):
        assert figures.duration(seconds) == said


def test_the_language_attribute_is_written_as_bcp_47_wants_it() -> None:
    assert [ui.bcp47(code) for code in ("en", "zh-hans", "pt-br", "")] == ["en", "zh-Hans", "pt-BR", ""]
