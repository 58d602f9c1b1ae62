"""A whole Llama of 0.1M random weights, with a tokenizer trained here and a chat template: made in milliseconds.

It never ends an answer by itself, so a test that wants a long one gets it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from inference import naming
from inference.config import GPTConfig
from inference.model import GPT

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 448
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CORPUS = (
    "Hello! How can I help you today? Tell me what you want to know, and I will answer as well as I can.",
    "A store for models: find one, ask it something, read the answer, rate it.",
    "The capital of France is Paris. Water boils at one hundred degrees. system user assistant",
    "你好,今天想问什么?我会尽量回答。模型商店:找一个,问一问,读一读。",
    "Ça va? Grüße! 😀 🎉 naïve café",
)


@lru_cache
def tokenizer_json() -> str:
    """A byte-level BPE tokenizer with VOCABULARY tokens, as `tokenizer.json` holds it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for text in CORPUS for _ in range(3)], trainer)
    return tokenizer.to_str()


def tiny_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    } | changes


def tiny_base(folder: Path, *, seed: int = 1, **changes: Any) -> Path:
    """Writes the model's folder and returns it. `changes` are of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = tiny_config(**changes)
    write_json(folder / "config.json", raw)
    save_file(random_weights(GPTConfig.from_json(raw), seed=seed), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": START,
            "eos_token": END,
            "pad_token": END,
            "unk_token": END_OF_TEXT,
            "model_max_length": raw["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 0]})
    return folder


def tiny_adapter(folder: Path, base_folder: Path, *, seed: int = 1, rank: int = 4, **changes: Any) -> Path:
    """Writes a PEFT LoRA folder for a base, strong enough to change its answers. `changes` are of adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = GPTConfig.from_folder(base_folder)
    raw = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "inference_mode": True,
    } | changes
    write_json(folder / "adapter_config.json", raw)
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = GPT(config)
    tensors = {}
    for name, module in model.projections().items():
        if name.rpartition(".")[2] in raw["target_modules"]:
            outs, ins = module.weight.shape
            tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, ins, generator=random) / ins**0.5
            tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(outs, rank, generator=random)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def random_weights(config: GPTConfig, *, seed: int) -> dict[str, torch.Tensor]:
    """Weights under their Hugging Face names; the head gives only tokens that are whole characters a chance to be the best."""
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = GPT(config)
    weights = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            weight = torch.ones(parameter.shape) - naming.norm_offset(config)
        else:
            scale = 1.0 if name.startswith(("embedding", "head")) else parameter.shape[1] ** -0.5
            weight = torch.randn(parameter.shape, generator=random) * scale
        if name == "head.weight":
            tokenizer = Tokenizer.from_str(tokenizer_json())
            texts = [tokenizer.decode([token]) for token in range(config.vocab_size)]
            weight[[not text.isprintable() or not text or "\ufffd" in text for text in texts]] = 0
        weights[naming.outer_name(config, name)] = weight
    return weights


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
