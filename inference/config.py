"""What a checkpoint's `config.json` says about the model, for the architectures the core can run.

GPT-2, and the Llama family: Llama and SmolLM2, Qwen2 and Qwen2.5 (a bias on q, k and v), Qwen3 (normed q and k, a head
size of its own), Mistral (a sliding window) and Gemma 3 (norms behind attention and MLP too, windows with rotary positions
of their own in most layers; of a checkpoint that also sees pictures, the text model). Rotary settings are read in the old
style (`rope_theta`, `rope_scaling`) and the new (`rope_parameters`). What is not supported is refused by name, and sizes are
bounded before anything is allocated, since the file comes from a stranger.
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
GEMMA = ("gemma3_text", "gemma3")  # text alone, and the text part of one that sees pictures
KINDS = ("full_attention", "sliding_attention")  # of layers, as `layer_types` calls them
# What may be said of each scaling; without effect on it is only what the context was before.
_ROPE = frozenset({"rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"})
ROPE_SETTINGS = {"default": _ROPE, "linear": _ROPE | {"factor"}, "llama3": _ROPE | {"factor", "low_freq_factor", "high_freq_factor"}}


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
class Rope:
    """Rotary positions: the base of their frequencies, and how these are stretched."""

    theta: float
    scaling: RopeScaling | None = None


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
    rope: Rope | None = None  # None: positions are learned (GPT-2)
    window_rope: Rope | None = None  # of the layers with a window, where theirs is another (Gemma 3)
    post_norms: bool = False  # attention and MLP are normed behind as well as before (Gemma 3)
    embedding_scale: float = 1.0
    query_scale: float = 1.0  # of q, beside attention's own 1/√head_dim

    @property
    def learned_positions(self) -> bool:
        return self.rope is None

    @property
    def gated(self) -> bool:
        """A gated MLP and RMSNorm (Llama family), rather than a plain MLP and LayerNorm."""
        return self.architecture != "gpt2"

    def layer_rope(self, layer: int) -> Rope | None:
        windowed = self.windows[layer] is not None
        return self.window_rope if windowed and self.window_rope is not None else self.rope

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
        return embeddings + self.layers * (attention + mlp + (4 if self.post_norms else 2) * norm) + norm

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
        elif architecture in GEMMA:
            config = _gemma3(_Reader(_text_part(raw), {}), architecture)
        else:
            supported = ", ".join(("gpt2", *LLAMA_FAMILY, *GEMMA))
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
    kv_heads = _kv_heads(read, heads, default=heads)
    if read.get("head_dim") is None and hidden % heads:
        raise UnsupportedModel(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    head_dim = _even_head_dim(read, default=128 if architecture == "qwen3" else hidden // heads)
    bias = architecture in ("llama", "qwen3") and read.flag("attention_bias", False)
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
        rope=_rope(read, _rope_settings(read)),
    )


def _gemma3(read: _Reader, architecture: str) -> GPTConfig:
    """Gemma's own files leave out what is the default of transformers, so the defaults stand here too."""
    read.refuse("attn_logit_softcapping", None)
    read.refuse("final_logit_softcapping", None)
    read.refuse("use_bidirectional_attention", False)
    hidden, heads, layers = read.size("hidden_size", 2304), read.size("num_attention_heads", 8), read.size("num_hidden_layers", 26)
    head_dim = _even_head_dim(read, default=256)
    bias = read.flag("attention_bias", False)
    rope, window_rope = _gemma3_ropes(read)
    return GPTConfig(
        architecture=architecture,
        vocab_size=read.size("vocab_size", 262_208),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=_kv_heads(read, heads, default=4),
        head_dim=head_dim,
        intermediate_size=read.size("intermediate_size", 9216),
        context_length=read.size("max_position_embeddings", 131_072),
        norm_eps=read.number("rms_norm_eps", 1e-6, low=0, high=1),
        activation=read.activation("hidden_activation", "gelu_pytorch_tanh"),
        tied=read.flag("tie_word_embeddings", True),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=False,
        qk_norm=True,
        windows=_gemma3_windows(read, layers),
        rope=rope,
        window_rope=window_rope,
        post_norms=True,
        embedding_scale=math.sqrt(hidden),
        query_scale=math.sqrt(head_dim / read.number("query_pre_attn_scalar", 256, low=1e-3, high=1e6)),
    )


