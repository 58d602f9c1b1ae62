"""A fine-tune as a job: segments of some seconds, each ending in a checkpoint from which it goes on bit for bit.

A checkpoint is an artifact of this job alone: the weights that are learned, the best ones so far, the optimiser's state, the
generator's and what the objective compares with as safetensors, and the rest as JSON. The one before it is removed when
the store has made the next current.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference import resuming, samples
from inference.batching import MAX_STEPS, PASS_TOKENS, batch, room_bytes, split, steps_per_epoch
from inference.checkpoint import described
from inference.config import GPTConfig
from inference.datasets import Example, Pair, Use, load
from inference.examples import digest
from inference.job_process import JobError
from inference.model import GPT
from inference.objectives import Objective, Preference, Supervised
from inference.optimiser import MOMENTS, STEP, AdamW
from inference.processes import Processes, whole
from inference.protocol import LEARNED_BYTES, JobTask
from inference.recipe import Recipe, Scope
from inference.recomputing import recompute
from inference.samples import Prompt, Samples
from inference.tokenizer import Tokenizer
from inference.trainable import Trainable, trainable_of
from inference.workbench import Workbench, explained

MAX_GRAD_NORM = 1.0
VALIDATIONS = 10  # over the whole run, beside the one before it begins
SNAPSHOT_BYTES = 2**30  # of one run's adapters or models on its way
SAID_EVERY_S = 0.25
TIMES_SAVING = 9  # a segment lasts so many times as long as saving the one before it took
RECENT_STEPS = 20  # whose mean is called the training loss at the end
WEIGHTS, BEST, OPTIMISER = "weights", "best", "optimiser"  # in a checkpoint
COMPARED = "compared"  # there too: what the objective measured before the first step
RESULT = "result"


def run(task: JobTask, bench: Workbench) -> dict[str, Any]:
    """Trains to the end and stores the adapter or the model; its digest and what was measured."""
    recipe = Recipe.from_json(task.params["settings"])
    source = bench.folder(task.params["base"])
    return train(task, bench, recipe=recipe, source=source, data=bench.file(task.params["file"]), asked=task.params.get("prompts"))


def train(
    task: JobTask, bench: Workbench, *, recipe: Recipe, source: Path, data: Path, asked: Sequence[str] | None = None
) -> dict[str, Any]:
    """The same from the folder of a model and a file, whatever they came from.

    `asked`: what the model is asked at each checkpoint; empty, some of the data's own prompts; None, nothing.
    """
    tokenizer, name = bench.tokenizer(source), task.params.get("name", "")
    bench.channel.progress("reading")
    with explained():
        config = GPTConfig.from_folder(source)
        longest = min(recipe.max_length, config.context_length)
        examples = load(data, tokenizer, max_length=longest, use=recipe.method, name=name)
    model = bench.model(source, room_bytes=_room(config, recipe))
    training = Training(task, bench, recipe=recipe, model=model, examples=examples, source=source)
    if asked is not None:
        room = samples.room_for_prompt(config.context_length)
        prompts, unasked = samples.given(asked, tokenizer, use=recipe.method, room=room)
        if not asked:
            every: Sequence[Example | Pair] = examples
            train, held_out = split(every, recipe)
            prompts = samples.from_data(data, tokenizer, examples=held_out or train, use=recipe.method, room=room, name=name)
        training.ask(prompts, tokenizer, unasked=unasked)
    training.begin()
    training.to_the_end()
    return training.result()


def _room(config: GPTConfig, recipe: Recipe) -> int:
    sizes = {"layers": config.layers, "hidden": config.hidden_size, "inner": config.intermediate_size, "vocabulary": config.vocab_size}
    longest = recipe.max_length * (2 if recipe.method == Use.PREFERENCE else 1)
    all_learn = recipe.scope == Scope.WEIGHTS
    learned = LEARNED_BYTES * config.parameter_count if all_learn else 0
    return learned + room_bytes(max(PASS_TOKENS, longest), **sizes, head_learns=all_learn, recompute=recipe.recompute)


def objective_of(recipe: Recipe, model: GPT, trainable: Trainable, examples: list[Example] | list[Pair], processes: Processes) -> Objective:
    train, held_out = split(examples, recipe)
    if recipe.method == Use.PREFERENCE:
        return Preference(model, trainable, train, held_out, beta=recipe.beta, processes=processes)  # type: ignore[arg-type]
    return Supervised(model, trainable, train, held_out, processes=processes)  # type: ignore[arg-type]


@dataclass
class State:
    """Where a run stands, beside its tensors."""

    step: int = 0  # steps done
    tokens: int = 0  # read in training, without validation
    trained_tokens: int = 0
    seconds: float = 0.0  # of the steps
    seconds_beside: float = 0.0  # of measuring and answering
    recent: list[float] = field(default_factory=list)  # losses of the last RECENT_STEPS
    base_validation_loss: float | None = None
    validation_loss: float | None = None  # the last
    best_validation_loss: float | None = None
    best_step: int = 0
    stale: int = 0  # validations since the best
    best_validation_accuracy: float | None = None  # of the best: the share of held-out pairs whose chosen answer is preferred
    computed_by: list[str] = field(default_factory=list)  # one after the other; the bits are the same as long as it is one


class Training:
    """One run, from its first step or from a checkpoint."""

    def __init__(
        self, task: JobTask, bench: Workbench, *, recipe: Recipe, model: GPT, examples: list[Example] | list[Pair], source: Path
    ) -> None:
        """`source` is the folder `model` was read from."""
        self._task, self._bench, self._recipe, self._model, self._source = task, bench, recipe, model, source
        self._trainable = trainable_of(recipe, model)
        self._trainable.train()
        if recipe.recompute:
            recompute(model)
        self._objective = objective_of(recipe, model, self._trainable, examples, bench.processes)
        self._data = digest(examples)
        self._steps = steps_per_epoch(self._objective.train_count, recipe) * recipe.epochs
        if self._steps > MAX_STEPS:
            message = f"{self._steps} steps are more than the {MAX_STEPS} allowed. Choose fewer epochs or larger batches."
            raise JobError("too_many_steps", message, detail={"steps": self._steps, "limit": MAX_STEPS})
        self._optimiser = AdamW(self._trainable.parameters(), lr=recipe.learning_rate)
        self._best: dict[str, Tensor] | None = None
        self._state = State()
        self._events: list[dict[str, Any]] = []
        self._unsaid: list[dict[str, Any]] = []
        self._said_stage, self._said_at = "", 0.0
        self._segment = task.segment
        self._checkpoint = task.checkpoint
        self._samples: Samples | None = None
        self._unasked: list[str] = []

    def ask(self, prompts: Sequence[Prompt], tokenizer: Tokenizer, *, unasked: Sequence[str] = ()) -> None:
        """Has the model answer these at each point that can be chosen, and before the first step; a run that goes on, what it began
        with. `unasked` is what it would have been asked, had there been room.
        """
        self._samples, self._unasked = Samples(self._model, tokenizer, prompts, lora=self._trainable.adapter), list(unasked)

    def begin(self) -> None:
        """Takes up the checkpoint, or measures what is compared with. The base itself, where an adapter leaves it as it was, is
        measured after the first step: what would end the run there has not been waited for.
        """
        torch.manual_seed(self._recipe.seed + self._bench.processes.rank)  # what each drops out is its own
        if self._checkpoint is not None:
            self._take_up(self._bench.folder(self._checkpoint))
            self._sign()
            return
        self._sign()
        began = time.monotonic()
        self._objective.begin(lambda: self._say("validating"))
        self._state.seconds_beside += time.monotonic() - began
        if self._trainable.adapter is None:
            self._measure_base()

    def _measure_base(self) -> None:
        """Before the first step, or after it with the adapter set aside."""
        began = time.monotonic()
        found: dict[str, Any] = {}
        if self._objective.held_out_count:
            found = self._validate()
            self._state.base_validation_loss = found["validation_loss"]
        if self._samples is not None:
            found |= {"prompts": [prompt.text for prompt in self._samples.prompts], **self._answered()}
            found |= {"unasked": self._unasked} if self._unasked else {}
        self._state.seconds_beside += time.monotonic() - began
        if found:
            self._note({"step": 0, **found})
            self._events.sort(key=lambda event: int(event["step"]))

    def _sign(self) -> None:
        processes, threads = self._bench.processes.count, torch.get_num_threads()
        device = torch.cuda.get_device_name() if self._model.device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        name = f"torch {torch.__version__}, {device}, processes: {processes}, threads: {threads}"
        if self._state.computed_by[-1:] != [name]:
            self._state.computed_by.append(name)

    def to_the_end(self) -> None:
        """Raises Paused after the segment in which a pause was asked for. Saving takes about a tenth of the time at most."""
        segment_began, segment_s = time.monotonic(), self._bench.segment_s
        while not self._is_at_its_end:
            self._bench.channel.raise_if_cancelled()
            self._step()
            due = self._bench.channel.pausing or time.monotonic() - segment_began >= segment_s
            if self._is_at_its_end or self._bench.processes.agreed(due):
                saving_s = self._end_segment()
                segment_began = time.monotonic()
                segment_s = self._bench.segment_s and max(self._bench.segment_s, TIMES_SAVING * saving_s)

    @property
    def _is_at_its_end(self) -> bool:
        patience = self._recipe.patience
        return self._state.step == self._steps or (patience > 0 and self._state.stale >= patience)

    @property
    def _done(self) -> float:
        return 1.0 if self._is_at_its_end else self._state.step / self._steps

    def result(self) -> dict[str, Any]:
        """Stores what did best on the held-out examples, or the last when none were held out. Of several processes the first does."""
        folder = self._bench.work / RESULT
        weights = {name: whole(weight) for name, weight in (self._best or self._trainable.weights()).items()}
        if not self._bench.processes.is_first:
            return {}
        self._trainable.save(folder, weights, base=self._task.params.get("base", ""), source=self._source)
        manifest = self._bench.put(folder)
        state = self._state
        facts = described(folder) if self._recipe.scope == Scope.WEIGHTS else None
        return {
            **({"facts": facts} if facts is not None else {}),
            "manifest": manifest,
            "size_bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "steps": state.step,
            "examples": self._objective.train_count,
            "held_out": self._objective.held_out_count,
            "tokens": state.tokens,
            "trained_tokens": state.trained_tokens,
            "seconds": round(state.seconds, 1),
            "seconds_beside": round(state.seconds_beside, 1),
            "train_loss": sum(state.recent) / len(state.recent),
            "base_validation_loss": state.base_validation_loss,
            "validation_loss": state.best_validation_loss if state.best_validation_loss is not None else state.validation_loss,
            "validation_accuracy": state.best_validation_accuracy,
            "best_step": state.best_step or state.step,
            "ended_early": state.step < self._steps,
            "trained_parameters": sum(parameter.numel() for parameter in self._trainable.parameters()),
            "scope": str(self._recipe.scope),
            "computed_by": state.computed_by,
            "precision": str(self._model.embedding.weight.dtype).removeprefix("torch."),
        }

    # ------------------------------------------------------------ one step

    def _step(self) -> None:
        began = time.monotonic()
        state, recipe = self._state, self._recipe
        numbers = batch(self._objective.train_count, recipe, state.step)
        rate = recipe.rate(state.step, self._steps)
        self._optimiser.lr = rate
        loss, grad_norm = self._descend(numbers)
        state.step += 1
        state.recent = [*state.recent, loss][-RECENT_STEPS:]
        tokens, learned = self._objective.tokens(numbers)
        state.tokens += tokens
        state.trained_tokens += learned
        seconds = time.monotonic() - began
        state.seconds += seconds
        event: dict[str, Any] = {
            "step": state.step,
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": grad_norm,
            "tokens_per_s": round(tokens / seconds, 1),
        }
        if state.step % self._validate_every == 0 or state.step == self._steps:
            if self._objective.held_out_count:
                event |= self._judge()
            event |= self._shown()
            state.seconds_beside += time.monotonic() - began - seconds
        self._note(event)
        if state.step == 1 and self._trainable.adapter is not None:
            with self._trainable.adapter.set_aside():
                self._measure_base()

    def _descend(self, numbers: list[int]) -> tuple[float, float]:
        """One step of the optimiser; (loss of these examples, norm of the gradient before clipping)."""
        total = 0.0
        for loss in self._objective.parts(numbers):
            loss.backward()
            total += loss.item()
        total = self._bench.processes.mean(total)
        self._trainable.before_step()
        self._bench.processes.average(self._trainable.parameters())
        grad_norm = float(whole(torch.nn.utils.clip_grad_norm_(self._trainable.parameters(), MAX_GRAD_NORM)))
        self._require_finite(total, grad_norm)
        self._optimiser.step()
        self._trainable.after_step()
        self._optimiser.forget_gradients()
        return total, grad_norm

    def _require_finite(self, *found: float) -> None:
        if not all(map(math.isfinite, found)):
            message = f"The loss is no longer a number near step {self._state.step + 1}. Choose a lower learning rate."
            raise JobError("diverged", message, detail={"step": self._state.step + 1})

    @property
    def _validate_every(self) -> int:
        return max(1, -(-self._steps // VALIDATIONS))

    def _judge(self) -> dict[str, float]:
        found = self._validate()
        state, loss = self._state, found["validation_loss"]
        state.validation_loss = loss
        state.stale += 1
        if state.best_validation_loss is None or loss < state.best_validation_loss:
            state.best_validation_loss, state.best_step, state.stale = loss, state.step, 0
            state.best_validation_accuracy = found.get("validation_accuracy")
            self._best = self._trainable.weights()
        return found

    def _shown(self) -> dict[str, Any]:
        """The model as it stands: what it answers, and the digest of its adapter or its weights, of which a version can be made."""
        if self._samples is None:
            return {}
        shown = self._answered()
        return {**shown, "snapshot": self._bench.snapshot(self._save)} if self._is_kept else shown

    @property
    def _is_kept(self) -> bool:
        """As many in even distances as SNAPSHOT_BYTES hold, and the last. Of several processes each has a part of the weights only."""
        if self._trainable.adapter is None and self._bench.processes.count > 1:
            return False
        size = sum(parameter.numel() * parameter.element_size() for parameter in self._trainable.parameters())
        every = -(-VALIDATIONS * size // SNAPSHOT_BYTES)
        return self._state.step == self._steps or self._state.step // self._validate_every % every == 0

    def _save(self, folder: Path) -> None:
        base = self._task.params.get("base", "")
        self._trainable.save(folder, self._trainable.weights(), base=base, source=self._source)

    def _answered(self) -> dict[str, Any]:
        assert self._samples is not None
        self._say("answering")
        self._trainable.train(False)
        answers = self._samples.answers(lambda: self._say("answering"))
        self._trainable.train()
        return {"samples": answers}

    def _validate(self) -> dict[str, float]:
        self._say("validating")
        self._trainable.train(False)
        found = self._objective.judge(lambda: self._say("validating"))
        self._trainable.train()
        self._require_finite(found["validation_loss"])
        return found

    # ------------------------------------------------------------ what is said

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        self._unsaid.append(event)
        self._say("training")

    def _say(self, stage: str) -> None:
        self._bench.channel.raise_if_cancelled()
        if stage == self._said_stage and time.monotonic() - self._said_at < SAID_EVERY_S:
            return
        self._bench.channel.progress(stage, done=self._done, step=self._state.step, steps=self._steps, events=self._unsaid)
        self._unsaid = []
        self._said_stage, self._said_at = stage, time.monotonic()

    # ------------------------------------------------------------ checkpoints

    def _end_segment(self) -> float:
        """The seconds that saving took, without those for which the store was waited for: it may have been away for minutes."""
        began = time.monotonic()
        digest = self._bench.keep(self._write, number=self._segment)
        saving_s = time.monotonic() - began
        self._bench.channel.segment(number=self._segment, checkpoint=digest, events=self._events, done=self._done)
        self._forget(self._checkpoint, kept=digest)
        self._segment += 1
        self._checkpoint = digest
        self._events = []
        return saving_s

    def _write(self, folder: Path) -> None:
        moments = {resuming.RANDOM: torch.get_rng_state()}
        for number, parameter in enumerate(self._trainable.parameters()):
            moments |= {f"{number}.{name}": value for name, value in self._optimiser.state[parameter].items()}
        groups = {WEIGHTS: self._trainable.weights(), BEST: self._best or {}, COMPARED: self._objective.kept(), OPTIMISER: moments}
        state = {"job": self._task.job, "data": self._data, **asdict(self._state)}
        if self._samples is not None:
            state["prompts"] = [[prompt.text, list(prompt.tokens)] for prompt in self._samples.prompts]
        filled = {name: group for name, group in groups.items() if group}
        resuming.write(folder, filled, state, processes=self._bench.processes)

    def _take_up(self, folder: Path) -> None:
        parameters = list(self._trainable.parameters())
        like = {(group, name): weight for group in (WEIGHTS, BEST) for name, weight in self._trainable.weights().items()}
        like |= {(OPTIMISER, f"{number}.{name}"): parameters[number] for number in range(len(parameters)) for name in MOMENTS}
        groups, kept = resuming.read(folder, like=like, processes=self._bench.processes)
        if kept.pop("job") != self._task.job:
            raise JobError("checkpoint_unusable", "The checkpoint belongs to another job.")
        if kept.pop("data", self._data) != self._data:
            message = "The data has other tokens than when the checkpoint was made: this worker reads it in another way. Begin anew."
            raise JobError("checkpoint_unusable", message)
        began_with = kept.pop("prompts", None)
        if self._samples is not None and began_with is not None:
            self._samples.prompts = [Prompt(text, tokens) for text, tokens in began_with]
        self._state = State(**kept)
        self._trainable.restore(groups[WEIGHTS])
        self._best = groups.get(BEST)
        if COMPARED in groups:
            self._objective.take_up(groups[COMPARED])
        moments = groups[OPTIMISER]
        torch.set_rng_state(moments[resuming.RANDOM])
        for number, parameter in enumerate(parameters):
            state = {name: moments[f"{number}.{name}"].to(parameter.device) for name in MOMENTS}
            self._optimiser.state[parameter] = {STEP: moments[f"{number}.{STEP}"], **state}

    def _forget(self, digest: str | None, *, kept: str) -> None:
        if digest is not None and digest != kept:
            self._bench.forget(digest, kept=kept)
