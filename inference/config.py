"""What a checkpoint's `config.json` says about the model, for the architectures the core can run.

GPT-2, and the Llama family: Llama and SmolLM2, Qwen2 and Qwen2.5 (a bias on q, k and v), Qwen3 (normed q and k, a head
size of its own) and Mistral (a sliding window). Rotary settings are read in the old style (`rope_theta`, `rope_scaling`)
and the new (`rope_parameters`). What is not supported is refused by name, and sizes are bounded before anything is
allocated, since the file comes from a stranger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_CONFIG_BYTES = 1024 * 1024
MAX_PARAMETERS = 1_000_000_000_000
LIMITS = {
    "vocab_size": 2_000_000,
    "hidden_size": 65_536,
    "num_hidden_layers": 512,
    "num_attention_heads": 1_024,
    "num_key_value_heads": 1_024,
    "head_dim": 1_024,
    "intermediate_size": 1_048_576,
    "max_position_embeddings": 16_777_216,
    "sliding_window": 16_777_216,
}
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
LLAMA_FAMILY = ("llama", "qwen2", "qwen3", "mistral")


class UnsupportedModel(ValueError):
    """The model cannot be run by this core; the message names what is not supported or not right."""


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched to a longer context than the model was first trained on."""

    kind: str  # "linear" or "llama3"
    factor: float
    low_freq_factor: float = 1.0  # this and those below: llama3 only
    high_freq_factor: float = 4.0
    original_context_length: int = 8192