def _text_part(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    if raw["model_type"] != "gemma3":
        return raw
    part = raw.get("text_config")
    if not isinstance(part, dict):
        raise UnsupportedModel("text_config must be an object")
    return part


def _kv_heads(read: _Reader, heads: int, *, default: int) -> int:
    kv_heads = read.size("num_key_value_heads", default)
    if heads % kv_heads:
        raise UnsupportedModel(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    return kv_heads


def _even_head_dim(read: _Reader, *, default: int) -> int:
    head_dim = read.size("head_dim", default)
    if head_dim % 2:
        raise UnsupportedModel(f"head_dim {head_dim} is odd; rotary positions need an even one")
    return head_dim


def _windows(read: _Reader, architecture: str, layers: int) -> tuple[int | None, ...]:
    """Each layer's sliding window. Mistral's is everywhere; Qwen's is off by default and may be in some layers only."""
    sliding = architecture == "mistral" or (architecture != "llama" and read.flag("use_sliding_window", False))
    window = _window(read) if sliding else None
    if window is None or architecture == "mistral":
        return (window,) * layers
    first = read.get("max_window_layers", 28)
    if not isinstance(first, int):
        raise UnsupportedModel("max_window_layers must be a whole number")
    return _windows_by_kind(read, window, [layer >= first for layer in range(layers)])


def _window(read: _Reader) -> int | None:
    """As in transformers, null says that there is none, and a config that says nothing means 4,096."""
    return None if read.raw.get("sliding_window", 4096) is None else read.size("sliding_window", 4096)


def _gemma3_windows(read: _Reader, layers: int) -> tuple[int | None, ...]:
    """Every sixth layer sees everything, or what the config says."""
    pattern = read.get("sliding_window_pattern", 6)
    if not isinstance(pattern, int) or isinstance(pattern, bool) or pattern < 1:
        raise UnsupportedModel("sliding_window_pattern must be a whole number from 1")
    if (window := _window(read)) is None:
        raise UnsupportedModel("sliding_window=null is not supported: most layers of a Gemma have a window")
    return _windows_by_kind(read, window, [bool((layer + 1) % pattern) for layer in range(layers)])


def _windows_by_kind(read: _Reader, window: int, windowed: list[bool]) -> tuple[int | None, ...]:
    """`windowed` says which layers have the window where `layer_types` does not."""
    kinds = read.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != len(windowed) or not all(kind in KINDS for kind in kinds):
            raise UnsupportedModel("layer_types must say full_attention or sliding_attention for each layer")
        windowed = [kind == "sliding_attention" for kind in kinds]
    return tuple(window if sliding else None for sliding in windowed)


def _rope_settings(read: _Reader) -> dict[str, Any]:
    """What is said of rotary positions, in `rope_parameters` or in `rope_theta` and `rope_scaling`."""
    given = _either_style(read)
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise UnsupportedModel("rope_parameters must be an object")
    return {"rope_theta": read.get("rope_theta", 10_000.0), **given}


def _either_style(read: _Reader) -> Any:
    """`rope_parameters` or, in the old style, `rope_scaling`; None where there is neither."""
    new, old = read.get("rope_parameters"), read.get("rope_scaling")
    if new is not None and old is not None and new != old:
        raise UnsupportedModel("rope_parameters and rope_scaling say different things; leave one of them out")
    return old if new is None else new


def _gemma3_ropes(read: _Reader) -> tuple[Rope, Rope]:
    """Of the layers that see everything, and of those with a window. The old style scales only the first."""
    given = _either_style(read)
    if read.get("rope_parameters") is None:
        given = {"full_attention": {} if given is None else given, "sliding_attention": {}}
    stretched, plain = (given.get(kind) if isinstance(given, dict) else None for kind in KINDS)
    if not isinstance(stretched, dict) or not isinstance(plain, dict):
        raise UnsupportedModel("rope_parameters must have an object for full_attention and one for sliding_attention")
    whole = {"rope_theta": read.get("rope_theta", 1_000_000.0), **stretched}
    local = {"rope_theta": read.get("rope_local_base_freq", 10_000.0), **plain}
    return _rope(read, whole), _rope(read, local)


def _rope_kind(given: dict[str, Any]) -> str:
    """How the frequencies are stretched. Raises UnsupportedModel for a kind that is not supported, and for what it does not know."""
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in ROPE_SETTINGS:
        raise UnsupportedModel(f"the RoPE scaling {str(kind)[:60]!r} is not supported; supported are {', '.join(ROPE_SETTINGS)}")
    if given.get("type", kind) != kind:
        raise UnsupportedModel(
            f"the RoPE scaling has the rope_type {kind!r} and the type {str(given['type'])[:60]!r}; leave one of them out"
        )
    for name, value in given.items():
        if value is not None and name not in ROPE_SETTINGS[kind]:
            raise UnsupportedModel(f"{name[:60]} is not known of the RoPE scaling {kind!r}, and may change what the model computes")
    return kind


def _rope(read: _Reader, given: dict[str, Any]) -> Rope:
    theta = _number(given["rope_theta"], "rope_theta", low=1, high=1e12)
    if given.get("partial_rotary_factor", read.get("partial_rotary_factor", 1.0)) != 1.0:
        raise UnsupportedModel("partial_rotary_factor is not supported: only whole heads are rotated")
    kind = _rope_kind(given)
    if kind == "default":
        return Rope(theta)
    factor = _number(given.get("factor"), "rope factor", low=1, high=1e6)
    if kind == "linear":
        return Rope(theta, RopeScaling("linear", factor))
    low = _number(given.get("low_freq_factor"), "low_freq_factor", low=1e-6, high=1e6)
    high = _number(given.get("high_freq_factor"), "high_freq_factor", low=1e-6, high=1e6)
    if high <= low:
        raise UnsupportedModel("high_freq_factor must be larger than low_freq_factor")
    original = given.get("original_max_position_embeddings", read.get("max_position_embeddings"))
    original = int(_number(original, "original_max_position_embeddings", low=1, high=LIMITS["max_position_embeddings"]))
    return Rope(theta, RopeScaling("llama3", factor, low, high, original))
