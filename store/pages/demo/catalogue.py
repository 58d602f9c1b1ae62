"""The demo's GPTs: what their pages say in English and Chinese, and how they are listed. What they are told is in outputs/*.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from store.pages.demo.tried import Trial, trial_of

LICENCE = "Apache-2.0"
LANGUAGES = ("en",)  # the model was trained on English
PUBLISHERS = (  # slug, name, about
    (
        "demo-models",
        "Demo Models",
        "Demo content of this installation: open models that others made, listed here so that there is something to build on.",
    ),
    (
        "demo-desk",
        "Demo Desk",
        "Demo content of this installation: small prompt GPTs for everyday texts, each tried with ten fixed prompts.",
    ),
    (
        "demo-lab",
        "Demo Lab",
        "Demo content of this installation: prompt GPTs for knowledge and code, each tried with ten fixed prompts.",
    ),
)


@dataclass(frozen=True)
class Page:
    """What a listing says in one language."""

    name: str
    summary: str
    use: str  # what it is for
    limits: str


@dataclass(frozen=True)
class DemoBase:
    publisher: str
    slug: str
    source: str  # of the import
    texts: dict[str, dict[str, str]]
    starters: tuple[str, ...]
    parameters: dict[str, Any]  # defaults of a conversation
    use_cases: tuple[str, ...] = ("chat",)
    number: str = "1.0.0"
    licence: str = LICENCE
    languages: tuple[str, ...] = LANGUAGES

    @property
    def full_name(self) -> str:
        return f"{self.publisher}/{self.slug}@{self.number}"


@dataclass(frozen=True)
class DemoGPT:
    publisher: str
    slug: str
    use_cases: tuple[str, ...]
    en: Page
    zh: Page
    input_price_micro: int = 0  # for a million tokens
    output_price_micro: int = 0
    number: str = "1.0.0"
    licence: str = LICENCE
    languages: tuple[str, ...] = LANGUAGES

    @property
    def full_name(self) -> str:
        return f"{self.publisher}/{self.slug}@{self.number}"

    @property
    def trial(self) -> Trial:
        return trial_of(self.slug)

    @property
    def instructions(self) -> str:
        return self.trial.instructions

    @property
    def parameters(self) -> dict[str, Any]:
        return self.trial.parameters

    @property
    def starters(self) -> list[str]:
        return self.trial.starters

    @property
    def texts(self) -> dict[str, dict[str, str]]:
        return {
            "en": _text(self.en, _CARD_EN, self.trial),
            "zh-hans": _text(self.zh, _CARD_ZH, self.trial),
        }


_CARD_EN = """\
## What it is for

{use}

## Limits

{limits}

It works in English only. The model behind it, SmolLM2-135M-Instruct, is one of the smallest there are: read its answers \
before you use them.

## How it was tried

{acceptable} of {count} fixed prompts got an acceptable answer, on SmolLM2-135M-Instruct in float32 at temperature 0. The \
prompts, all answers and the rubric are in the store's source code: `docs/demo.md` and `store/pages/demo/outputs/{slug}.json`.

## Licence

Apache-2.0, like the model. This is demo content of this installation.
"""

_CARD_ZH = """\
## 用途

{use}

## 局限

{limits}

它只支持英语，请用英语输入。它所用的模型 SmolLM2-135M-Instruct 是最小的模型之一：使用回答之前请先核对。

## 如何试验

{count} 个固定提示中有 {acceptable} 个得到合格的回答（SmolLM2-135M-Instruct，float32，温度 0）。提示、全部回答和评分标准都在本商店的\
源代码中：`docs/demo.md` 和 `store/pages/demo/outputs/{slug}.json`。

## 许可

