"""One GPT for the GPT-2 and Llama families and Gemma 3: what differs between them is a field of the config.

    hidden = model(tokens, positions, attention)    # [n, hidden]
    logits = model.logits(hidden)                   # [n, vocabulary]

Tokens come flattened: sequences and parts of sequences stand one behind the other in one row of n tokens, and only the
attention the caller gives knows where each begins and which earlier keys and values it may see. So the model is the same
in training, scoring and serving, on CPU and CUDA.

The stream that the layers add to stays float32 and so do the norms, whatever the matrices are kept in: with bfloat16
matrices that was measured to bring the output of SmolLM2-135M four times nearer to float32 (KL 0.0004 against 0.0015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.config import GPTConfig, Rope, RopeScaling
from inference.naming import projection_name
from inference.quantised import product, rows

Rotation = tuple[Tensor, Tensor]  # cosine of each token's angles and what its other half is times, float32 [n, 1, head_dim]
PART = 32  # of a row of logits, of which the largest is sought first; 256 took twice the time to find the best of 32 rows


class PositionOutOfContext(ValueError):
    """A token stands further on than the model's context reaches."""


class Attention(Protocol):
    """softmax(QKᵀ/√d)V over the keys and values each token may see."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
        """q: [n, heads, head_dim]; k, v: [n, kv_heads, head_dim]; returns [n, heads, head_dim].

        `window` is how many positions a token sees in this layer, itself included; None: all before it.
        """
        ...


class LoraPath(Protocol):
    """The adapters of a mixed batch."""

    def add(self, projection: str, x: Tensor, y: Tensor) -> Tensor:
        """y plus what each token's adapter adds to this projection of x; x: [n, in], y: [n, out]."""
        ...


