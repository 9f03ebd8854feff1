"""Facts in documents, found by rules: names, numbers, dates and terms in sentences, cells of tables, answers to questions.

A fact is a span of a sentence that can be asked for. No model finds them, so that what is taught is what was written.
"""

import re
from dataclasses import dataclass
from functools import cache

from .documents import Document
from .language import sentences
from .verbs import has_verb

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_MONATE = "января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря"
_NUMBER = r"\d{1,3}(?:[ ,\u00a0]\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?"
_WORDS = "one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty sixty ninety"
_UNITS = (
    "days?|weeks?|months?|years?|hours?|minutes?|seconds?|people|persons?|employees|staff|litres?|liters?|ml|kg|kilograms?"
    "|grams?|g|km|kilometres?|metres?|meters?|cm|mm|watts?|kW|W|volts?|degrees|GB|MB|points?|rooms?|shops?|stores?|units?|pieces"
    "|дн(?:я|ей)|день|недел[ьюия]+|месяц(?:а|ев)?|лет|год(?:а|ов)?|час(?:а|ов)?|минут[аы]?|человек[а]?|сотрудник(?:а|ов)"
    "|литр(?:а|ов)?|килограмм(?:а|ов)?|кг|км|метр(?:а|ов)?"
    "|天|个月|个工作日|工作日|年|小时|分钟|周|名员工|人|名|公斤|千克|升|米|公里|台|件|家|个"
)
#: Kinds of fact, in the order in which they are looked for; a span belongs to the first that finds it.
PATTERNS = {
    "date": rf"\b\d{{1,2}} (?:{_MONTHS})(?: \d{{4}})?\b|\b(?:{_MONTHS}) \d{{1,2}}(?:, \d{{4}})?\b|\b(?:{_MONTHS}) \d{{4}}\b"
    rf"|\b\d{{4}}-\d{{2}}-\d{{2}}\b|\b\d{{1,2}} (?:{_MONATE})(?: \d{{4}}(?: года)?)?|\d{{4}} ?年(?: ?\d{{1,2}} ?月(?: ?\d{{1,2}} ?日)?)?|\d{{1,2}}月\d{{1,2}}日"
    r"|(?:(?<=\bin )|(?<=\bsince )|(?<=\bв )|(?<=\bс ))(?:1[89]|20)\d\d\b(?: год[уа])?",
    "time": r"\b\d{1,2}:\d{2}\b(?: ?[ap]\.?m\.?)?|\b\d{1,2} (?:am|pm)\b",
    "money": rf"(?:[€$£¥₽]|\b(?:EUR|USD|GBP|RUB|CNY) ?)(?:{_NUMBER})(?: (?:million|thousand|billion))?"
    rf"|\b(?:{_NUMBER}) ?(?:(?:thousand|million|billion|тыс\.|млн) )?(?:euros?|dollars?|pounds?|crowns?|marks?|cents?|EUR|USD|рубл(?:ь|я|ей)|€|₽)(?!\w)"
    rf"|(?:{_NUMBER}) ?万?(?:元|美元|欧元)",
    "percent": rf"(?:{_NUMBER}) ?(?:%|per cent\b|percent\b|процент(?:а|ов)?\b)|百分之[一二三四五六七八九十百\d]+",
    "code": r"\b[A-Z]{1,5}[-–]?\d[A-Z0-9-]*\b|\b[\w.+-]+@[\w-]+\.[\w.-]*\w\b|\bhttps?://\S+\w|\b(?:ext(?:ension)?\.? )?\d{4}\b(?= (?:or|by) (?:phone|e-?mail))",
    "quantity": rf"(?:(?<![A-Za-z0-9.,])(?:{_NUMBER})|\b(?:{_WORDS.replace(' ', '|')})\b|[一二三四五六七八九十百两]+)[ \u00a0-]?(?:working |calendar |business |рабочих |full |более чем )?(?:{_UNITS})(?![A-Za-zа-я])"
    rf"|(?<![A-Za-z0-9.,])(?:{_NUMBER}) (?:square |cubic )?[a-z]{{3,}}s\b",
    "term": r"(?<=[“\"«『「《])[^”\"»』」》\n]{2,40}(?=[”\"»』」》])",
    "number": rf"(?<![A-Za-z0-9_.,#/-])(?:{_NUMBER})(?![A-Za-z0-9_%/-])",
}
_CAPITAL = {
    "en": r"[A-Z][\w&-]*\w(?:(?:['’]s?)?(?: (?:of|the|de|van|von|and|&))*? [A-Z][\w&-]*\w)*",
    "ru": r"[А-ЯЁA-Z][\w-]*\w(?: [А-ЯЁA-Z][\w-]*\w)*",
}
_SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾萧田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严"
_HAN_NAME = rf"(?<=[由是为，、的和与向找])[{_SURNAMES}][\u4e00-\u9fff]{{1,2}}(?=[，。、；]|担任|负责|创立|创办|设计|领导|管理|批准|和|先生|女士|的|主持|撰写|发明)|(?:^|(?<=，))[{_SURNAMES}][\u4e00-\u9fff]{{1,2}}(?=担任|负责|创立|创办|设计|领导|管理|批准|于|在|是|主持|发明)"
_NOT_NAMES = frozenset(
    f"{_MONTHS.replace('|', ' ')} Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mondays Tuesdays Wednesdays Thursdays "
    "Fridays Saturdays Sundays I The A An In On At It They He She We "
    "You If When Every All Each No For This That There Its Our Your After Before Since From To Of And But Or As By With".split()
)
_PRONOUNS = re.compile(
    r"(?:It|Its|They|Their|He|His|She|Her|This|That|These|Those|Both|Such|Then|There|Here|But|And|So|One|Another"
    r"|Он|Она|Оно|Они|Его|Её|Их|Это|Этот|Эта|Эти|Там|Тогда|Но|它|他|她|这|那|该|其|他们|她们|它们)(?![\w\u4e00-\u9fff]*[A-Za-zА-Яа-я])"
)
_SHORTEST, _LONGEST = 18, 320  # characters of a sentence that can be asked about
_MOST_A_SENTENCE = 2