Apache-2.0，与模型相同。这是本站的演示内容。
"""


def _text(page: Page, card: str, trial: Trial) -> dict[str, str]:
    filled = card.format(use=page.use, limits=page.limits, acceptable=trial.acceptable, count=len(trial.answers), slug=trial.slug)
    return {"name": page.name, "summary": page.summary, "card": filled}


BASE = DemoBase(
    publisher="demo-models",
    slug="smollm2-135m-instruct",
    source="smollm2",
    parameters={"temperature": 0.2, "top_p": 0.9},  # at 1, the API's own default, so small a model talks nonsense
    starters=("What is the capital of Finland?", "What is a solar panel?", "Write a Python function that multiplies two numbers."),
    texts={
        "en": {
            "name": "SmolLM2 135M Instruct",
            "summary": "A very small open chat model in English, to build prompt GPTs and fine-tunes on.",
            "card": """\
## What it is for

A base to build on: 135 million parameters, fast even without a GPU, and free to fine-tune. Made by Hugging Face; this \
installation lists it unchanged.

## Limits

It was trained on English text and is too small to be relied on: it invents facts, loses the thread in long conversations and \
repeats itself. It does narrow tasks with clear instructions, as the demo's prompt GPTs show. Free conversation, e-mails, \
stories and lists of ideas mostly failed when they were tried for this demo.

## How it was tried

Seven prompt GPTs on it were tried with ten fixed prompts each; `docs/demo.md` in the store's source code has every answer and \
the rubric. Measurements made by this store are on this page.

## Licence

Apache-2.0.
""",
        },
        "zh-hans": {
            "name": "SmolLM2 135M Instruct",
            "summary": "一个很小的开源英语对话模型，可在其上制作提示 GPT 和微调模型。",
            "card": """\
## 用途

供他人在其上构建：1.35 亿参数，没有 GPU 也很快，可自由微调。由 Hugging Face 制作，本站原样上架。

## 局限

它用英语文本训练，只支持英语。它太小，不可依赖：会编造事实，在长对话中跑题，并且会重复。如演示中的提示 GPT 所示，指令明确的小任务它能完成。\
为本演示试验时，自由聊天、写邮件、写故事和列点子大多失败。

## 如何试验

在它之上的七个提示 GPT 各用十个固定提示试过；全部回答和评分标准见本商店源代码中的 `docs/demo.md`。本站所做的测量显示在本页。

## 许可

