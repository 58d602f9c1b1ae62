"""An operator's word on number formats: one for all bases, others for single ones."""

from __future__ import annotations

import pytest

from inference.precision import Precision

BASE, OTHER = "3fa9c1d2" + "0" * 56, "77bd0e11" + "0" * 56


@pytest.mark.parametrize(
    ("said", "of_base", "of_other"),
    [
        ("", "float32", "float32"),
        ("int8", "int8", "int8"),
        ("bfloat16 3fa9c1=int8", "int8", "bfloat16"),
        (f"{BASE}=int8, 77bd0e=bfloat16", "int8", "bfloat16"),
        ("3fa9c1d2=bfloat16", "bfloat16", "float32"),
    ],
)
def test_a_base_is_kept_in_what_is_said_of_it_or_of_all(said: str, of_base: str, of_other: str) -> None:
    precision = Precision.read(said, usual="float32")

    assert (precision.of(BASE), precision.of(OTHER)) == (of_base, of_other)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("int4", "'int4' names no number format; there are: bfloat16, float32, int8"),
        ("bfloat16 3fa9c1=fp8", "'3fa9c1=fp8' names no number format"),
        ("3fa=int8", "'3fa=int8': a base is named by the beginning of its digest, at least 6"),
        ("smollm2=int8", "a base is named by the beginning of its digest"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Precision.read(said, usual="float32")
