"""How checkpoints and adapters name the parts of a model, beside what `inference.model` calls them.

The same names serve reading and writing Hugging Face checkpoints and PEFT adapters, for both families.
"""

from __future__ import annotations

from inference.config import GPTConfig

LLAMA_LAYER = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "projections.q": "self_attn.q_proj",
    "projections.k": "self_attn.k_proj",
    "projections.v": "self_attn.v_proj",
    "projections.out": "self_attn.o_proj",
    "projections.gate": "mlp.gate_proj",
    "projections.up": "mlp.up_proj",
    "projections.down": "mlp.down_proj",
}
GPT2_LAYER = {
    "attention_norm": "ln_1",
    "mlp_norm": "ln_2",
    "projections.qkv": "attn.c_attn",
    "projections.out": "attn.c_proj",
    "projections.up": "mlp.c_fc",
    "projections.down": "mlp.c_proj",
}
LLAMA_TOP = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
GPT2_TOP = {"embedding": "transformer.wte", "positions": "transformer.wpe", "norm": "transformer.ln_f", "head": "lm_head"}


def prefix(config: GPTConfig) -> str:
    """What a model with a head puts before the names of the bare model's tensors."""
    return "transformer." if config.architecture == "gpt2" else "model."


def projection_name(config: GPTConfig, layer: int, projection: str) -> str:
    """The Hugging Face module name of a projection, such as `model.layers.0.self_attn.q_proj`."""
    return outer_name(config, f"layers.{layer}.projections.{projection}")


def outer_name(config: GPTConfig, inner: str) -> str:
    """The Hugging Face name of a module or, with `.weight` or `.bias` behind it, of a parameter of `GPT`."""
    gpt2 = config.architecture == "gpt2"
    module, leaf = inner, ""
    if inner.endswith((".weight", ".bias")):
        module, _, leaf = inner.rpartition(".")
        leaf = f".{leaf}"
    if not module.startswith("layers."):
        return (GPT2_TOP if gpt2 else LLAMA_TOP)[module] + leaf
    _, number, part = module.split(".", 2)
    if gpt2:
        return f"transformer.h.{number}.{GPT2_LAYER[part]}{leaf}"
    return f"model.layers.{number}.{LLAMA_LAYER[part]}{leaf}"


def is_transposed(config: GPTConfig, inner: str) -> bool:
    """GPT-2 keeps its projections as [in, out] (Conv1D); everything else is [out, in]."""
    return config.architecture == "gpt2" and ".projections." in inner and inner.endswith(".weight")


def projection_shapes(config: GPTConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of every projection by its Hugging Face module name."""
    hidden, queries, keys = config.hidden_size, config.heads * config.head_dim, config.kv_heads * config.head_dim
    inner = config.intermediate_size
    shapes = {"out": (hidden, queries), "up": (inner, hidden), "down": (hidden, inner)}
    if config.gated:
        shapes |= {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "gate": (inner, hidden)}
    else:
        shapes["qkv"] = (queries + 2 * keys, hidden)
    return {projection_name(config, layer, name): shape for layer in range(config.layers) for name, shape in shapes.items()}
