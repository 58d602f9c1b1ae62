"""The forward pass in C++ on processors: packs a model's weights for `native.cpp` and runs it over the paged cache.

It gives the hidden states and logits of `inference.model`. Sums are float32; what weights of bfloat16 or int8 are multiplied
with stays float32 too, unless the processor has instructions for bfloat16, which it is rounded to there. Everything
works without it: where there is no compiler, `library()` says so in the log and is None.
"""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor, nn

from inference.attention import Piece
from inference.building import NotBuilt, built
from inference.cache import BLOCK_SIZE
from inference.flash_runner import cuda_runner
from inference.lora import Adapter
from inference.model import GPT, Layer, PositionOutOfContext
from inference.prepacked import prepacked_runner
from inference.quantised import Int8Rows
from inference.runner import Runner, Watched, copy_blocks

log = structlog.get_logger(__name__)

PANEL = 16
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "gelu": 2}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled file; None where it cannot be had."""
    try:
        return opened(built())
    except (NotBuilt, OSError) as error:
        log.warning("the C++ path is not used", reason=str(error))
        return None


def opened(path: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    loaded.workspace_bytes.restype = ctypes.c_int64
    return loaded


# ---------------------------------------------------------------- the structures of native.cpp


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("packed", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("outs", ctypes.c_int64),
        ("ins", ctypes.c_int64),
        ("kind", ctypes.c_int32),
    ]


class _Norm(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p)]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Norm) for name in ("before_attention", "after_attention", "before_mlp", "after_mlp", "q", "k")),
        *((name, _Matrix) for name in ("qkv", "out", "up", "down")),
        ("window", ctypes.c_int64),
        ("rope", ctypes.c_int32),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        ("head", _Matrix),
        ("embedding", _Matrix),
        ("positions", ctypes.c_void_p),
        ("frequencies", ctypes.c_void_p),
        ("layers", ctypes.POINTER(_Layer)),
        ("last", _Norm),
        *((name, ctypes.c_int64) for name in ("layer_count", "hidden", "heads", "kv_heads", "head_dim", "inner")),
        *((name, ctypes.c_float) for name in ("norm_eps", "attention_scale", "embedding_scale")),
        *((name, ctypes.c_int32) for name in ("gated", "activation", "cache_kind")),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("blocks", ctypes.c_int64),
    ]


class _Adapter(ctypes.Structure):
    _fields_ = [("flat", ctypes.c_void_p), ("ranks", ctypes.c_void_p), ("starts", ctypes.c_void_p), ("kind", ctypes.c_int32)]


class _Step(ctypes.Structure):
    _fields_ = [
        ("tokens", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("pieces", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("piece_rows", "piece_counts", "piece_blocks", "blocks", "adapter_of")),
        ("adapters", ctypes.POINTER(_Adapter)),
        ("watched", ctypes.c_void_p),
        ("watched_rows", ctypes.c_void_p),
    ]


# ---------------------------------------------------------------- packing


def fits(model: GPT) -> bool:
    """Whether `native.cpp` can run this model where it is."""
    config = model.config
    return (
        model.embedding.weight.device.type == "cpu"
        and config.head_dim % PANEL == 0
        and config.hidden_size % 2 == 0
        and config.intermediate_size % PANEL == 0
    )


def pack(weight: Tensor) -> Tensor:
    """[out, in] to panels of 16 outputs, [out / 16, in, 16]; bfloat16 to [out / 16, in / 2, 16, 2]. Missing outputs are zero."""
    outs, ins = weight.shape
    if outs % PANEL:
        weight = torch.cat([weight, weight.new_zeros(PANEL - outs % PANEL, ins)])
    if weight.dtype == torch.bfloat16:
        return weight.view(-1, PANEL, ins // 2, 2).permute(0, 2, 1, 3).contiguous()
    return weight.view(-1, PANEL, ins).permute(0, 2, 1).contiguous()


def fastest_runner(model: GPT) -> Callable[[GPT, int], Runner]:
    if model.device.type == "cuda":
        return cuda_runner(model)
    return NativeRunner if fits(model) and library() is not None else prepacked_runner


class NativeRunner:
    """Steps of a model over a paged cache. Takes the model over: its weights are moved into packed form."""

    name = "native"
    device = torch.device("cpu")
    block_size = BLOCK_SIZE

    def __init__(self, model: GPT, blocks: int) -> None:
        found = library()
        if found is None:
            raise OSError("the C++ path cannot be had here")
        self._library = found
        self.blocks = blocks
        self.adapter_dtype = cache_dtype = model.dtype
        self.config = config = model.config
        self._kept: list[Any] = []  # what the structures point to
        shape = (config.layers, blocks + 1, config.kv_heads, config.head_dim * BLOCK_SIZE)
        self.keys, self.values = torch.zeros(shape, dtype=cache_dtype), torch.zeros(shape, dtype=cache_dtype)
        self._scores = torch.empty(0)
        self._workspace = torch.empty(0, dtype=torch.int8)
        self._ropes = list(model._frequencies)
        self._model = self._packed(model, blocks + 1)

    def hidden(
        self, tokens: Sequence[int], pieces: Sequence[Piece], adapters: Sequence[Adapter | None] | None, watched: Watched | None = None
    ) -> Tensor:
        n, threads = len(tokens), torch.get_num_threads()
        token_ids = array("q", tokens)
        positions, rows, counts, block_starts, blocks = array("q"), array("q"), array("q"), array("q"), array("q")
        longest, row = 0, 0
        for piece in pieces:
            self._check(piece)
            positions.extend(range(piece.start, piece.end))
            rows.append(row)
            counts.append(piece.count)
            block_starts.append(len(blocks))
            blocks.extend(piece.blocks)
            row += piece.count
            longest = max(longest, len(piece.blocks) * BLOCK_SIZE)
        step = _Step(
            *(_address(numbers) for numbers in (token_ids, positions)), n, len(pieces),
            *(_address(numbers) for numbers in (rows, counts, block_starts, blocks)),
        )  # fmt: skip
        kept = [*self._adapt(step, pieces, adapters), *self._watch(step, n, watched)]
        hidden = torch.empty(n, self.config.hidden_size)
        need = self._library.workspace_bytes(
            ctypes.byref(self._model),
            ctypes.c_int64(n),
            ctypes.c_int64(len(pieces)),
            ctypes.c_int64(len(self._ropes)),
            ctypes.c_int32(threads),
        )
        if self._workspace.nbytes < need + 64:
            self._workspace = torch.empty(need + 64, dtype=torch.int8)
        if len(self._scores) < (want := threads * self._library.rows_at_once() * longest):
            self._scores = torch.empty(2 * want)
        self._library.forward(
            ctypes.byref(self._model),
            ctypes.byref(step),
            ctypes.c_void_p(hidden.data_ptr()),
            ctypes.c_void_p(-(-self._workspace.data_ptr() // 64) * 64),
            ctypes.c_void_p(self._scores.data_ptr()),
            ctypes.c_int64(longest),
            ctypes.c_int64(len(self._ropes)),
            ctypes.c_int32(threads),
        )
        del kept
        return hidden

    def _watch(self, step: _Step, n: int, watched: Watched | None) -> list[Any]:
        """Points the step to where the queries and keys of the watched layers go; returns what must live as long as the step."""
        if watched is None:
            return []
        config, layers = self.config, sorted(watched.layers)
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        slots = array("i", [layers.index(layer) if layer in watched.layers else -1 for layer in range(config.layers)])
        rows = torch.empty(len(layers), n, queries + keys)
        for layer, its in zip(layers, rows, strict=True):
            q, k = its.split([queries, keys], dim=-1)
            watched.seen[layer] = q.view(n, -1, config.head_dim), k.view(n, -1, config.head_dim)  # filled by the step
        step.watched, step.watched_rows = _address(slots), rows.data_ptr()
        return [slots, rows]

    def _check(self, piece: Piece) -> None:
        if piece.start < 0 or piece.end > self.config.context_length:
            said = f"positions {piece.start} to {piece.end - 1} are not all inside the model's context of {self.config.context_length}"
            raise PositionOutOfContext(said)

    def expect(self, adapter: Adapter) -> None:
        """It is read where it is."""

    def bound_stacks(self, size_bytes: int) -> None:
        """There are none."""

    def logits(self, hidden: Tensor) -> Tensor:
        hidden = hidden.contiguous()
        logits = torch.empty(len(hidden), self.config.vocab_size)
        self._library.multiply(
            ctypes.byref(self._model.head),
            ctypes.c_void_p(hidden.data_ptr()),
            ctypes.c_void_p(logits.data_ptr()),
            ctypes.c_int64(len(hidden)),
            ctypes.c_int32(torch.get_num_threads()),
        )
        return logits

    def zero(self, blocks: Sequence[int]) -> None:
        where = torch.tensor(blocks)
        self.keys.index_fill_(1, where, 0)
        self.values.index_fill_(1, where, 0)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        copy_blocks(self.keys, self.values, pairs)

    def _adapt(self, step: _Step, pieces: Sequence[Piece], adapters: Sequence[Adapter | None] | None) -> list[Any]:
        """Points the step to its adapters; returns what must live as long as the step."""
        if adapters is None:
            return []
        number_of: dict[int, int] = {}
        held: list[Adapter] = []
        of_row = array("i")
        for piece, adapter in zip(pieces, adapters, strict=True):
            number = -1
            if adapter is not None:
                number = number_of.setdefault(id(adapter), len(held))
                if number == len(held):
                    held.append(adapter)
            of_row.extend([number] * piece.count)
        table = (_Adapter * len(held))(
            *(_Adapter(a.flat.data_ptr(), a.ranks.data_ptr(), a.starts.data_ptr(), KINDS[a.flat.dtype]) for a in held)
        )
        step.adapter_of = _address(of_row)
        step.adapters = table
        return [of_row, table]

    # ------------------------------------------------------------ the model in packed form

    def _packed(self, model: GPT, blocks: int) -> _Model:
        config = model.config
        layers = (_Layer * config.layers)(*(self._layer(layer) for layer in model.layers))  # type: ignore[arg-type]
        self._kept.append(layers)
        head = self._matrix(model.embedding if config.tied else model.head)
        embedding = _Matrix() if config.tied else self._matrix(model.embedding)
        return _Model(
            head=head,
            embedding=embedding,
            positions=self._pointer(model.positions.weight.float()) if config.learned_positions else None,
            frequencies=self._pointer(torch.stack([model._frequencies[rope] for rope in self._ropes])) if self._ropes else None,
            layers=layers,
            last=self._norm(model.norm),
            layer_count=config.layers,
            hidden=config.hidden_size,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            inner=config.intermediate_size,
            norm_eps=config.norm_eps,
            attention_scale=config.query_scale * config.head_dim**-0.5,
            embedding_scale=config.embedding_scale,
            gated=config.gated,
            activation=ACTIVATIONS[config.activation],
            cache_kind=KINDS[self.keys.dtype],
            keys=self.keys.data_ptr(),
            values=self.values.data_ptr(),
            blocks=blocks,
        )

    def _layer(self, layer: Layer) -> _Layer:
        parts = layer.projections
        return _Layer(
            before_attention=self._norm(layer.attention_norm),
            after_attention=self._norm(layer.attention_post_norm),
            before_mlp=self._norm(layer.mlp_norm),
            after_mlp=self._norm(layer.mlp_post_norm),
            q=self._norm(layer.q_norm) if layer.config.qk_norm else _Norm(),
            k=self._norm(layer.k_norm) if layer.config.qk_norm else _Norm(),
            qkv=self._matrix(*([parts["qkv"]] if "qkv" in parts else [parts["q"], parts["k"], parts["v"]])),
            out=self._matrix(parts["out"]),
            up=self._matrix(*([parts["gate"], parts["up"]] if "gate" in parts else [parts["up"]])),
            down=self._matrix(parts["down"]),
            window=layer.config.windows[layer.number] or 0,
            rope=0 if layer.rope is None else self._ropes.index(layer.rope),
        )

    def _norm(self, norm: Any) -> _Norm:
        if isinstance(norm, nn.Identity):
            return _Norm()
        bias = getattr(norm, "bias", None)
        return _Norm(self._pointer(norm.weight.float()), None if bias is None else self._pointer(bias.float()))

    def _matrix(self, *modules: Any) -> _Matrix:
        """The modules' weights as one matrix, their outputs side by side; the modules are left without them."""
        weights = [module.weight.data for module in modules]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        scales = [module.scale.float() for module in modules if isinstance(module, Int8Rows)]
        biases = [module.bias.float() for module in modules if getattr(module, "bias", None) is not None]
        outs, ins = weight.shape
        packed = pack(weight)
        for module in modules:
            module.weight = nn.Parameter(torch.empty(0, dtype=packed.dtype), requires_grad=False)
        return _Matrix(
            packed=self._pointer(packed),
            scale=self._pointer(torch.cat(scales)) if scales else None,
            bias=self._pointer(torch.cat(biases)) if biases else None,
            outs=outs,
            ins=ins,
            kind=KINDS[packed.dtype],
        )

    def _pointer(self, tensor: Tensor) -> int:
        tensor = tensor.detach().contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def _address(numbers: array[int]) -> int:
    return numbers.buffer_info()[0]
