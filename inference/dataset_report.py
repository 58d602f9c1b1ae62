"""What the validation of a data file tells about it: how much it holds, what is wrong, and what its texts are like."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inference.copies import Copies
from inference.examples import ChatTokenizer, Example, Pair, length, pair_runs, runs
from inference.findings import Findings
from inference.held_out import Overlap, held_out, overlap
from inference.mentions import Mentions
from inference.problems import Problem, ProblemCode
from inference.records import Record
from inference.scripts import Scripts

KEPT_PROBLEMS = 100
PREVIEWED_EXAMPLES = 3
SHORTEST_BIN = 16  # tokens; each bin of the lengths reaches twice as far as the one before it


@dataclass(frozen=True)
class DatasetReport:
    """What validation found. `problems` holds the first KEPT_PROBLEMS of `problem_count`."""

    container: str  # Container
    format: str  # Format; empty when no record could be read
    use: str  # Use
    lines: int
    examples: int
    skipped: int  # too long for the model or for the settings
    duplicates: int
    near_duplicates: int  # nearly the same words as an earlier one (`inference.copies`)
    tokens: int
    trained_tokens: int
    longest_tokens: int
    error_count: int
    problem_count: int
    problems: tuple[Problem, ...]
    lengths: tuple[tuple[int, int], ...]  # (up to so many tokens, examples), doubling, from the shortest to the longest
    scripts: dict[str, int]  # letters of each script, the most first
    findings: tuple[dict[str, Any], ...]  # {"kind", "count", "lines"} of each kind in `inference.findings`
    mentions: dict[str, dict[str, int]]  # of groups of people, by axis
    overlap: Overlap  # of what is held out with what is trained on
    preview: tuple[tuple[dict[str, Any], ...], ...]  # per example, runs of {"text", "trained"}, and "rejected" where it is

    @property
    def valid(self) -> bool:
        return self.error_count == 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "valid": self.valid}


class Tally:
    """Counts as the file is read, a digest of each record and the first problems: what must be in memory at once."""

    def __init__(self) -> None:
        self.format = ""
        self.lines = self.examples = self.skipped = self.duplicates = 0
        self.tokens = self.trained_tokens = self.longest_tokens = 0
        self.error_count = self.problem_count = 0
        self.problems: list[Problem] = []
        self.preview: list[tuple[dict[str, Any], ...]] = []
        self.seen: set[bytes] = set()
        self.bins: Counter[int] = Counter()  # by how often SHORTEST_BIN is doubled
        self.findings, self.mentions, self.scripts = Findings(), Mentions(), Scripts()
        self.copies = Copies()
        self.record_of = array("L")  # of each example
        self.line_of = array("L")  # of each record

    def add_problem(self, problem: Problem) -> None:
        self.lines = max(self.lines, problem.line)
        if problem.code == ProblemCode.WRONG_FORMAT:
            self.format = problem.detail["format"]
        self.problem_count += 1
        self.error_count += not problem.skips
        self.skipped += problem.skips
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)

    def add(self, record: Record, encoded: Sequence[Example | Pair], tokenizer: ChatTokenizer) -> None:
        self.lines = max(self.lines, record.line)
        self.format = str(record.format)
        texts = [*record.texts]
        digest = hashlib.blake2b(repr(texts).encode(), digest_size=16).digest()
        self.duplicates += digest in self.seen
        self.seen.add(digest)
        for text in texts:
            self.findings.read(text, record.line)
            self.mentions.read(text)
            self.scripts.read(text)
        self.copies.read("\n".join(record.own_texts))
        for example in encoded:
            self.record_of.append(len(self.line_of))
            self.add_example(example, tokenizer)
        self.line_of.append(record.line)

    def add_example(self, example: Example | Pair, tokenizer: ChatTokenizer) -> None:
        sides = (example.chosen, example.rejected) if isinstance(example, Pair) else (example,)
        self.examples += 1
        self.tokens += sum(len(side.tokens) for side in sides)
        self.trained_tokens += sum(side.trained_tokens for side in sides)
        tokens = length(example)
        self.longest_tokens = max(self.longest_tokens, tokens)
        self.bins[max((tokens - 1) // SHORTEST_BIN, 0).bit_length()] += 1
        if len(self.preview) < PREVIEWED_EXAMPLES:
            self.preview.append(tuple(pair_runs(example, tokenizer) if isinstance(example, Pair) else runs(example, tokenizer)))

    def report(self, container: str, use: str, *, validation_share: float, seed: int) -> DatasetReport:
        if not self.examples and not self.error_count:
            self.add_problem(Problem(max(self.lines, 1), 1, ProblemCode.NO_EXAMPLES, "The file has no example that can be trained on."))
        held = held_out(self.examples, share=validation_share, seed=seed)
        return DatasetReport(
            container=container,
            format=self.format,
            use=use,
            lines=self.lines,
            examples=self.examples,
            skipped=self.skipped,
            duplicates=self.duplicates,
            near_duplicates=self.copies.near_count,
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            longest_tokens=self.longest_tokens,
            error_count=self.error_count,
            problem_count=self.problem_count,
            problems=tuple(self.problems),
            lengths=self._lengths(),
            scripts=self.scripts.to_json(),
            findings=tuple(self.findings.to_json()),
            mentions=self.mentions.to_json(),
            overlap=overlap(self.copies, held, record_of=self.record_of, line_of=self.line_of),
            preview=tuple(self.preview),
        )

    def _lengths(self) -> tuple[tuple[int, int], ...]:
        if not self.bins:
            return ()
        return tuple((SHORTEST_BIN << at, self.bins[at]) for at in range(min(self.bins), max(self.bins) + 1))
