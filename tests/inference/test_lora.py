"""LoRA adapters beside PEFT's own, several in one batch, and the refusal of those that would answer wrongly."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from inference.attention import CausalAttention
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.lora import Adapter
from inference.lora_batch import LoraBatch, Stacks
from inference.lora_settings import AdapterError, LoraSettings
from inference.model import GPT
from inference.naming import projection_shapes
from tests.inference.test_model import FAMILIES
from tests.inference.tiny import tiny_adapter, tiny_base, write_json

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENS = torch.arange(30) * 7 % 97


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path) -> GPT:
    return load_gpt(base, dtype=torch.float32)


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    return tiny_adapter(tmp_path / "adapter", base)


def logits_of(model: GPT, tokens: torch.Tensor, lora: LoraBatch | None = None) -> torch.Tensor:
    return model.logits(model(tokens, torch.arange(len(tokens)), CausalAttention([len(tokens)]), lora))


@torch.inference_mode()
def merge(model: GPT, adapter: Adapter) -> None:
    for name, module in model.projections().items():
        if name in adapter.parts:
            a, b = adapter.parts[name]
            module.weight.add_(b.t() @ a)  # type: ignore[operator]


def error_between(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max())


# ---------------------------------------------------------------- the same as PEFT

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8},
    "rslora": {"r": 16, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {r"(?:layers|h)\.0\..*": 12, "o_proj": 9, "q_proj": 1},
        "alpha_pattern": {"down_proj": 1, r"mlp\.(c_proj|up_proj)": 3},
        "use_rslora": True,
    },
}


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match")  # not every family has every name
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_unmerged_merged_and_pefts_logits_agree(family: str, settings: str, tmp_path: Path) -> None:
    name, shape = FAMILIES[family]
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**shape)).float().eval()
    theirs.save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(
        target_modules="all-linear", fan_in_fan_out=family == "gpt2", init_lora_weights=False, task_type="CAUSAL_LM", **SETTINGS[settings]
    )
    adapted = peft.get_peft_model(theirs, lora).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted(TOKENS[None]).logits[0]
    ours = load_gpt(tmp_path / "base", dtype=torch.float32)
    bare = logits_of(ours, TOKENS)

    loaded = Adapter.load(tmp_path / "adapter", ours.config)
    unmerged = logits_of(ours, TOKENS, LoraBatch.for_all(loaded))
    merge(ours, loaded)
    merged = logits_of(ours, TOKENS)

    print(f"{family}, {settings}: largest error of a logit {error_between(unmerged, expected):.1e}")  # noqa: T201
    assert error_between(unmerged, expected) < 1e-4
    assert error_between(merged, expected) < 1e-4
    assert error_between(merged, adapted.merge_and_unload()(TOKENS[None]).logits[0]) < 1e-4
    assert error_between(bare, expected) > 0.1


@pytest.mark.parametrize("rank", [1, 3, 17, 256])
@pytest.mark.parametrize("targets", [["q_proj"], ["v_proj", "down_proj"], ALL])
@torch.inference_mode()
def test_any_rank_on_any_projections_gives_the_logits_peft_gives(
    base: Path, model: GPT, tmp_path: Path, rank: int, targets: list[str]
) -> None:
    folder = tiny_adapter(tmp_path / "adapter", base, rank=rank, target_modules=targets, lora_alpha=1, use_rslora=True)
    theirs = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder).eval()

    loaded = Adapter.load(folder, model.config)

    assert error_between(logits_of(model, TOKENS, LoraBatch.for_all(loaded)), theirs(TOKENS[None]).logits[0]) < 1e-4
    assert loaded.rank == rank
    assert len(loaded.parts) == len(targets) * 2


def test_an_adapter_is_one_piece_of_memory_in_the_order_of_the_projections(model: GPT, base: Path, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "adapter", base, rank=5, lora_alpha=10, target_modules=["v_proj", "q_proj"])
    stored = load_file(folder / "adapter_model.safetensors")

    loaded = Adapter.load(folder, model.config)

    names = list(model.projections())
    assert [name for name, rank in zip(names, loaded.ranks.tolist(), strict=True) if rank] == [
        name for name in names if name.endswith(("q_proj", "v_proj"))
    ]
    assert loaded.flat.is_contiguous()
    assert (loaded.ranks.dtype, loaded.starts.dtype) == (torch.int32, torch.int64)
    for name, rank, start in zip(names, loaded.ranks.tolist(), loaded.starts.tolist(), strict=True):
        if not rank:
            continue
        outs, ins = projection_shapes(model.config)[name]
        a = loaded.flat[start : start + rank * ins].view(rank, ins)
        b_transposed = loaded.flat[start + rank * ins : start + rank * (ins + outs)].view(rank, outs)
        assert rank == 8  # filled up with zeros
        assert torch.equal(a[:5], stored[f"base_model.model.{name}.lora_A.weight"])
        assert torch.equal(b_transposed[:5].t(), stored[f"base_model.model.{name}.lora_B.weight"] * 2)
        assert not a[5:].any()
        assert not b_transposed[5:].any()


# ---------------------------------------------------------------- several in one batch


def of_rank(folder: Path, base: Path, model: GPT, *, seed: int, rank: int = 4, **changes: Any) -> Adapter:
    return Adapter.load(tiny_adapter(folder / f"{seed}-{rank}", base, seed=seed, rank=rank, **changes), model.config)


def on_cpu(budget_bytes: int = 2**30) -> Stacks:
    return Stacks(device=torch.device("cpu"), dtype=torch.float32, budget_bytes=budget_bytes)


@torch.inference_mode()
def check_each_as_alone(model: GPT, stacks: Stacks, chunks: list[tuple[Adapter | None, int]]) -> None:
    """Sequences of the given lengths in one batch get what each gets alone."""
    counts = [count for _, count in chunks]
    generator = torch.Generator().manual_seed(sum(counts))
    sequences = [torch.randint(0, 448, (count,), generator=generator) for count in counts]
    positions = torch.cat([torch.arange(count) for count in counts])

    together = model(torch.cat(sequences), positions, CausalAttention(counts), stacks.batch(chunks)).split(counts)

    for hidden, tokens, (adapter, count) in zip(together, sequences, chunks, strict=True):
        lora = LoraBatch.for_all(adapter) if adapter is not None else None
        alone = model(tokens, torch.arange(count), CausalAttention([count]), lora)
        assert error_between(hidden, alone) < 1e-4
        if adapter is not None:
            assert error_between(hidden, model(tokens, torch.arange(count), CausalAttention([count]))) > 1e-2


def test_in_a_mixed_batch_each_row_has_its_own_adapter(model: GPT, base: Path, tmp_path: Path) -> None:
    small = [of_rank(tmp_path, base, model, seed=seed, rank=rank) for seed, rank in enumerate((4, 8, 5, 3, 8))]
    large = [of_rank(tmp_path, base, model, seed=seed, rank=40) for seed in range(3)]
    other = of_rank(tmp_path, base, model, seed=9, rank=8, target_modules=ALL)

    a, b, c, d, e = small
    check_each_as_alone(model, on_cpu(), [(a, 1), (b, 1), (c, 1), (d, 1), (e, 1)])  # a stack in the order of the rows
    check_each_as_alone(model, on_cpu(), [(None, 2), (a, 1), (None, 1), (b, 2), (c, 1), (None, 9)])  # base rows between
    check_each_as_alone(model, on_cpu(), [(a, 1), (b, 3), (a, 1), (c, 40), (d, 1), (a, 1)])  # twice in the batch; a long prompt
    check_each_as_alone(model, on_cpu(), [(a, 1), (large[0], 1), (b, 1), (large[1], 1), (c, 2), (large[2], 1), (other, 3), (None, 1)])
    check_each_as_alone(model, on_cpu(), [(c, 1), (c, 1), (c, 7)])


def test_adapters_that_come_and_go_never_answer_for_each_other(model: GPT, base: Path, tmp_path: Path) -> None:
    adapters = [of_rank(tmp_path, base, model, seed=seed) for seed in range(12)]
    stacks = on_cpu()

    for start, count in ((0, 3), (0, 8), (3, 5), (4, 8), (11, 1), (1, 10), (0, 12), (2, 4)):
        check_each_as_alone(model, stacks, [(adapter, 1) for adapter in adapters[start : start + count]])

    del adapters[3:]
    newcomers = [of_rank(tmp_path, base, model, seed=seed) for seed in range(20, 26)]
    check_each_as_alone(model, stacks, [(adapter, 1) for adapter in newcomers + adapters])


@pytest.mark.parametrize("seed", range(6))
@torch.inference_mode()
def test_whatever_comes_together_each_row_gets_its_own(model: GPT, base: Path, tmp_path: Path, seed: int) -> None:
    """Random batches, one after the other over the same stacks, beside B·A·x written out."""
    chance = random.Random(seed)
    kinds: list[dict[str, Any]] = [{"rank": 4}, {"rank": 7}, {"rank": 12}, {"rank": 12, "target_modules": ["down_proj"]}]
    adapters = [of_rank(tmp_path, base, model, seed=number, **kinds[number % 4]) for number in range(20)]
    stacks = on_cpu(chance.choice([0, 5, 12, 100]) * adapters[2].size_bytes)

    for _ in range(40):
        some = chance.sample(adapters, chance.choice([1, 3, 8, 20]))
        chunks = [(chance.choice([*some, None]), chance.choice([1, 1, 1, 2, 5, 20])) for _ in range(chance.randint(1, 24))]
        check_sums(stacks.batch(chunks), chunks)


def check_sums(lora: LoraBatch | None, chunks: list[tuple[Adapter | None, int]], device: str = "cpu") -> None:
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        ins = 128 if name.endswith("down_proj") else 64
        x, y = torch.randn(sum(count for _, count in chunks), ins), torch.randn(sum(count for _, count in chunks), 64)
        got = y.to(device) if lora is None else lora.add(name, x.to(device), y.to(device, copy=True))
        row = 0
        for adapter, count in chunks:
            expected = y[row : row + count]
            if adapter is not None and name in adapter.parts:
                a, b = adapter.parts[name]
                expected = expected + x[row : row + count] @ a.t() @ b
            torch.testing.assert_close(got[row : row + count].cpu(), expected, rtol=1e-4, atol=1e-4)
            row += count


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@torch.inference_mode()
def test_on_cuda_each_row_gets_its_own(model: GPT, base: Path, tmp_path: Path) -> None:
    adapters = [of_rank(tmp_path, base, model, seed=number) for number in range(8)]
    for room_for in (0, 3, 8):
        stacks = Stacks(device=torch.device("cuda"), dtype=torch.float32, budget_bytes=room_for * adapters[0].size_bytes)
        for adapter in adapters[:4]:
            stacks.expect(adapter)
        chunks = [(None, 2), *((adapter, count) for adapter, count in zip(adapters, (1, 1, 3, 9, 1, 1, 1, 1), strict=True))]
        check_sums(stacks.batch(chunks), chunks, "cuda")
        check_sums(stacks.batch(chunks[3:]), chunks[3:], "cuda")


def test_an_adapter_is_copied_once_and_stays_in_its_row(model: GPT, base: Path, tmp_path: Path) -> None:
    adapters = [of_rank(tmp_path, base, model, seed=seed) for seed in range(6)]
    stacks = on_cpu()

    for _ in range(5):
        stacks.batch([(adapter, 1) for adapter in adapters])
        stacks.batch([(adapter, 1) for adapter in adapters[2:]])

    assert stacks.copies == 6


def test_the_adapters_of_a_batch_stand_close_together(model: GPT, base: Path, tmp_path: Path) -> None:
    adapters = [of_rank(tmp_path, base, model, seed=seed) for seed in range(16)]
    stacks = on_cpu()
    stacks.batch([(adapter, 1) for adapter in adapters])
    before = stacks.copies

    check_each_as_alone(model, stacks, [(adapter, 1) for adapter in adapters[12:]])
    check_each_as_alone(model, stacks, [(adapter, 1) for adapter in adapters[:8]])

    assert stacks.copies == before + 4 + 4  # the last came to the front, and those who stood there came back


@pytest.mark.parametrize("room_for", [0, 2, 3, 5])
def test_without_room_for_a_stack_the_answers_are_the_same(model: GPT, base: Path, tmp_path: Path, room_for: int) -> None:
    adapters = [of_rank(tmp_path, base, model, seed=seed) for seed in range(8)]
    stacks = on_cpu(room_for * adapters[0].size_bytes)

    check_each_as_alone(model, stacks, [(adapter, 1) for adapter in adapters])

    assert stacks.size_bytes <= room_for * adapters[0].size_bytes


def test_a_stack_that_is_not_used_gives_way_to_another(model: GPT, base: Path, tmp_path: Path) -> None:
    small = [of_rank(tmp_path, base, model, seed=seed) for seed in range(4)]
    large = [of_rank(tmp_path, base, model, seed=seed, rank=16) for seed in range(4)]
    stacks = on_cpu(4 * large[0].size_bytes)

    for adapters in (small, large, small):
        check_each_as_alone(model, stacks, [(adapter, 1) for adapter in adapters])

    assert stacks.size_bytes == 4 * small[0].size_bytes
    assert stacks.copies == 12


def test_a_batch_without_adapters_has_no_lora_path() -> None:
    assert on_cpu().batch([(None, 3), (None, 1)]) is None


@torch.inference_mode()
def test_bfloat16_adapters_are_multiplied_in_float32(model: GPT, base: Path, tmp_path: Path) -> None:
    folders = [tiny_adapter(tmp_path / str(seed), base, seed=seed) for seed in range(4)]
    narrow = [Adapter.load(folder, model.config, dtype=torch.bfloat16) for folder in folders]
    name = "model.layers.0.self_attn.q_proj"
    x = torch.randn(4, 64).bfloat16()

    together = Stacks(device=torch.device("cpu"), dtype=torch.bfloat16).batch([(adapter, 1) for adapter in narrow])
    assert together is not None
    got = together.add(name, x, torch.zeros(4, 64, dtype=torch.bfloat16))

    for row, adapter in enumerate(narrow):
        a, b = (part.float() for part in adapter.parts[name])
        exact = x[row].float() @ a.t() @ b
        alone = LoraBatch.for_all(adapter).add(name, x[row : row + 1], torch.zeros(1, 64, dtype=torch.bfloat16))
        assert torch.equal(got[row], exact.bfloat16()) or error_between(got[row], exact) <= float(exact.abs().max()) / 128
        assert error_between(got[row], alone[0]) <= float(exact.abs().max()) / 128


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "proj",
        "self_attn.q_proj",
        "^model.layers.1.self_attn.q_proj",
        "^layers.1.self_attn.q_proj",
        r"model\.layers\.\d+\.mlp\.(gate|up)_proj",
        "layers.[1-9].*",
        ".*",
        "layers.1",
        "mlp..*_proj$",
        "q_proj|down_proj",
        "layers.1.self_attn.q_proj|o_proj",
    ],
)
def test_patterns_match_as_in_peft(base: Path, tmp_path: Path, pattern: str) -> None:
    write_json(
        tmp_path / "adapter_config.json",
        {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "rank_pattern": {pattern: 8, "v_proj": 2}, "alpha_pattern": {pattern: 24}},
    )
    names = projection_shapes(GPTConfig.from_folder(base))

    read = LoraSettings.read(tmp_path / "adapter_config.json")

    for name in names:
        rank = {pattern: 8, "v_proj": 2}.get(peft.utils.other.get_pattern_key([pattern, "v_proj"], name), 4)
        alpha = {pattern: 24}.get(peft.utils.other.get_pattern_key([pattern], name), 4)
        assert read.rank_and_scale(name) == (rank, alpha / rank)


@pytest.mark.parametrize(
    "pattern", ["(.*)*x", "(a{9999}){9999}", "(a|a)(a|a)(a|a)", "(?P<n>a)", "(", "*", "", "x" * 201, "(.*a){9}", "(?=.*)"]
)
def test_a_pattern_that_could_take_for_ever_is_refused_at_once(base: Path, adapter: Path, pattern: str) -> None:
    config_says(rank_pattern={pattern: 4})(adapter)
    began = time.monotonic()

    with pytest.raises(AdapterError, match="is not supported; write module names"):
        Adapter.load(adapter, GPTConfig.from_folder(base))

    assert time.monotonic() - began < 1


# ---------------------------------------------------------------- refusals


def config_says(**changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        write_json(path, json.loads(path.read_text()) | changes)

    return apply


def weights_are(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "adapter_model.safetensors")
        change(weights)
        save_file(weights, folder / "adapter_model.safetensors")

    return apply


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (config_says(peft_type="IA3"), "peft_type must be LORA"),
        (config_says(use_dora=True), "DoRA is not supported"),
        (config_says(bias="all"), "bias='all' is not supported"),
        (config_says(lora_bias=True), "lora_bias is not supported"),
        (config_says(modules_to_save=["lm_head"]), "modules_to_save"),
        (config_says(alora_invocation_tokens=[1, 2]), "aLoRA is not supported"),
        (config_says(layer_replication=[[0, 2]]), "layer_replication is not supported"),
        (config_says(something_new={"on": True}), "something_new is not known here"),
        (config_says(init_lora_weights="pissa_niter_4"), "'pissa_niter_4' changes the base, or may"),
        (config_says(init_lora_weights={"pissa": 4}), "changes the base, or may"),
        (config_says(init_lora_weights="something_new"), "'something_new' changes the base, or may"),
        (config_says(r=8), r"has the shape \[.*\]; this base and rank 8 call for"),
        (config_says(rank_pattern={"q_proj": 8}), r"q_proj.* has the shape \[.*\]; this base and rank 8 call for"),
        (config_says(rank_pattern={"q_proj": 0}), "rank_pattern is 0"),
        (config_says(alpha_pattern={"q_proj": "much"}), "alpha_pattern is much"),
        (config_says(rank_pattern=["q_proj"]), "rank_pattern must map"),
        (config_says(r=0), "r is 0"),
        (config_says(r=257), "r is 257; it must be a whole number from 1 to 256"),
        (config_says(lora_alpha=float("inf")), "lora_alpha is inf"),
        (config_says(lora_alpha=10**400), "lora_alpha is 1000"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), r"there is no adapter_model\.safetensors"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\0" * 64), "not a whole safetensors file"),
        (weights_are(lambda w: w[A].fill_(float("nan"))), "not finite"),
        (weights_are(lambda w: w[A].view(-1)[-1:].fill_(float("inf"))), "not finite"),
        (weights_are(lambda w: w.pop(A)), "only one of lora_A and lora_B"),
        (weights_are(lambda w: w.update({A: torch.zeros(4, 32)})), r"has the shape \[4, 32\]"),
        (weights_are(lambda w: w.update({A: w[A].to(torch.int8)})), "is I8; only F32, F16, BF16 are supported"),
        (weights_are(lambda w: w.update({"base_model.model.lm_head.lora_A.weight": torch.zeros(4, 64)})), "not the LoRA of a projection"),
        (weights_are(lambda w: w.update({A.replace("lora_A", "lora_magnitude_vector"): torch.zeros(4)})), "not the LoRA of a projection"),
        (weights_are(lambda w: w.clear()), "holds no weights"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(base: Path, adapter: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(adapter)

    with pytest.raises(AdapterError, match=said):
        Adapter.load(adapter, GPTConfig.from_folder(base))


def test_an_adapter_of_another_base_is_refused_when_it_says_so(base: Path, adapter: Path) -> None:
    config = GPTConfig.from_folder(base)
    config_says(base_model_name_or_path="a" * 64)(adapter)

    with pytest.raises(AdapterError, match=r"made for the base a{12}…, this one is b{12}…"):
        Adapter.load(adapter, config, base="b" * 64)

    assert Adapter.load(adapter, config, base="a" * 64).rank == 4
    assert Adapter.load(adapter, config).rank == 4
    config_says(base_model_name_or_path="someone/some-model")(adapter)
    assert Adapter.load(adapter, config, base="b" * 64).rank == 4


def test_its_size_is_told_before_memory_is_taken(base: Path, adapter: Path) -> None:
    config = GPTConfig.from_folder(base)
    told: list[int] = []

    loaded = Adapter.load(adapter, config, dtype=torch.bfloat16, admit=told.append)

    assert told == [loaded.size_bytes]
