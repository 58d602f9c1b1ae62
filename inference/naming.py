"""How checkpoints and adapters name the parts of a model, beside what `inference.model` calls them.

The same names serve reading and writing Hugging Face checkpoints and PEFT adapters, for all families.
"""

from __future__ import annotations

from inference.config import GEMMA, GPTConfig

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
GEMMA_LAYER = LLAMA_LAYER | {
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
GPT2_LAYER = {
    "attention_norm": "ln_1",
    "mlp_norm": "ln_2",
    "projections.qkv": "attn.c_attn",
    "projections.out": "attn.c_proj",
    "projections.up": "mlp.c_fc",
    "projections.down": "mlp.c_proj",
}
LLAMA_TOP = {"embedding": "embed_tokens", "norm": "norm"}
GPT2_TOP = {"embedding": "wte", "positions": "wpe", "norm": "ln_f"}
PREFIX = {"gpt2": "transformer.", "gemma3": "model.language_model."}
SEES_PICTURES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


def prefix(config: GPTConfig) -> str:
    """What a model with a head puts before the names of the bare model's modules."""
    return PREFIX.get(config.architecture, "model.")


def projection_name(config: GPTConfig, layer: int, projection: str) -> str:
    """The Hugging Face module name of a projection, such as `model.layers.0.self_attn.q_proj`."""
    return outer_name(config, f"layers.{layer}.projections.{projection}")


def outer_name(config: GPTConfig, inner: str) -> str:
    """The Hugging Face name of a module or, with `.weight` or `.bias` behind it, of a parameter of `GPT`."""
    module, leaf = inner, ""
    if inner.endswith((".weight", ".bias")):
        module, _, leaf = inner.rpartition(".")
        leaf = f".{leaf}"
    if module == "head":
        return "lm_head" + leaf
    gpt2 = config.architecture == "gpt2"
    if not module.startswith("layers."):
        return prefix(config) + (GPT2_TOP if gpt2 else LLAMA_TOP)[module] + leaf
    _, number, part = module.split(".", 2)
    if gpt2:
        return f"{prefix(config)}h.{number}.{GPT2_LAYER[part]}{leaf}"
    return f"{prefix(config)}layers.{number}.{(GEMMA_LAYER if config.post_norms else LLAMA_LAYER)[part]}{leaf}"


def filed_name(config: GPTConfig, outer: str) -> str | None:
    """The module's name of a tensor found in a file: files of models that see pictures use another. None: not of the text model."""
    if config.architecture != "gemma3":
        return outer
    if outer.startswith(SEES_PICTURES):
        return None
    if outer.startswith("language_model.model."):
        return prefix(config) + outer.removeprefix("language_model.model.")
    return outer.removeprefix("language_model.")


def norm_offset(config: GPTConfig) -> float:
    """What is added to the stored weights of norms: Gemma keeps them as their difference from one."""
    return 1.0 if config.architecture in GEMMA else 0.0


def is_transposed(config: GPTConfig, inner: str) -> bool:
    """GPT-2 keeps its projections as [in, out] (Conv1D); everything else is [out, in]."""
    return config.architecture == "gpt2" and ".projections." in inner and inner.endswith(".weight")


def projection_shapes(config: GPTConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of every projection by its Hugging Face module name, in the order of `GPT.projections`."""
    hidden, queries, keys = config.hidden_size, config.heads * config.head_dim, config.kv_heads * config.head_dim
    inner = config.intermediate_size
    if config.gated:
        shapes = {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "out": (hidden, queries), "gate": (inner, hidden)}
    else:
        shapes = {"qkv": (queries + 2 * keys, hidden), "out": (hidden, queries)}
    shapes |= {"up": (inner, hidden), "down": (hidden, inner)}
    return {projection_name(config, layer, name): shape for layer in range(config.layers) for name, shape in shapes.items()}
