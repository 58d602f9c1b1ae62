"""config.json: the families the core runs, in old and new style, and the refusal of everything else by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference.config import GPTConfig, RopeScaling, UnsupportedModel
from tests.inference.tiny import tiny_config

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def test_old_and_new_style_rotary_settings_mean_the_same() -> None:
    old = tiny_config(rope_theta=500_000.0, rope_scaling=LLAMA3)
    new = tiny_config(rope_theta=None, rope_parameters={"rope_theta": 500_000.0, **LLAMA3})

    config = GPTConfig.from_json(old)

    assert config == GPTConfig.from_json(new)
    assert config.rope_theta == 500_000.0
    assert config.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 64)


def test_the_oldest_name_of_linear_scaling_is_read() -> None:
    assert GPTConfig.from_json(tiny_config(rope_scaling={"type": "linear", "factor": 2.0})).rope_scaling == RopeScaling("linear", 2.0)


def test_a_sliding_window_is_honoured_where_the_config_has_it_on() -> None:
    mistral = GPTConfig.from_json(tiny_config(model_type="mistral", sliding_window=16))
    without = GPTConfig.from_json(tiny_config(model_type="mistral", sliding_window=None))
    qwen_off = GPTConfig.from_json(tiny_config(model_type="qwen2", sliding_window=16, use_sliding_window=False))
    qwen_on = GPTConfig.from_json(tiny_config(model_type="qwen2", sliding_window=16, use_sliding_window=True, max_window_layers=1))

    assert mistral.windows == (16, 16)
    assert without.windows == qwen_off.windows == (None, None)
    assert qwen_on.windows == (None, 16)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mixtral"}, "'mixtral' is not supported"),
        ({"model_type": None}, "'None' is not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "'longrope' is not supported"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "'dynamic' is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "relu2"}, "hidden_act 'relu2'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"hidden_size": 1e3}, "hidden_size is 1000.0"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"head_dim": 15}, "head_dim 15 is odd"),
        ({"rope_theta": float("inf")}, "rope_theta is inf"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is small"),
        ({"hidden_size": 65536, "intermediate_size": 1048576, "num_hidden_layers": 512, "head_dim": 64}, "parameters; at most"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        GPTConfig.from_json(tiny_config(**changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"n_head": 5}, "n_embd 64 is not a multiple of n_head 5"),
    ],
)
def test_gpt2_variants_that_compute_something_else_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        GPTConfig.from_json({"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2} | changes)


@pytest.mark.parametrize("text", ["", "{not json", "[]", "[" * 100_000, json.dumps({"model_type": "llama"})])
def test_a_broken_config_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(UnsupportedModel):
        GPTConfig.from_folder(tmp_path)


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"there is no config\.json"):
        GPTConfig.from_folder(tmp_path)
