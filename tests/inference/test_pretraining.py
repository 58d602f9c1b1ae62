"""A GPT from nothing: its tokenizer and its first weights, that it learns and resumes, and that transformers reads it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from inference import job_kinds
from inference.__main__ import main
from inference.attention import CausalAttention
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.job_process import JobError, Order, Paused
from inference.pretraining import Shape, begin, random_weights, recipe_of, run
from inference.tokenizer import Tokenizer
from inference.training import run as finetune
from tests.inference.job_bench import CITIES, Place, Told

SHAPE = {"layers": 2, "hidden": 32, "heads": 2, "vocabulary": 300, "context": 64}
SETTINGS = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "validation_share": 0.1}
CORPUS = "\n\n".join(
    f"In {year} the people of {city} built {city}land. 城市的人建了一座城。" for city in CITIES for year in (1872, 1934, 2001)
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    torch.set_num_threads(1)
    place = Place(tmp_path)
    place.data = place.artifacts.put_file(corpus(tmp_path)).sha256
    return place


def corpus(folder: Path) -> Path:
    (folder / "corpus.txt").write_text(CORPUS, encoding="utf-8")
    return folder / "corpus.txt"


def test_the_tokenizer_gives_back_every_text_and_has_shorter_tokens_for_the_corpus(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(begin(tmp_path / "begun", corpus(tmp_path), Shape.from_json(SHAPE), seed=1))

    for text in (CORPUS, "Ça va? 😀\r\n\t 한국어", "".join(map(chr, range(1, 300)))):
        assert tokenizer.decode(tokenizer.encode_plain(text)) == text
    assert tokenizer.vocab_size == 300
    assert len(tokenizer.encode_plain("the people of")) < 8
    assert len(tokenizer.encode_plain("1872")) == 4


def test_its_one_special_token_ends_a_text_and_is_not_made_of_one_that_spells_it(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(begin(tmp_path / "begun", corpus(tmp_path), Shape.from_json(SHAPE), seed=1))

    assert (tokenizer.end_id, tokenizer.eos_ids) == (0, {0})
    assert tokenizer.encode("<|endoftext|>") == [0]
    assert 0 not in tokenizer.encode_plain("<|endoftext|>")


def test_the_same_corpus_shape_and_seed_begin_with_the_same_bytes(tmp_path: Path) -> None:
    file, shape = corpus(tmp_path), Shape.from_json(SHAPE)

    first, second, other = (begin(tmp_path / name, file, shape, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))

    bytes_of = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (first, second, other)]
    assert bytes_of[0] == bytes_of[1]
    assert {name for name in bytes_of[0] if bytes_of[0][name] != bytes_of[2][name]} == {"model.safetensors"}


def test_what_adds_to_the_stream_begins_smaller_by_the_root_of_twice_the_layers() -> None:
    config = GPTConfig.from_json(Shape(layers=8, hidden=256, heads=4).config(1000))

    spread = {name: float(weight.std()) for name, weight in random_weights(config, seed=1).items() if weight.dim() == 2}
    norms = [weight for weight in random_weights(config, seed=1).values() if weight.dim() == 1]

    for name, found in spread.items():
        adds = name.endswith(("out.weight", "down.weight"))
        assert found == pytest.approx(0.02 / math.sqrt(16) if adds else 0.02, rel=0.03), name
    assert all(bool((norm == 1).all()) for norm in norms)


def test_a_model_from_nothing_first_guesses_evenly_then_learns(place: Place) -> None:
    told = Told()

    result = run(place.pretraining(shape=SHAPE, changes=SETTINGS), place.bench(told, segment_s=60))

    assert (result["scope"], result["held_out"]) == ("weights", 3)
    assert result["trained_tokens"] == result["tokens"] - 3 * result["examples"]  # of each piece all but its first, in three epochs
    assert result["base_validation_loss"] == pytest.approx(math.log(300), abs=0.1)
    assert result["validation_loss"] < result["base_validation_loss"] - 1


def test_transformers_reads_the_result_with_equal_logits_and_its_tokenizer_with_equal_tokens(place: Place) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = run(place.pretraining(shape=SHAPE, changes=SETTINGS), place.bench(Told(), segment_s=60))
    folder = place.artifacts.materialise(result["manifest"], place.cache)
    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer.from_folder(folder)
    tokens = ours.encode_plain(CORPUS)[:60]

    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([tokens])).logits[0]
        model = load_gpt(folder, dtype=torch.float32)
        found = model.logits(model(torch.tensor(tokens), torch.arange(60), CausalAttention([60])))

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert theirs(CORPUS)["input_ids"] == ours.encode_plain(CORPUS)
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.chat_template) == (0, 0, None)
    assert theirs.decode(tokens) == ours.decode(tokens)


def test_a_run_cut_into_segments_ends_with_the_same_bits_as_one_without_a_break(place: Place) -> None:
    whole = run(place.pretraining(shape=SHAPE, changes=SETTINGS), place.bench(Told(), segment_s=60))

    checkpoint, segment, result = None, 0, None
    while result is None:
        told = Told(pause_at=1)
        task = place.pretraining(shape=SHAPE, job="job_b", changes=SETTINGS, checkpoint=checkpoint, segment=segment)
        try:
            result = run(task, place.bench(told, segment_s=0.02))
        except Paused:
            checkpoint, segment = told.segments[-1]["checkpoint"], segment + 1

    assert segment > 3
    assert place.learned_bytes(result["manifest"]) == place.learned_bytes(whole["manifest"])
    assert result["train_loss"] == whole["train_loss"]


def test_a_checkpoint_is_refused_where_the_corpus_has_become_other_tokens(place: Place) -> None:
    told = Told(pause_at=1)
    with pytest.raises(Paused):
        run(place.pretraining(shape=SHAPE, changes=SETTINGS), place.bench(told))

    with pytest.raises(JobError, match="other tokens") as refused:
        run(
            place.pretraining(shape=SHAPE | {"vocabulary": 280}, changes=SETTINGS, checkpoint=told.segments[0]["checkpoint"], segment=1),
            place.bench(Told()),
        )

    assert refused.value.code == "checkpoint_unusable"


def test_it_is_a_kind_of_job_and_its_result_a_base_like_any_other(place: Place) -> None:
    task = place.pretraining(shape=SHAPE, changes={**SETTINGS, "epochs": 1})
    order = Order(task=task.to_json(), artifacts=place.url, cache=str(place.cache), parent=0, segment_s=60)
    (place.folder / "job").mkdir()

    result = job_kinds.run(order, Told(), work=place.folder / "job")  # type: ignore[arg-type]
    place.base, place.data = result["manifest"], place.put_data()
    answered = finetune(place.finetune(changes={"max_length": 64}), place.bench(Told(), segment_s=60))

    assert answered["validation_loss"] < answered["base_validation_loss"]


@pytest.mark.parametrize(
    ("shape", "settings", "said"),
    [
        ({"hidden": 100, "heads": 3}, {}, "100 is not 3 heads"),
        ({"vocabulary": 256}, {}, "at least 257 tokens"),
        ({"layers": 0}, {}, "layers must be"),
        ({"hidden": 1_000_000, "heads": 2}, {}, "hidden_size"),
        ({"depth": 2}, {}, "'depth'"),
        ({"context": 32}, {"max_length": 64}, "do not fit into a context of 32"),
    ],
)
def test_sizes_of_which_no_model_can_be_made_are_refused_by_name(shape: dict[str, int], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        recipe_of(settings, Shape.from_json(shape))


def test_conversations_are_no_corpus(place: Place) -> None:
    place.data = place.put_data()
    task = place.pretraining(shape=SHAPE)
    task.params["name"] = "chats.jsonl"

    with pytest.raises(JobError, match="it must be text") as refused:
        run(task, place.bench(Told()))

    assert (refused.value.code, refused.value.detail["code"]) == ("data_unusable", "wrong_format")


def test_a_model_begun_on_the_terminal_goes_on_as_its_corpus_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "tale.txt", tmp_path / "model"
    file.write_text("\n\n".join(["Once upon a time there was a store."] * 40))
    shape = ["--layers", "1", "--hidden", "32", "--heads", "2", "--vocab", "290", "--context", "32"]

    assert main(["pretrain", str(file), str(out), *shape, "--epochs", "12", "--batch-size", "4", "--learning-rate", "0.02"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert main(["generate", str(out), "Once upon", "--temperature", "0", "--max-tokens", "20", "--dtype", "float32"]) == 0

    assert (result["weights"], result["scope"]) == (str(out), "weights")
    assert capsys.readouterr().out == " a time there was a store.\n"
    assert {path.name for path in tmp_path.iterdir()} == {"tale.txt", "model"}