Apache-2.0。
""",
        },
    },
)

GPTS = (
    DemoGPT(
        publisher="demo-desk",
        slug="answer-from-text",
        use_cases=("answer",),
        en=Page(
            name="Answer from a Text",
            summary="Ask a question about a short English text and get the answer from that text.",
            use="Send one to three sentences after `Text:` and, on a new line, one question after `Question:`. It answers in a sentence.",
            limits="Longer texts, two questions at once and anything that has to be worked out go wrong, and it can drop the unit of a "
            "number. It does not say when the text holds no answer.",
        ),
        zh=Page(
            name="依文作答",
            summary="就一小段英语文本提问，从该文本中得到答案。本 GPT 只支持英语。",
            use="在 `Text:` 之后输入一到三句英语，另起一行在 `Question:` 之后输入一个问题。它用一句话回答。",
            limits="文本较长、一次两个问题或需要推算时会出错，也可能漏掉数字的单位。文本中没有答案时，它不会说明。",
        ),
    ),
    DemoGPT(
        publisher="demo-desk",
        slug="news-line",
        use_cases=("summarise",),
        en=Page(
            name="News in a Line",
            summary="Turns a short English news report into one line that says what happened.",
            use="Send a report of two to five sentences after `News:`. It gives the main point in one line, mostly without a final full "
            "stop.",
            limits="It leans on the first sentence, so it fails where the main point comes later. It now and then adds a detail of its "
            "own.",
        ),
        zh=Page(
            name="一句话新闻",
            summary="把一则简短的英语新闻变成一句话，说明发生了什么。本 GPT 只支持英语。",
            use="在 `News:` 之后输入两到五句英语新闻。它用一行给出要点，句末多半没有句号。",
            limits="它偏重第一句，要点在后面时会失败。有时会自己添加细节。",
        ),
    ),
    DemoGPT(
        publisher="demo-lab",
        slug="capital-cities",
        use_cases=("chat",),
        en=Page(
            name="Capital Cities",
            summary="Ask for the capital of a country and get it in one English sentence.",
            use="Ask `What is the capital of …?` with a country.",
            limits="Where the largest city is better known than the capital it can name the wrong one. Other questions about a country "
            "are often answered wrongly.",
        ),
        zh=Page(
            name="各国首都",
            summary="询问一个国家的首都，用一句英语回答。本 GPT 只支持英语。",
            use="用 `What is the capital of …?` 加国名提问。",
            limits="最大的城市比首都更有名时，它可能说错。关于国家的其他问题常常答错。",
        ),
    ),
    DemoGPT(
        publisher="demo-desk",
        slug="sentence-fixer",
        use_cases=("rewrite",),
        input_price_micro=2_000_000,
        output_price_micro=4_000_000,
        en=Page(
            name="Sentence Fixer",
            summary="Rewrites one English sentence with its grammar, spelling and capital letters put right.",
            use="Send one short sentence after `Text:`. Good for verb forms, capital letters and common spelling mistakes.",
            limits="One sentence at a time. It misses words that sound alike, sometimes changes the meaning, and now and then answers "
            "instead of correcting. It costs a little, so that the demo has something to pay for.",
        ),
        zh=Page(
            name="英语改句",
            summary="改写一个英语句子，纠正语法、拼写和大小写。本 GPT 只支持英语。",
            use="在 `Text:` 之后输入一个简短的英语句子。适合动词形式、大小写和常见拼写错误。",
            limits="每次一句。它看不出同音词，有时改变意思，偶尔不改句子而去回答。它收取少量费用，让演示中有东西可付费。",
        ),
    ),
    DemoGPT(
        publisher="demo-desk",
        slug="review-mood",
        use_cases=("extract",),
        en=Page(
            name="Review Mood",
            summary="Reads a short English review and says whether it is positive or negative.",
            use="Send one review of a sentence or two after `Review:`. It answers that the review is positive or negative.",
            limits="There is nothing between positive and negative, and mixed or ironic reviews are beyond it. Faults told without "
            "strong words may be taken for praise.",
        ),
        zh=Page(
            name="评论倾向",
            summary="读一则简短的英语评论，判断是好评还是差评。本 GPT 只支持英语。",
            use="在 `Review:` 之后输入一两句英语评论。它回答评论是正面（positive）还是负面（negative）。",
            limits="它只分正面和负面，褒贬混杂或反讽的评论它判断不了。措辞平淡的批评可能被当成好评。",
        ),
    ),
    DemoGPT(
        publisher="demo-lab",
        slug="plain-words",
        use_cases=("explain",),
        en=Page(
            name="Plain Words",
            summary="Explains an everyday thing in a sentence or two of plain English.",
            use="Ask `What is …?` about one thing: a device, a place, something in nature, a word of daily life.",
            limits="Questions why and how go wrong. It can explain a word by the word itself, or state something false with confidence: "
            "check what matters.",
        ),
        zh=Page(
            name="浅显解释",
            summary="用一两句浅显的英语解释日常事物。本 GPT 只支持英语。",
            use="用 `What is …?` 问一样东西：设备、场所、自然现象或日常生活中的词。",
            limits="问原因、问过程会出错。它会用词语本身来解释词语，也可能很自信地说错：重要的内容请核对。",
        ),
    ),
    DemoGPT(
        publisher="demo-lab",
        slug="python-snippets",
        use_cases=("code",),
        en=Page(
            name="Python Snippets",
            summary="Writes very small Python functions from a one-line request in English.",
            use="Ask `Write a Python function that …` for something that takes one to three lines of code.",
            limits="Anything longer, formulas and corner cases go wrong, and the examples that it adds can be false. Run the code before "
            "you trust it.",
        ),
        zh=Page(
            name="Python 小函数",
            summary="根据一行英语请求写出很小的 Python 函数。本 GPT 只支持英语。",
            use="用 `Write a Python function that …` 请求只需一到三行代码的函数。",
            limits="更长的代码、公式和边界情况会出错，它附带的示例也可能不对。请先运行再相信。",
        ),
    ),
)
