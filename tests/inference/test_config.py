"""config.json: the families the core runs, in old and new style, and the refusal of everything else by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from inference.config import GPTConfig, Rope, RopeScaling, UnsupportedModel
from tests.inference.tiny import tiny_config

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def test_old_and_new_style_rotary_settings_mean_the_same() -> None:
    old = tiny_config(rope_theta=500_000.0, rope_scaling=LLAMA3)
    new = tiny_config(rope_theta=None, rope_parameters={"rope_theta": 500_000.0, **LLAMA3})

    config = GPTConfig.from_json(old)

    assert config == GPTConfig.from_json(new)
    assert config.rope == Rope(500_000.0, RopeScaling("llama3", 8.0, 1.0, 4.0, 64))


def test_the_oldest_name_of_linear_scaling_is_read() -> None:
    config = GPTConfig.from_json(tiny_config(rope_scaling={"type": "linear", "factor": 2.0}))

    assert config.rope == Rope(10_000.0, RopeScaling("linear", 2.0))


def test_a_sliding_window_is_honoured_where_the_config_has_it_on() -> None:
    mistral = GPTConfig.from_json(tiny_config(model_type="mistral", sliding_window=16))
    without = GPTConfig.from_json(tiny_config(model_type="mistral", sliding_window=None))
    qwen_off = GPTConfig.from_json(tiny_config(model_type="qwen2", sliding_window=16, use_sliding_window=False))
    qwen_on = GPTConfig.from_json(tiny_config(model_type="qwen2", sliding_window=16, use_sliding_window=True, max_window_layers=1))

    assert mistral.windows == (16, 16)
    assert without.windows == qwen_off.windows == (None, None)
    assert qwen_on.windows == (None, 16)


@pytest.mark.parametrize("said", [{}, {"sliding_window": None}, {"sliding_window": 16}], ids=["nothing", "null", "16"])
@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_a_window_is_what_transformers_reads(family: str, said: dict[str, Any]) -> None:
    raw = {**tiny_config(model_type=family, use_sliding_window=True, max_window_layers=0), **said}

    theirs = transformers.AutoConfig.for_model(**raw)

    assert GPTConfig.from_json(raw).windows == (theirs.sliding_window,) * 2


GEMMA3_4B = {  # as its publisher's file has it: what is not said is transformers' default
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"model_type": "siglip_vision_model"},
}


def test_a_gemma_config_that_says_only_what_is_not_the_default_is_read() -> None:
    config = GPTConfig.from_json(GEMMA3_4B)

    assert (config.vocab_size, config.heads, config.kv_heads, config.head_dim) == (262_208, 8, 4, 256)
    assert config.windows == ((1024,) * 5 + (None,)) * 5 + (1024,) * 4
    assert config.rope == Rope(1_000_000.0, RopeScaling("linear", 8.0))
    assert config.window_rope == Rope(10_000.0)
    assert (config.layer_rope(0), config.layer_rope(5)) == (config.window_rope, config.rope)
    assert config.tied
    assert round(config.parameter_count / 1e9, 2) == 3.88


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0 is not supported"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0 is not supported"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention=True is not supported"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 8.0}}, "rope_parameters must have an object for full_attention"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "'yarn' is not supported"),
        (
            {"rope_scaling": None, "rope_parameters": {"full_attention": [], "sliding_attention": {}}},
            "rope_parameters must have an object for full_attention",
        ),
        ({"rope_local_base_freq": 0}, "rope_theta is 0"),
        ({"layer_types": ["sliding_attention"] * 33}, "layer_types must say"),
        ({"layer_types": [["sliding_attention"]] * 34}, "layer_types must say"),
        ({"sliding_window_pattern": 0}, "sliding_window_pattern must be"),
        ({"sliding_window": None}, "sliding_window=null is not supported"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        ({"hidden_activation": "relu2"}, "hidden_activation 'relu2'"),
    ],
)
def test_a_gemma_that_computes_something_else_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModel, match=named):
        GPTConfig.from_json(GEMMA3_4B | {"text_config": GEMMA3_4B["text_config"] | changes})


def test_a_gemma_without_a_text_part_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="text_config must be an object"):
        GPTConfig.from_json({"model_type": "gemma3", "text_config": None})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mixtral"}, "'mixtral' is not supported"),
        ({"model_type": None}, "'None' is not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "'longrope' is not supported"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "'dynamic' is not supported"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "full_attention is not known of the RoPE scaling 'default'"),
        ({"rope_parameters": {"rope_theta": 1e4, "factor": 8.0}}, "factor is not known of the RoPE scaling 'default'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0, "attention_factor": 3.0}}, "attention_factor is not known"),
        ({"rope_scaling": {"rope_type": "default", "type": "yarn"}}, "the rope_type 'default' and the type 'yarn'"),
        ({"rope_scaling": {"type": ["linear"], "factor": 4.0}}, "is not supported; supported are default, linear, llama3"),
        ({"rope_scaling": LLAMA3, "rope_parameters": {"rope_theta": 1e4}}, "rope_parameters and rope_scaling say different things"),
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
