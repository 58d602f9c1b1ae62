"""The same weights as a GGUF file, so that llama.cpp answers with the model everybody else has.

Prompts are token ids in every benchmark, so the file carries no vocabulary. Matrices are BF16 or Q8_0 as
`llama-quantize` makes them (the shared embedding included), norms are float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
from safetensors import safe_open

KINDS = {"BF16": gguf.GGMLQuantizationType.BF16, "Q8_0": gguf.GGMLQuantizationType.Q8_0}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_of(folder: Path, kind: str, cache: Path) -> Path:
    """The file for a Llama checkpoint folder, written on the first call. Raises SystemExit for other architectures."""
    path = cache / f"{folder.name}-{kind}.gguf"
    source = folder / "model.safetensors"
    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        _write(source, json.loads((folder / "config.json").read_text(encoding="utf-8")), kind, unfinished)
        unfinished.rename(path)
    return path


def _write(source: Path, config: dict[str, Any], kind: str, path: Path) -> None:
    if config["architectures"] != ["LlamaForCausalLM"]:
        raise SystemExit(f"A GGUF file is written only for Llama checkpoints, and this is {config['architectures']}.")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    with safe_open(source, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            tensor = opened.get_tensor(name).to(torch.float32).numpy()
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                tensor = _interleave(tensor, heads if "q_proj" in name else kv_heads)
            as_kind = KINDS[kind] if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(_ggml_name(name), gguf.quants.quantize(tensor, as_kind), raw_dtype=as_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _ggml_name(name: str) -> str:
    """model.layers.3.mlp.up_proj.weight -> blk.3.ffn_up.weight"""
    module = name.removesuffix(".weight")
    if module in TOP_NAMES:
        return f"{TOP_NAMES[module]}.weight"
    number, _, part = module.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{LAYER_NAMES[part]}.weight"


def _interleave(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """[heads * head_dim, in] with the rotary pairs side by side, as ggml turns them, instead of half a head apart."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)
