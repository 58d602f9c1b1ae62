"""`python -m inference describe|generate|train|pretrain|evaluate|attention`: a model folder used once from a terminal, without a store.

Reading the command line loads no torch, so that help and refusals come at once; `inference.terminal` does the work, beside it
`inference.terminal_training` that of training and `inference.terminal_suites` that of evaluation.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence

from inference.datasets import Use
from inference.recipe import Scope, Targets

WRONG = 2  # what argparse exits with, too
INTERRUPTED = 130
MODEL_HELP = "folder with config.json, tokenizer.json and safetensors, or 'smollm2' for the packaged SmolLM2-135M-Instruct"
DTYPES = ("bfloat16", "float32", "int8")
SHAPE = {
    "layers": "blocks of attention and MLP",
    "hidden": "width of the stream; a multiple of twice the heads",
    "heads": "of each attention",
    "context": "most tokens it can see",
}
SUITES = ("perplexity", "summarise", "translate", "answer", "knowledge", "chat", "code", "json", "refusal", "toxicity", "bias", "speed")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 when something given cannot be used, with the reason on the standard error."""
    options = _parser().parse_args(arguments)
    from inference import terminal

    try:
        terminal.run(options)
    except terminal.UNUSABLE as error:
        print(f"python -m inference {options.act}: error: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference", description="Use a GPT model once, without a store.")
    acts = parser.add_subparsers(dest="act", required=True, metavar="describe|generate|train|pretrain|evaluate|attention")
    _add_describe(
        acts.add_parser(
            "describe",
            help="size, context and memory before anything is loaded",
            description="What is known of a model from its files: parameters, context, and the memory that serving it takes.",
        )
    )
    _add_generate(acts.add_parser("generate", help="answer prompts", description="Answers prompts; one answer is shown as it is made."))
    _add_train(
        acts.add_parser(
            "train", help="fine-tune", description="Trains an adapter, written as a PEFT folder, or all weights, as a Hugging Face one."
        )
    )
    _add_pretrain(
        acts.add_parser(
            "pretrain", help="begin a model from nothing", description="Trains a tokenizer on a text, then a Llama with random weights."
        )
    )
    _add_evaluate(
        acts.add_parser(
            "evaluate",
            help="perplexity of a text, or suites",
            description="Log-likelihood and perplexity of a text or JSONL file, or suites of items with their metrics.",
        )
    )
    _add_attention(
        acts.add_parser(
            "attention",
            help="how tokens look at each other",
            description="The attention weights of one head of one layer over a short text, as one JSON object.",
        )
    )
    return parser


def _add_describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--json", action="store_true", help="as one JSON object, the memory in bytes")


def _add_attention(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("text")
    parser.add_argument("--layer", type=int, default=0, help="counted from 0 (default: 0)")
    parser.add_argument("--head", type=int, default=0, help="counted from 0 (default: 0)")
    _add_numbers(parser)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="without one and without --file: the standard input")
    parser.add_argument("--file", help='JSONL: each line a text, {"prompt": text} or {"messages": [{"role", "content"}, …]}')
    parser.add_argument("--chat", action="store_true", help="put each prompt into the model's chat template as a user's message")
    parser.add_argument("--system", help="a system message before each prompt; implies --chat")
    parser.add_argument("--adapter", help="PEFT LoRA folder")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and prompt, with tokens and usage")
    _add_numbers(parser)
    sampling = parser.add_argument_group("sampling")
    for name in ("max-tokens", "min-tokens", "top-k", "seed", "n", "logprobs"):
        sampling.add_argument(f"--{name}", type=int, default=argparse.SUPPRESS)
    for name in ("temperature", "top-p", "min-p", "presence-penalty", "frequency-penalty"):
        sampling.add_argument(f"--{name}", type=float, default=argparse.SUPPRESS)
    sampling.add_argument("--stop", action="append", default=argparse.SUPPRESS, help="may be given several times")
    sampling.add_argument("--ignore-eos", action="store_true", default=argparse.SUPPRESS)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument(
        "data", help='JSONL with "messages" (the assistant last), with prompt and completion, or as --method says; CSV; text'
    )
    parser.add_argument("out", help="folder for the result; must not exist yet")
    parser.add_argument("--method", choices=[*Use], default=argparse.SUPPRESS, help="what is learned: answers, preferences (DPO) or text")
    parser.add_argument(
        "--scope", choices=[*Scope], default=argparse.SUPPRESS, help="what is changed: a LoRA adapter beside the weights, or they"
    )
    parser.add_argument("--targets", choices=[*Targets], default=argparse.SUPPRESS, help="where the adapter is")
    parser.add_argument("--rank-stabilised", action="store_true", default=argparse.SUPPRESS)
    for name in ("alpha", "beta"):
        parser.add_argument(f"--{name}", type=_positive(float), default=argparse.SUPPRESS)
    parser.add_argument("--rank", type=_positive(int), default=argparse.SUPPRESS)
    parser.add_argument("--dropout", type=_share, default=argparse.SUPPRESS)
    _add_course(parser)


def _add_pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="corpus", help='text whose documents stand apart by empty lines; JSONL or CSV with "text"')
    parser.add_argument("out", help="folder for the model; must not exist yet")
    shape = parser.add_argument_group("shape")
    for name, meaning in SHAPE.items():
        shape.add_argument(f"--{name}", type=_positive(int), default=argparse.SUPPRESS, help=meaning)
    shape.add_argument("--vocab", type=_positive(int), dest="vocabulary", default=argparse.SUPPRESS, help="most tokens of the tokenizer")
    _add_course(parser)


def _add_course(parser: argparse.ArgumentParser) -> None:
    """How a run goes, whatever it trains."""
    for name in ("patience", "epochs", "batch-size", "max-length"):
        parser.add_argument(f"--{name}", type=_positive(int), default=argparse.SUPPRESS)
    parser.add_argument("--learning-rate", type=_positive(float), default=argparse.SUPPRESS)
    parser.add_argument("--validation-share", type=_share, default=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS)
    _add_device(parser)
    parser.add_argument("--recompute", action="store_true", default=argparse.SUPPRESS, help="use less memory and more time")
    parser.add_argument("--checkpoints", metavar="FOLDER", help="keep the last one there; a run that finds one goes on from it")
    parser.add_argument("--checkpoint-every", type=float, default=300.0, metavar="SECONDS", help="(default: 300)")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("file", nargs="?", help='a text, or JSONL (by its name): each line a text, {"text": text} or {"messages": […]}')
    parser.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help=f'instead of a text, also several times: all, {", ".join(SUITES)}, or JSONL with {{"prompt", "expected"}}, '
        '{"context", "choices", "answer"} or {"text"} on each line',
    )
    parser.add_argument("--limit", type=_positive(int), help="of a suite at most so many items")
    parser.add_argument("--system", help="instructions before each question of a suite")
    parser.add_argument("--adapter", help="PEFT LoRA folder; suites are put to the base as well, to compare")
    parser.add_argument("--against", choices=DTYPES, help="the same again in these numbers, to compare")
    parser.add_argument("--tokens", action="store_true", help="also the log-probability of each token, tab-separated")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and dtype")
    parser.add_argument("--window", type=_positive(int), default=1024, help="most tokens scored together (default: 1024)")
    _add_numbers(parser)


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="what the matrices are kept in (default: bfloat16)")
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda or cuda:NUMBER (default: a GPU where there is one)")


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not more than 0")
        return value

    read.__name__ = "number"
    return read


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