@dataclass(frozen=True)
class GPTConfig:
    """Everything `inference.model.GPT` needs to know of a checkpoint."""

    architecture: str  # config.json's model_type
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    context_length: int
    norm_eps: float
    activation: str  # "silu", "gelu" or "gelu_tanh"
    tied: bool  # the head is the embedding
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: bool
    windows: tuple[int | None, ...]  # per layer: how many positions a token sees, itself included; None: all
    rope_theta: float = 10_000.0  # unused by GPT-2, whose positions are learned
    rope_scaling: RopeScaling | None = None

    @property
    def learned_positions(self) -> bool:
        return self.architecture == "gpt2"

    @property
    def gated(self) -> bool:
        """SwiGLU and RMSNorm (Llama family), rather than a plain MLP and LayerNorm."""
        return self.architecture != "gpt2"

    @property
    def parameter_count(self) -> int:
        """Weights of the model; a tied head counts once."""
        hidden, queries, keys = self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        norm = hidden if self.gated else 2 * hidden
        attention = hidden * (queries + 2 * keys) + queries * hidden
        attention += (queries + 2 * keys) * self.qkv_bias + hidden * self.out_bias + 2 * self.head_dim * self.qk_norm
        width = self.intermediate_size
        mlp = hidden * width * (3 if self.gated else 2)
        mlp += (width * (2 if self.gated else 1) + hidden) * self.mlp_bias
        embeddings = self.vocab_size * hidden * (1 if self.tied else 2) + self.context_length * hidden * self.learned_positions
        return embeddings + self.layers * (attention + mlp + 2 * norm) + norm

    @classmethod
    def from_folder(cls, folder: Path) -> GPTConfig:
        """Reads `config.json`. Raises UnsupportedModel."""
        path = Path(folder) / "config.json"
        try:
            if path.stat().st_size > MAX_CONFIG_BYTES:
                raise UnsupportedModel(f"config.json is larger than {MAX_CONFIG_BYTES} bytes")
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UnsupportedModel("there is no config.json") from error
        except (OSError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UnsupportedModel(f"config.json cannot be read: {error}") from error
        if not isinstance(raw, dict):
            raise UnsupportedModel("config.json is not a JSON object")
        return cls.from_json(raw)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> GPTConfig:
        """Raises UnsupportedModel."""
        architecture = raw.get("model_type")
        if raw.get("quantization_config") is not None:
            raise UnsupportedModel("quantization_config: quantised checkpoints are not supported; import the original weights")
        if architecture == "gpt2":
            config = _gpt2(_Reader(raw, GPT2_NAMES))
        elif architecture in LLAMA_FAMILY:
            config = _llama(_Reader(raw, {}), architecture)
        else:
            supported = ", ".join(("gpt2", *LLAMA_FAMILY))
            raise UnsupportedModel(f"the architecture {str(architecture)[:60]!r} is not supported; supported are {supported}")
        if config.parameter_count > MAX_PARAMETERS:
            raise UnsupportedModel(f"its sizes make {config.parameter_count} parameters; at most {MAX_PARAMETERS} are supported")
        return config


class _Reader:
    """Checked access to the fields of a config."""

    def __init__(self, raw: Mapping[str, Any], names: Mapping[str, str]) -> None:
        self.raw = raw
        self._names = names

    def get(self, name: str, default: Any = None) -> Any:
        value = self.raw.get(self._names.get(name, name))
        value = self.raw.get(name) if value is None else value
        return default if value is None else value

    def size(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LIMITS[name]:
            raise UnsupportedModel(f"{name} is {str(value)[:60]}; it must be a whole number from 1 to {LIMITS[name]}")
        return value

    def number(self, name: str, default: float | None, *, low: float, high: float) -> float:
        return _number(self.get(name, default), name, low=low, high=high)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise UnsupportedModel(f"{name} is {str(value)[:60]!r}; it must be true or false")
        return value

    def activation(self, name: str, default: str) -> str:
        value = self.get(name, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise UnsupportedModel(f"{name} {str(value)[:60]!r} is not supported; supported are {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[value]

    def refuse(self, name: str, *accepted: Any) -> None:
        if (value := self.get(name, accepted[0])) not in accepted:
            raise UnsupportedModel(f"{name}={str(value)[:60]} is not supported")


def _number(value: Any, name: str, *, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
        raise UnsupportedModel(f"{name} is {str(value)[:60]}; it must be a number from {low:g} to {high:g}")
    return float(value)


def _gpt2(read: _Reader) -> GPTConfig:
    read.refuse("scale_attn_weights", True)
    read.refuse("scale_attn_by_inverse_layer_idx", False)
    read.refuse("add_cross_attention", False)
    hidden, heads, layers = read.size("hidden_size", 768), read.size("num_attention_heads", 12), read.size("num_hidden_layers", 12)
    if hidden % heads:
        raise UnsupportedModel(f"n_embd {hidden} is not a multiple of n_head {heads}")
    return GPTConfig(
        architecture="gpt2",
        vocab_size=read.size("vocab_size", 50257),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=read.size("intermediate_size", 4 * hidden),
        context_length=read.size("max_position_embeddings", 1024),
        norm_eps=read.number("layer_norm_epsilon", 1e-5, low=0, high=1),
        activation=read.activation("activation_function", "gelu_new"),
        tied=read.flag("tie_word_embeddings", True),
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        qk_norm=False,
        windows=(None,) * layers,
    )


def _llama(read: _Reader, architecture: str) -> GPTConfig:
    hidden, heads, layers = read.size("hidden_size"), read.size("num_attention_heads"), read.size("num_hidden_layers")
    kv_heads = read.size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise UnsupportedModel(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if read.get("head_dim") is None and hidden % heads:
        raise UnsupportedModel(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    head_dim = read.size("head_dim", 128 if architecture == "qwen3" else hidden // heads)
    if head_dim % 2:
        raise UnsupportedModel(f"head_dim {head_dim} is odd; rotary positions need an even one")
    bias = architecture in ("llama", "qwen3") and read.flag("attention_bias", False)
    theta, scaling = _rope(read)
    return GPTConfig(
        architecture=architecture,
        vocab_size=read.size("vocab_size"),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=read.size("intermediate_size"),
        context_length=read.size("max_position_embeddings"),
        norm_eps=read.number("rms_norm_eps", 1e-6, low=0, high=1),
        activation=read.activation("hidden_act", "silu"),
        tied=read.flag("tie_word_embeddings", False),
        qkv_bias=bias or architecture == "qwen2",
        out_bias=bias,
        mlp_bias=architecture == "llama" and read.flag("mlp_bias", False),
        qk_norm=architecture == "qwen3",
        windows=_windows(read, architecture, layers),
        rope_theta=theta,
        rope_scaling=scaling,
    )


def _windows(read: _Reader, architecture: str, layers: int) -> tuple[int | None, ...]:
    """Each layer's sliding window. Mistral's is everywhere; Qwen's is off by default and may be in some layers only."""
    sliding = read.get("sliding_window") is not None and (
        architecture == "mistral" or (architecture != "llama" and read.flag("use_sliding_window", False))
    )
    if not sliding:
        return (None,) * layers
    window = read.size("sliding_window")
    if architecture == "mistral":
        return (window,) * layers
    kinds = read.get("layer_types")
    if kinds is None:
        first = read.get("max_window_layers", 28)
        if not isinstance(first, int):
            raise UnsupportedModel("max_window_layers must be a whole number")
        return tuple(window if layer >= first else None for layer in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers or set(kinds) - {"full_attention", "sliding_attention"}:
        raise UnsupportedModel("layer_types must say full_attention or sliding_attention for each layer")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _rope(read: _Reader) -> tuple[float, RopeScaling | None]:
    """Base frequency and scaling, from `rope_parameters` or from `rope_theta` and `rope_scaling`."""
    given = read.get("rope_parameters")
    given = read.get("rope_scaling", {}) if given is None else given
    if not isinstance(given, dict):
        raise UnsupportedModel("rope_parameters must be an object")
    theta = _number(given.get("rope_theta", read.get("rope_theta", 10_000.0)), "rope_theta", low=1, high=1e12)
    if given.get("partial_rotary_factor", read.get("partial_rotary_factor", 1.0)) != 1.0:
        raise UnsupportedModel("partial_rotary_factor is not supported: only whole heads are rotated")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3"):
        raise UnsupportedModel(f"the RoPE scaling {str(kind)[:60]!r} is not supported; supported are default, linear and llama3")
    factor = _number(given.get("factor"), "rope factor", low=1, high=1e6)
    if kind == "linear":
        return theta, RopeScaling("linear", factor)
    low = _number(given.get("low_freq_factor"), "low_freq_factor", low=1e-6, high=1e6)
    high = _number(given.get("high_freq_factor"), "high_freq_factor", low=1e-6, high=1e6)
    if high <= low:
        raise UnsupportedModel("high_freq_factor must be larger than low_freq_factor")
    original = given.get("original_max_position_embeddings", read.get("max_position_embeddings"))
    original = int(_number(original, "original_max_position_embeddings", low=1, high=LIMITS["max_position_embeddings"]))
    return theta, RopeScaling("llama3", factor, low, high, original)
