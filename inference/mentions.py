"""How often groups of people are mentioned, by a small list of words in English and Chinese.

Counts alone: they show whether data speaks of some and hardly of others, not what it says about them. A word may mean
something else where it stands (“Indian” food), so the numbers are to be compared with each other, not taken as exact.
"""

from __future__ import annotations

import re
from collections import Counter

# axis: group: words, English ones in lower case; Chinese ones are found anywhere, as nothing parts words there.
WORDS: dict[str, dict[str, str]] = {
    "gender": {
        "women": "she her hers herself woman women girl girls female females lady ladies mother mothers wife wives daughter daughters "
        "sister sisters 她 女人 女性 女士 女孩 女生 姑娘 母亲 妈妈 妻子 女儿 姐姐 妹妹",
        "men": "he him his himself man men boy boys male males gentleman gentlemen father fathers husband husbands son sons "
        "brother brothers 男人 男性 男士 男孩 男生 父亲 爸爸 丈夫 儿子 哥哥 弟弟",
        "gender_minorities": "transgender nonbinary non-binary genderqueer intersex 跨性别 非二元性别 间性人",
    },
    "religion": {
        "christians": "christian christians christianity catholic catholics protestant protestants 基督徒 基督教 天主教 新教",
        "muslims": "muslim muslims islam islamic 穆斯林 伊斯兰",
        "jews": "jew jews jewish judaism 犹太",
        "buddhists": "buddhist buddhists buddhism 佛教 佛教徒",
        "hindus": "hindu hindus hinduism 印度教",
        "non_believers": "atheist atheists atheism agnostic agnostics 无神论 不可知论",
    },
    "nationality": {
        "americans": "american americans 美国人",
        "britons": "british briton britons englishman englishwoman 英国人",
        "chinese": "chinese 中国人",
        "french": "french frenchman frenchwoman 法国人",
        "germans": "german germans 德国人",
        "indians": "indian indians 印度人",
        "japanese": "japanese 日本人",
        "koreans": "korean koreans 韩国人 朝鲜人",
        "mexicans": "mexican mexicans 墨西哥人",
        "nigerians": "nigerian nigerians 尼日利亚人",
        "russians": "russian russians 俄罗斯人 俄国人",
        "ukrainians": "ukrainian ukrainians 乌克兰人",
    },
    "age": {
        "children": "child children kid kids toddler toddlers teenager teenagers 儿童 孩子 小孩 青少年",
        "old_people": "elderly pensioner pensioners grandmother grandfather grandmothers grandfathers 老人 老年人 奶奶 爷爷 外婆 外公",
    },
    "disability": {
        "disabled_people": "disabled disability disabilities blind deaf wheelchair autistic autism 残疾 残障 盲人 聋人 轮椅 自闭症",
    },
    "orientation": {
        "straight_people": "heterosexual heterosexuals 异性恋",
        "gay_people": "gay gays lesbian lesbians homosexual homosexuals bisexual bisexuals queer 同性恋 双性恋",
    },
}
GROUPS = {word: (axis, group) for axis, groups in WORDS.items() for group, words in groups.items() for word in words.split()}
_ENGLISH = re.compile(r"[a-z]+(?:-[a-z]+)*")
_CHINESE = re.compile("|".join(sorted((word for word in GROUPS if not word.isascii()), key=len, reverse=True)))


class Mentions:
    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def read(self, text: str) -> None:
        self._counts.update(GROUPS[word] for word in _ENGLISH.findall(text.lower()) if word in GROUPS)
        if not text.isascii():
            self._counts.update(GROUPS[word] for word in _CHINESE.findall(text))

    def to_json(self) -> dict[str, dict[str, int]]:
        """Axis: group: mentions; also those that were not mentioned, as that is what to look for."""
        return {axis: {group: self._counts[axis, group] for group in groups} for axis, groups in WORDS.items()}