@dataclass(frozen=True)
class Fact:
    """Something that a document says and that can be asked for.

    `sentence[start:end]` is the answer, of the given kind; `topic` is the heading that it stands under. Where it is the
    cell of a table, `entity` is its row and `column` the name of its column.
    """

    document: str
    title: str
    topic: str
    sentence: str
    start: int
    end: int
    kind: str
    language: str
    entity: str = ""
    column: str = ""

    @property
    def answer(self) -> str:
        return self.sentence[self.start : self.end]


def facts_of(document: Document) -> list[Fact]:
    """All facts of `document`, in its order, no answer in the same sentence twice."""
    found: list[Fact] = []
    topic = document.title
    for block in document.blocks:
        if block.kind == "heading":
            topic = block.text
        elif block.kind == "text":
            found += _in_text(document, topic, block.text)
        elif block.kind == "question":
            found += _in_text(document, topic, block.rows[0][0])
        else:
            found += _in_table(document, block.text or topic, block.rows)
    return list(dict.fromkeys(found))


def questions_of(document: Document) -> list[tuple[str, str]]:
    """The questions that `document` asks and answers itself: as rows, or as a heading with a question mark."""
    found, heading = [], None
    for block in document.blocks:
        if block.kind == "question":
            found.append((block.text, block.rows[0][0]))
        elif block.kind == "text" and heading is not None:
            found.append((heading, block.text))
        heading = block.text if block.kind == "heading" and block.text.rstrip()[-1:] in ("?", "？") else None
    return found


def _in_text(document: Document, topic: str, text: str) -> list[Fact]:
    found = []
    for sentence in sentences(text, document.language):
        # A sentence that leans on the one before it cannot be asked about alone; it is still learned as text.
        if not _SHORTEST // (1 + 2 * (document.language == "zh")) <= len(sentence) <= _LONGEST or _PRONOUNS.match(sentence):
            continue
        for start, end, kind in _chosen(sentence, spans(sentence, document.language)):
            found.append(
                Fact(document.path, document.title, topic, sentence, start, end, kind, document.language)
            )
    return found


def _chosen(sentence: str, found: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The spans of a sentence that are asked for: the last ones, for which the sentence says most before them.

    A name inside an English sentence's subject is what the sentence is about, and not what it says.
    """
    said = [span for span in found if span[2] != "name" or not span[0] or has_verb(sentence[: span[0]])]
    return said[-_MOST_A_SENTENCE:]


def spans(sentence: str, language: str) -> list[tuple[int, int, str]]:
    """Start, end and kind of what can be asked for in a sentence, in order, none inside another."""
    found: list[tuple[int, int, str]] = []
    for kind, pattern in _patterns(language).items():
        for match in pattern.finditer(sentence):
            start, end = match.span()
            if any(start < other_end and other_start < end for other_start, other_end, _ in found):
                continue
            if kind == "name" and not _is_name(match[0], start, language):
                continue
            found.append((start, end, kind))
    return sorted(found)


@cache
def _patterns(language: str) -> dict[str, re.Pattern[str]]:
    """The kinds in order; names after codes, so that `HK-204` is none, and before plain numbers."""
    table = dict(PATTERNS)
    name = _HAN_NAME if language == "zh" else _CAPITAL.get(language, _CAPITAL["en"])
    order = ["date", "time", "money", "percent", "code", "quantity", "term", "name", "number"]
    return {kind: re.compile(name if kind == "name" else table[kind]) for kind in order}


def _is_name(text: str, start: int, language: str) -> bool:
    """Whether capitals make a name here: not a month, nor a single word at the start, which has one anyway."""
    words = text.split()
    if any(word in _NOT_NAMES for word in (words[0], words[-1])):
        return False
    return language == "zh" or start > 0 or len(words) > 1


def _in_table(document: Document, caption: str, rows: tuple[tuple[str, ...], ...]) -> list[Fact]:
    """The cells of a table as facts about its rows, which the first column names; of a table without a head, none."""
    head, *body = rows
    entities = [row[0] for row in body if row]
    if len(head) < 2 or len(set(entities)) < len(entities) or any(not name for name in head):
        return []
    found = []
    for row in body:
        for column, value in zip(head[1:], row[1:], strict=False):
            if not value or not row[0] or len(value) > 60:
                continue
            said = f"{head[0]} {row[0]}, {column}: {value}"
            start = len(said) - len(value)
            kinds = [kind for begin, end, kind in spans(f"x {value}", document.language) if end - begin == len(value)]
            kind = kinds[0] if kinds else f"cell {column}"
            found.append(
                Fact(
                    document.path, document.title, caption or document.title, said, start, len(said), kind,
                    document.language, row[0], column,
                )
            )  # fmt: skip
    return found
