"""Other words for the use cases, in English and Chinese. An operator's own use cases bring theirs (`UseCase.synonyms`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from store.catalog.models import UseCase
from store.catalog.search import terms

KNOWN: dict[str, str] = {
    "chat": "chat, chatbot, conversation, conversational, talk, assistant, companion, 聊天, 对话, 闲聊, 陪聊, 聊天机器人, 交谈, 助手",
    "summarise": "summarise, summarize, summary, summaries, summariser, summarizer, tldr, tl dr, digest, abstract, shorten, condense, "
    "recap, 摘要, 总结, 概括, 归纳, 提炼, 缩写, 概要, 纪要, 浓缩",
    "answer": "question answering, answer, answers, qa, q a, reading comprehension, rag, faq, "
    "问答, 回答, 答疑, 依文作答, 阅读理解, 解答, 答题",
    "rewrite": "rewrite, rephrase, reword, paraphrase, polish, proofread, grammar, tone, 改写, 润色, 重写, 校对, 改稿, 换个说法, 修改文字",
    "extract": "extract, extraction, parse, structured, entities, fields, ner, 提取, 抽取, 提取信息, 信息抽取, 结构化, 实体识别",
    "explain": "explain, explanation, teach, tutor, tutoring, lesson, learn, homework, 讲解, 解释, 教学, 辅导, 讲课, 家教, 学习, 说明",
    "write": "write, writer, writing, draft, compose, author, copywriting, copy, essay, story, poem, "
    "写作, 文案, 写文章, 作文, 撰写, 创作, 起草",
    "translate": "translate, translation, translator, translating, interpreter, localise, localize, "
    "翻译, 译文, 互译, 中译英, 英译中, 译成, 译者",
    "code": "code, coding, programming, programmer, developer, software, debug, debugging, 编程, 代码, 程序, 写代码, 程序员, 开发, 调试",
}


@dataclass(frozen=True)
class Synonyms:
    """By their normalised words: of Latin script as tuples, of Chinese as one run; each with the slug of its use case."""

    words: dict[tuple[str, ...], str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, use_cases: list[UseCase]) -> Synonyms:
        words: dict[tuple[str, ...], str] = {}
        cjk: dict[str, str] = {}
        for use_case in use_cases:
            listed = [KNOWN.get(use_case.slug, ""), use_case.synonyms, use_case.name_en, use_case.name_zh, use_case.slug]
            for phrase in ",".join(listed).replace("，", ",").replace("、", ",").replace("\n", ",").split(","):
                parts = tuple(terms.runs(phrase))
                if len(parts) == 1 and terms.is_cjk(parts[0]):
                    cjk.setdefault(parts[0], use_case.slug)
                elif parts and not any(map(terms.is_cjk, parts)):
                    words.setdefault(parts, use_case.slug)
        return cls(words, cjk)

    @property
    def longest(self) -> int:
        return max(map(len, self.words), default=1)

    def slug_of(self, words: Sequence[str]) -> str:
        """The use case that these words mean, in the singular or plural; "" for none."""
        whole = tuple(words)
        return self.words.get(whole) or self.words.get((*whole[:-1], whole[-1].removesuffix("s")), "")

    def in_run(self, run: str) -> list[tuple[str, str]]:
        """The run cut at the synonyms in it, longest first: `(piece, slug)`, with "" for what is none."""
        pieces, rest, start = [], "", 0
        longest = max(map(len, self.runs), default=0)
        while start < len(run):
            sizes = range(min(longest, len(run) - start), 0, -1)
            found = next((run[start : start + size] for size in sizes if run[start : start + size] in self.runs), "")
            if found:
                pieces += [(rest, "")] if rest else []
                pieces.append((found, self.runs[found]))
                rest = ""
            else:
                rest += run[start]
            start += len(found) or 1
        return [*pieces, (rest, "")] if rest else pieces
