"""A GPT from nothing: a tokenizer trained on the corpus, a Llama of a chosen size with random weights, then the one loop.

What is begun with is a checkpoint like any other (`begin`), and follows from the corpus, the shape and the seed alone; so a run
that is taken up makes it again. The tokenizer is byte-level BPE, as GPT-2's, with every digit a token of its own, as
SmolLM2's. Its one special token ends each text, and stands for the beginning where a program asks for one. It brings no chat
template: the model has read no conversation, and whoever talks to it gets `tokenizer.PLAIN_TEMPLATE`, as with every base
that was never taught to chat.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from inference import naming, training
from inference.checkpoint import SINGLE
from inference.config import GPTConfig, UnsupportedModel
from inference.datasets import readable_texts, texts
from inference.job_process import JobError
from inference.model import GPT
from inference.protocol import JobTask
from inference.recipe import Recipe
from inference.workbench import Workbench, explained

END = "<|endoftext|>"
LEAST_VOCABULARY = 256 + 1  # every byte, and the end
SEEN_TWICE = 2  # what stands once in a corpus is no word of it
SPREAD = 0.02  # standard deviation of the weights (Radford et al., 2019)
WIDENED = 64  # the MLP's width is a multiple of this
SAID_EVERY_TEXTS = 200
DEFAULTS: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 16}
FIXED: dict[str, Any] = {"method": "text", "scope": "weights"}


@dataclass(frozen=True)
class Shape:
    """How large the model is. `vocabulary` is the most tokens there may be: a small corpus gives fewer."""

    layers: int = 6
    hidden: int = 384
    heads: int = 6
    vocabulary: int = 4096
    context: int = 512

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shape:
        """Raises JobError for what is not known and for sizes of which no model can be made."""
        if unknown := sorted(value.keys() - {field.name for field in fields(cls)}):
            raise JobError("setting_unknown", f"The worker does not know the size {unknown[0]!r}; it may be older than the store.")
        shape = cls(**value)
        for name, size in asdict(shape).items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise _unusable(f"{name} must be a whole number from 1, not {size!r}.")
        if shape.vocabulary < LEAST_VOCABULARY:
            raise _unusable(f"The vocabulary needs at least {LEAST_VOCABULARY} tokens: one for every byte, and one for the end.")
        if shape.hidden % (2 * shape.heads):
            raise _unusable(f"A hidden size of {shape.hidden} is not {shape.heads} heads of an even size.")
        try:
            GPTConfig.from_json(shape.config(shape.vocabulary))
        except UnsupportedModel as error:
            raise _unusable(f"{error}.") from error
        return shape

    def config(self, vocabulary: int) -> dict[str, Any]:
        """`config.json` of a Llama that has so many tokens."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": math.ceil(self.hidden * 8 / 3 / WIDENED) * WIDENED,  # as many weights as an MLP four times as wide
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.hidden // self.heads,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "rope_theta": 10_000.0,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "initializer_range": SPREAD,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "torch_dtype": "float32",
        }


def _unusable(message: str) -> JobError:
    return JobError("setting_unusable", message)


def recipe_of(given: Mapping[str, Any], shape: Shape) -> Recipe:
    """All weights learn how texts go on, in pieces as long as the context where nothing else is said. Raises JobError."""
    recipe = Recipe.from_json({**DEFAULTS, "max_length": shape.context, **given, **FIXED})
    if recipe.max_length > shape.context:
        raise _unusable(f"Pieces of {recipe.max_length} tokens do not fit into a context of {shape.context}.")
    return recipe


def run(task: JobTask, bench: Workbench) -> dict[str, Any]:
    """Trains to the end and stores the model; its digest and what was measured."""
    shape = Shape.from_json(task.params["shape"])
    recipe = recipe_of(task.params["settings"], shape)
    corpus, name = bench.file(task.params["file"]), task.params.get("name", "")
    with explained():
        source = begin(bench.work / "begun", corpus, shape, seed=recipe.seed, name=name, read=lambda: bench.channel.progress("reading"))
    return training.train(task, bench, recipe=recipe, source=source, data=corpus, asked=task.params.get("prompts"))


def begin(folder: Path, corpus: Path, shape: Shape, *, seed: int, name: str = "", read: Callable[[], object] = lambda: None) -> Path:
    """Writes the folder of a model that has learned nothing yet, and returns it.

    `read` is called now and then while the corpus is read. Raises UnusableDataset.
    """
    config = begin_without_weights(folder, _watched(texts(corpus, name=name), read), shape)
    weights = {naming.outer_name(config, inner): weight for inner, weight in random_weights(config, seed=seed).items()}
    save_file(weights, folder / SINGLE, metadata={"format": "pt"})
    return folder


def begin_without_weights(folder: Path, corpus: Iterator[str], shape: Shape) -> GPTConfig:
    """Writes the tokenizer and the configuration of that model: enough to see what it would read."""
    tokenizer = train_tokenizer(corpus, size=shape.vocabulary)
    raw = shape.config(tokenizer.get_vocab_size())
    config = GPTConfig.from_json(raw)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "model_max_length": shape.context}
    _write(folder / "tokenizer_config.json", {**described, "clean_up_tokenization_spaces": False})
    _write(folder / "config.json", raw)
    _write(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})
    return config


def source_of(bench: Workbench, corpus: Path, shape: Shape, *, name: str = "") -> Path:
    """The folder of what a model of this shape would read the corpus with, as far as the corpus can be read: for its check."""
    read = _watched(readable_texts(corpus, name=name), lambda: bench.channel.progress("validating"))
    begin_without_weights(bench.work / "begun", read, shape)
    return bench.work / "begun"


def train_tokenizer(corpus: Iterator[str], *, size: int) -> tokenizers.Tokenizer:
    """Byte-level BPE of at most `size` tokens, END the first of them. The same corpus always gives the same tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=SEEN_TWICE,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def random_weights(config: GPTConfig, *, seed: int) -> dict[str, Tensor]:
    """By their names in `GPT`, float32: normal with SPREAD, norms 1, and what adds to the stream smaller by √(2 · layers), so
    that the stream is as strong after all layers as it would be after one (Radford et al., 2019, section 2.3).
    """
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = GPT(config)
    adds = ("projections.out.weight", "projections.down.weight")
    weights = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            weights[name] = torch.ones(parameter.shape)
            continue
        spread = SPREAD / math.sqrt(2 * config.layers) if name.endswith(adds) else SPREAD
        weights[name] = torch.empty(parameter.shape).normal_(0.0, spread, generator=random)
    return weights


def _watched(found: Iterator[str], read: Callable[[], object]) -> Iterator[str]:
    for number, text in enumerate(found):
        if number % SAID_EVERY_TEXTS == 0:
            read()
        yield text


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