class GPT(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = _embedding(config.vocab_size, config.hidden_size)
        if config.learned_positions:
            self.positions = _embedding(config.context_length, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))
        self.norm = _norm(config, config.hidden_size)
        if not config.tied:
            self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.packed_head: nn.Module | None = None  # the head once more, in a form that is the faster to multiply with
        ropes = {rope for layer in range(config.layers) if (rope := config.layer_rope(layer)) is not None}
        # Not buffers: they stay float32 when the model is cast.
        self._frequencies = {rope: rope_frequencies(rope, config.head_dim) for rope in ropes}

    @property
    def dtype(self) -> torch.dtype:
        """What the matrices take and give, and keys and values are kept in. Matrices of int8 take bfloat16."""
        kept: torch.dtype = self.embedding.weight.dtype
        return torch.bfloat16 if kept == torch.int8 else kept

    @property
    def device(self) -> torch.device:
        device: torch.device = self.embedding.weight.device
        return device

    def forward(self, tokens: Tensor, positions: Tensor, attention: Attention, lora: LoraPath | None = None) -> Tensor:
        """tokens, positions: [n]; returns the normed hidden states, float32 [n, hidden].

        Raises PositionOutOfContext; on CUDA the caller keeps positions within the context, since to ask the device is to wait.
        """
        self._check(positions)
        hidden = self._embed(tokens, positions)
        rotations = {rope: self._rotation(rope, positions) for rope in self._frequencies}
        for layer in self._layers():
            rotation = None if layer.rope is None else rotations[layer.rope]
            hidden = layer(hidden, rotation, attention, lora, self.dtype)
        return self.norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, hidden] to [n, vocabulary]; in the dtype of the model."""
        x = hidden.to(self.dtype)
        return product(self._head, x) if self.packed_head is None else self.packed_head(x)

    def sharp_logits(self, hidden: Tensor, *, best: int = 64) -> Tensor:
        """Float32 logits of which the `best` of each row are exact, for choosing tokens.

        A bfloat16 logit of 25 is a multiple of 1/8, so the first and second best often look equal.
        """
        logits = self.logits(hidden).float()
        if self.dtype == torch.float32:
            return logits
        ids = best_of(logits, min(best, logits.shape[-1]))
        exact = torch.matmul(rows(self._head, ids), hidden.float()[:, :, None]).squeeze(-1)
        return logits.scatter_(-1, ids, exact)

    @property
    def head_weight(self) -> Tensor:
        """[vocabulary, hidden], the embedding's where they are tied."""
        return cast(Tensor, self._head.weight)

    @property
    def _head(self) -> nn.Module:
        return self.embedding if self.config.tied else self.head

    def projections(self) -> dict[str, nn.Module]:
        """Every projection by its Hugging Face module name, which is also what PEFT calls it."""
        return {layer.names[name]: module for layer in self._layers() for name, module in layer.projections.items()}

    def _layers(self) -> list[Layer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _check(self, positions: Tensor) -> None:
        if positions.device.type != "cpu" or not len(positions):
            return
        first, last = (int(position) for position in positions.aminmax())
        if first < 0 or last >= self.config.context_length:
            raise PositionOutOfContext(
                f"position {first if first < 0 else last} is outside the model's context of {self.config.context_length}"
            )

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """What the layers add to, float32 [n, hidden]."""
        hidden = self.embedding(tokens).float()
        if self.config.embedding_scale != 1.0:
            hidden = hidden * self.config.embedding_scale
        return hidden + self.positions(positions) if self.config.learned_positions else hidden

    def _rotation(self, rope: Rope, positions: Tensor) -> Rotation:
        if self._frequencies[rope].device != positions.device:
            self._frequencies[rope] = self._frequencies[rope].to(positions.device)
        angles = (positions[:, None].float() * self._frequencies[rope])[:, None]
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat((cosine, cosine), dim=-1), torch.cat((-sine, sine), dim=-1)


class Layer(nn.Module):
    """Attention and MLP, each normed before, in Gemma 3 behind too, and added to the stream."""

    def __init__(self, config: GPTConfig, number: int) -> None:
        super().__init__()
        self.config = config
        self.number = number
        self.rope = config.layer_rope(number)
        hidden, queries, keys = config.hidden_size, config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.attention_norm = _norm(config, hidden)
        self.mlp_norm = _norm(config, hidden)
        self.attention_post_norm = _norm(config, hidden) if config.post_norms else nn.Identity()
        self.mlp_post_norm = _norm(config, hidden) if config.post_norms else nn.Identity()
        if config.qk_norm:
            self.q_norm = _norm(config, config.head_dim)
            self.k_norm = _norm(config, config.head_dim)
        projections: dict[str, nn.Module] = {}
        if config.learned_positions:
            projections["qkv"] = nn.Linear(hidden, queries + 2 * keys, bias=config.qkv_bias)
        else:
            projections["q"] = nn.Linear(hidden, queries, bias=config.qkv_bias)
            projections["k"] = nn.Linear(hidden, keys, bias=config.qkv_bias)
            projections["v"] = nn.Linear(hidden, keys, bias=config.qkv_bias)
        projections["out"] = nn.Linear(queries, hidden, bias=config.out_bias)
        if config.gated:
            projections["gate"] = nn.Linear(hidden, config.intermediate_size, bias=config.mlp_bias)
        projections["up"] = nn.Linear(hidden, config.intermediate_size, bias=config.mlp_bias)
        projections["down"] = nn.Linear(config.intermediate_size, hidden, bias=config.mlp_bias)
        self.projections = nn.ModuleDict(projections)
        # Those that were laid side by side for serving, and are no longer among the projections: by their names, in their order.
        self.together: dict[tuple[str, ...], nn.Module] = {}
        self.inner: Callable[[Tensor], Tensor] | None = None  # all of the MLP before `down`, where one operation can do more of it
        # In this layer's own words -> in Hugging Face's.
        self.names = {name: projection_name(config, number, name) for name in projections}

    def forward(self, hidden: Tensor, rotation: Rotation | None, attention: Attention, lora: LoraPath | None, dtype: torch.dtype) -> Tensor:
        """hidden: float32 [n, hidden]; `dtype` is that of the matrices."""
        q, k, v = self.before(hidden, rotation, lora, dtype)
        seen = attention(self.number, q, k, v, window=self.config.windows[self.number])
        return self.behind(hidden, seen, lora, dtype)

    def before(self, hidden: Tensor, rotation: Rotation | None, lora: LoraPath | None, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as attention takes them."""
        q, k, v = self._queries_keys_values(self.attention_norm(hidden).to(dtype), lora)
        if self.config.qk_norm:
            q, k = self.q_norm(q.float()).to(q.dtype), self.k_norm(k.float()).to(k.dtype)
        if self.config.query_scale != 1.0:
            q = q * self.config.query_scale
        if rotation is not None:
            q, k = rotate(q, k, *rotation)
        return q, k, v

    def behind(self, hidden: Tensor, seen: Tensor, lora: LoraPath | None, dtype: torch.dtype) -> Tensor:
        """What the next layer takes; seen: [n, heads, head_dim]."""
        (attended,) = self._project(seen.flatten(1), lora, "out")
        hidden = hidden + self.attention_post_norm(attended.float())
        added = self._mlp(self.mlp_norm(hidden).to(dtype), lora)
        return hidden + cast(Tensor, self.mlp_post_norm(added.float()))

    def _queries_keys_values(self, x: Tensor, lora: LoraPath | None) -> tuple[Tensor, Tensor, Tensor]:
        heads, kv_heads, head_dim = self.config.heads, self.config.kv_heads, self.config.head_dim
        if "qkv" in self.projections:
            (qkv,) = self._project(x, lora, "qkv")
            q, k, v = qkv.split([heads * head_dim, kv_heads * head_dim, kv_heads * head_dim], dim=-1)
        else:
            q, k, v = self._project(x, lora, "q", "k", "v")
        return q.reshape(-1, heads, head_dim), k.reshape(-1, kv_heads, head_dim), v.reshape(-1, kv_heads, head_dim)

    def _mlp(self, x: Tensor, lora: LoraPath | None) -> Tensor:
        if self.inner is not None and lora is None:
            inner = self.inner(x)
        elif self.config.gated:
            gate, up = self._project(x, lora, "gate", "up")
            inner = activate(gate, self.config.activation) * up
        else:
            (up,) = self._project(x, lora, "up")
            inner = activate(up, self.config.activation)
        (down,) = self._project(inner, lora, "down")
        return down

    def _project(self, x: Tensor, lora: LoraPath | None, *names: str) -> Sequence[Tensor]:
        """What each of these projections makes of x."""
        together = self.together.get(names)
        ys: Sequence[Tensor] = [self.projections[name](x) for name in names] if together is None else together(x)
        return ys if lora is None else [lora.add(self.names[name], x, y) for name, y in zip(names, ys, strict=True)]


def _embedding(rows: int, size: int) -> nn.Embedding:
    """Without first numbers, which all come from a file: to draw them on the meta device loads torch's compiler, 2 s of each start."""
    return nn.Embedding.from_pretrained(torch.empty(rows, size), freeze=False)


class RMSNorm(nn.RMSNorm):
    """x / √(mean(x²) + eps) · weight: on processors, as its gradient, in half of the operations that torch's own takes."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps=eps)
        self._eps = torch.tensor(eps, device="cpu")

    def forward(self, x: Tensor) -> Tensor:
        """x: float32 [..., size]"""
        if x.device.type != "cpu":
            return super().forward(x)
        if x.requires_grad:
            return cast(Tensor, _NormedByRoot.apply(x, self.weight, self._eps))
        return x * _inverse_root(x, self._eps) * self.weight


class _NormedByRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
        scale = _inverse_root(x, eps)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        along = grad * weight
        behind = (along * x).sum(dim=-1, keepdim=True).mul_(scale.pow(3)).div_(-x.shape[-1])
        weight_grad = (grad * x).mul_(scale).flatten(0, -2).sum(dim=0) if ctx.needs_input_grad[1] else None
        return along.mul_(scale).addcmul_(x, behind), weight_grad, None


def _inverse_root(x: Tensor, eps: Tensor) -> Tensor:
    """1 / √(mean(x²) + eps) of each row."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt_()


def _norm(config: GPTConfig, size: int) -> nn.Module:
    return RMSNorm(size, config.norm_eps) if config.gated else nn.LayerNorm(size, eps=config.norm_eps)


def best_of(logits: Tensor, count: int) -> Tensor:
    """Where the `count` largest of each row stand, in no order: int64 [n, count]. logits: [n, v].

    They are in the parts of PART with the largest maxima, or behind the last whole part; only those are sorted.
    """
    n, v = logits.shape
    parts = v // PART
    if parts <= count:
        return logits.topk(count, dim=-1).indices
    places = torch.arange(v, device=logits.device)
    by_part, left = places[: parts * PART].view(parts, PART), places[parts * PART :]
    tops = logits[:, : parts * PART].unflatten(1, (parts, PART)).amax(-1).topk(count, dim=-1).indices
    ids = torch.cat((by_part[tops].flatten(1), left.expand(n, -1)), dim=-1)
    return ids.gather(-1, logits.gather(-1, ids).topk(count, dim=-1).indices)


def activate(x: Tensor, activation: str) -> Tensor:
    if activation == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def rotate(q: Tensor, k: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary position embedding, pairing each dimension with the one half a head away (Hugging Face's layout).

    q: [n, heads, head_dim]; k: [n, kv_heads, head_dim]; cosine, sine: float32 [n, 1, head_dim], the sine of the first half of the
    dimensions negative.
    """
    wide = torch.cat((q, k), dim=1).float()
    turned = (wide * cosine).addcmul(wide.roll(wide.shape[-1] // 2, dims=-1), sine).to(q.dtype)
    return turned[:, : q.shape[1]], turned[:, q.shape[1] :]


def rope_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Radians per position of each pair of dimensions, float32 [head_dim / 2]."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    scaling = rope.scaling
    if scaling is None:
        return frequencies
    return frequencies / scaling.factor if scaling.kind == "linear" else _llama3_frequencies(frequencies, scaling)


def _llama3_frequencies(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: waves longer than the first context are stretched, short ones kept, those between blended."""
    turns = scaling.original_context_length * frequencies / (2 * math.pi)  # over the first context
    kept = ((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies
