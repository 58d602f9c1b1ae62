"""Texts of GPTs as publishers write them, in English and Chinese, drawn with a seed: the same number is always the same GPT."""

from __future__ import annotations

import random
from dataclasses import dataclass

TASKS = {  # use case: (names, what it does, 名称, 做什么)
    "chat": (["Companion", "Desk", "Host", "Talk"], "talks with people about", ["陪聊", "小助手", "对话伙伴"], "和人聊"),
    "summarise": (["Digest", "Summariser", "Brief", "TLDR"], "sums up", ["摘要", "速读", "总结助手"], "总结"),
    "answer": (["Answers", "Q&A", "Finder", "FAQ"], "answers questions about", ["问答", "答疑", "知识库问答"], "回答关于"),
    "rewrite": (["Polisher", "Rewriter", "Plain Words", "Editor"], "rewrites texts about", ["润色", "改写助手", "校对"], "改写"),
    "extract": (["Extractor", "Fields", "Parser", "Structure"], "takes the facts out of", ["信息提取", "抽取", "结构化"], "提取"),
    "explain": (["Tutor", "Explained", "Teacher", "Lessons"], "explains", ["讲解", "家教", "入门课"], "讲解"),
    "write": (["Writer", "Drafts", "Author", "Studio"], "writes", ["写作", "文案", "起草助手"], "撰写"),
    "translate": (["Translator", "Interpreter", "Two Tongues"], "translates", ["翻译", "译者", "双语助手"], "翻译"),
    "code": (
        ["Coder", "Debugger", "Scripts", "Snippets"],
        "writes and mends programs for",
        ["编程助手", "代码", "脚本生成"],
        "编写程序处理",
    ),
}
SUBJECTS = [
    *[("contracts", "合同"), ("court rulings", "判决书"), ("tax returns", "报税表"), ("patents", "专利")],
    *[("invoices", "发票"), ("leases", "租约")],
    *[("recipes", "菜谱"), ("meal plans", "食谱"), ("wine lists", "酒单")],
    *[("restaurant reviews", "餐厅点评"), ("shopping lists", "购物清单")],
    *[("lab reports", "化验单"), ("discharge letters", "出院小结"), ("drug labels", "药品说明书")],
    *[("symptoms", "症状"), ("nursing notes", "护理记录")],
    *[("school essays", "学生作文"), ("physics homework", "物理作业"), ("algebra", "代数")],
    *[("chemistry", "化学"), ("exam papers", "试卷")],
    *[("Tang poems", "唐诗"), ("short stories", "短篇小说"), ("song lyrics", "歌词")],
    *[("film scripts", "电影剧本"), ("fairy tales", "童话")],
    *[("customer mails", "客户邮件"), ("support tickets", "工单"), ("meeting minutes", "会议纪要")],
    *[("job adverts", "招聘启事"), ("resumes", "简历")],
    *[("product pages", "商品详情"), ("press releases", "新闻稿"), ("news articles", "新闻")],
    *[("podcasts", "播客"), ("subtitles", "字幕")],
    *[("SQL queries", "数据库查询"), ("spreadsheets", "电子表格"), ("log files", "日志")],
    *[("API documents", "接口文档"), ("unit tests", "单元测试")],
    *[("travel routes", "旅行路线"), ("train timetables", "列车时刻表"), ("hotel bookings", "酒店预订")],
    *[("museum guides", "博物馆导览")],
    *[("weather data", "气象数据"), ("soil samples", "土壤样本"), ("crop diseases", "作物病害")],
    *[("bird songs", "鸟鸣"), ("star charts", "星图")],
    *[("insurance claims", "保险理赔"), ("bank statements", "银行流水"), ("stock reports", "股票研报")],
    *[("pension plans", "养老金"), ("budgets", "预算")],
    *[("bug reports", "缺陷报告"), ("shell scripts", "命令行脚本"), ("regular expressions", "正则表达式")],
    *[("database schemas", "表结构")],
    *[("chess games", "棋谱"), ("football matches", "足球比赛"), ("training plans", "健身计划")],
    *[("yoga lessons", "瑜伽课"), ("hiking trails", "徒步路线")],
    *[("old letters", "旧信"), ("family trees", "家谱"), ("local dialects", "方言")],
    *[("classical Chinese", "文言文"), ("Latin inscriptions", "拉丁铭文")],
]  # fmt: skip
PEOPLE = [
    *[("lawyers", "律师"), ("nurses", "护士"), ("teachers", "教师"), ("children", "儿童")],
    *[("pupils", "中学生"), ("students", "大学生")],
    *[("farmers", "农户"), ("clerks", "文员"), ("engineers", "工程师"), ("travellers", "旅行者")],
    *[("editors", "编辑"), ("cooks", "厨师")],
    *[("small shops", "小店"), ("journalists", "记者"), ("researchers", "研究人员"), ("parents", "家长")],
    *[("founders", "创业者"), ("hobbyists", "爱好者")],
]  # fmt: skip
STYLES = [
    *[("Quick", "快捷"), ("Careful", "严谨"), ("Plain", "简明"), ("Gentle", "温和")],
    *[("Bright", "明快"), ("Patient", "耐心"), ("Tiny", "迷你")],
    *[("Northern", "北方"), ("Harbour", "港湾"), ("Lantern", "灯笼"), ("Bamboo", "竹间")],
    *[("Silver", "银色"), ("Open", "开放"), ("Honest", "诚实")],
]  # fmt: skip
SENTENCES = [
    ("It works best with texts of up to two pages.", "适合两页以内的文本。"),
    ("Names, dates and amounts are kept as they stand.", "人名、日期和金额保持原样。"),
    ("It says so when the text does not hold the answer.", "文中没有答案时会直接说明。"),
    ("It was tried on two hundred examples by people of the trade.", "由业内人士用两百个例子试用过。"),
    ("Do not use it where a mistake does harm: read its answers first.", "不要用于一旦出错就会造成伤害的场合，请先阅读其回答。"),
    ("Its examples come from public records and are named in the description.", "示例来自公开资料，并在说明中列出。"),
    ("Answers are short, in the language of the question.", "回答简短，使用提问的语言。"),
    ("Ask for a table and it gives one.", "要表格就给表格。"),
]


@dataclass(frozen=True)
class Text:
    slug: str
    use_cases: tuple[str, ...]
    en: tuple[str, str, str]  # name, summary, card
    zh: tuple[str, str, str] | None


def text_of(number: int) -> Text:
    """The texts of GPT `number`. Three of five have Chinese ones too."""
    rng = random.Random(number)
    use_case, other = rng.sample(list(TASKS), 2)
    titles, does, titles_zh, does_zh = TASKS[use_case]
    (subject, subject_zh), (person, person_zh), (style, style_zh) = rng.choice(SUBJECTS), rng.choice(PEOPLE), rng.choice(STYLES)
    title, title_zh = rng.choice(titles), rng.choice(titles_zh)
    about = rng.sample(SENTENCES, 5)
    name = f"{style} {subject.title()} {title}"[:60]
    en = (name, f"For {person}: {does} {subject}.", f"## Use\n\nIt {does} {subject} for {person}.\n\n" + " ".join(s for s, _zh in about))
    zh = None
    if rng.random() < 0.6:
        zh = (
            f"{style_zh}{subject_zh}{title_zh}",
            f"为{person_zh}{does_zh}{subject_zh}。",
            f"## 用途\n\n为{person_zh}{does_zh}{subject_zh}。\n\n" + "".join(s for _en, s in about),
        )
    return Text(f"{title.lower().replace(' ', '-').replace('&', '')}-{number}", (use_case, other)[: rng.choice((1, 1, 2))], en, zh)
