"""What can be asked for, as regular expressions: dates, prices, numbers with units, codes, quoted terms, names."""

import re
from functools import cache

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_MONTHS_RU = "января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря"
_NUMBER = r"(?:\d{1,3}(?:[ ,\u00a0]\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?)"
_WORDS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|ninety"
    "|[一二三四五六七八九十百两]+"
)
_UNITS = "|".join(
    [
        r"days?|weeks?|months?|years?|hours?|minutes?|seconds?|people|persons?|employees|staff|pieces|degrees",
        r"litres?|liters?|ml|kg|kilograms?|grams?|g|km|kilometres?|metres?|meters?|cm|mm|watts?|kW|W|volts?|GB|MB",
        r"дн(?:я|ей)|день|недел[ьюия]+|месяц(?:а|ев)?|лет|год(?:а|ов)?|час(?:а|ов)?|минут[аы]?|человек[а]?",
        r"сотрудник(?:а|ов)|литр(?:а|ов)?|килограмм(?:а|ов)?|кг|км|метр(?:а|ов)?",
        r"天|日|个月|个工作日|工作日|年|小时|分钟|周|名员工|人|名|公斤|千克|升|米|公里|台|件|家|个",
    ]
)
_CURRENCIES = r"euros?|dollars?|pounds?|crowns?|marks?|cents?|EUR|USD|рубл(?:ь|я|ей)|€|₽"
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾萧田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔"
    "钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严"
)
_DEEDS = "担任|负责|创立|创办|设计|领导|管理|批准|主持|撰写|发明"
_DOUBLE_SURNAMES = "欧阳|司马|上官|诸葛|司徒|东方|夏侯|皇甫|尉迟|公孙|慕容|长孙|宇文|令狐"
_HAN_NAME = (
    rf"(?<=[由是为，、的和与向找])(?:{_DOUBLE_SURNAMES}|[{_SURNAMES}])[\u4e00-\u9fff]{{1,2}}(?=[，。、；]|{_DEEDS}|和|先生|女士|的)"
    rf"|(?:^|(?<=，))(?:{_DOUBLE_SURNAMES}|[{_SURNAMES}])[\u4e00-\u9fff]{{1,2}}(?={_DEEDS}|于|在|是)"
)
_CAPITALS = {
    "en": r"(?<![\w–-])(?:St\. )?[A-Z][\w&-]*\w(?:(?:['’]s?)?"
    r"(?: (?:of|the|de|van|von|and|&))*?(?: St\.)? [A-Z][\w&-]*\w)*",
    "ru": r"[А-ЯЁA-Z][\w-]*\w(?: [А-ЯЁA-Z][\w-]*\w)*",
}


def _any(*patterns: str) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns)


#: Kinds of answer in the order in which they are looked for: a span belongs to the first kind that finds it. Names come
#: after codes, so that `HK-204` is none, and before plain numbers.
_KINDS = {
    "date": _any(
        rf"\b\d{{1,2}} (?:{_MONTHS})(?: \d{{4}})?\b",
        rf"\b(?:{_MONTHS}) \d{{1,2}}(?:, \d{{4}})?\b",
        rf"\b(?:{_MONTHS}) \d{{4}}\b",
        r"\b\d{4}-\d{2}-\d{2}\b",
        rf"\b\d{{1,2}} (?:{_MONTHS_RU})(?: \d{{4}}(?: года)?)?",
        r"\d{4} ?年(?: ?\d{1,2} ?月(?: ?\d{1,2} ?日)?)?",
        r"\d{1,2}月\d{1,2}日",
        r"(?:(?<=\b(?:in|of|by|In|By) )|(?<=\b(?:since|until|after|Since) )|(?<=\b(?:from|late) )|(?<=\b(?:for) )"
        r"|(?<=\b(?:before|during) )|(?<=\bearly )|(?<=\b[вВсС] ))(?:1\d|20)\d\d\b(?: год[уа])?",
    ),
    "time": _any(r"(?<![\d:])\d{1,2}:\d{2}(?![\d:])(?: ?[ap]\.?m\.?)?", r"\b\d{1,2} (?:am|pm)\b"),
    "money": _any(
        rf"(?:[€$£¥₽]|\b(?:EUR|USD|GBP|RUB|CNY) ?){_NUMBER}(?: (?:million|thousand|billion))?",
        rf"\b{_NUMBER} ?(?:(?:thousand|million|billion|тыс\.|млн) )?(?:{_CURRENCIES})(?!\w)",
        rf"{_NUMBER} ?万?(?:元|美元|欧元)",
    ),
    "phone": _any(
        r"(?<![A-Za-z0-9+])\+\d{1,3}[ -]?(?:\(\d+\)[ -]?)?\d[\d -]{4,}\d", r"\b8 ?\(\d{3,5}\) ?\d[\d -]{3,}\d"
    ),
    "percent": _any(rf"{_NUMBER} ?(?:%|per cent\b|percent\b|процент(?:а|ов)?\b)", r"百分之[一二三四五六七八九十百\d]+"),
    "code": _any(r"\b[A-Z]{1,5}[-–]?\d[A-Z0-9-]*\b", r"\b[\w.+-]+@[\w-]+\.[\w.-]*\w\b", r"\bhttps?://\S+\w"),
    "quantity": _any(
        rf"(?:(?<![A-Za-z0-9.,]){_NUMBER}|\b(?:{_WORDS}))[ \u00a0-]?(?:working |calendar |рабочих )?"
        rf"(?:{_UNITS})(?![A-Za-zа-я])",
        rf"(?<![A-Za-z0-9.,]){_NUMBER} (?:square |cubic )?[a-z]{{3,}}s\b",
    ),
    # A straight quotation mark that ends a quotation has a letter before it.
    "term": r"(?:(?<=[“«『「《])|(?<=\W\")|(?<=^\"))(?! )[^”\"»』」》\n]{1,39}[^”\"»』」》\n.,;](?=[.,;]?[”\"»』」》])",
    "name": "",
    "number": rf"(?<![A-Za-z0-9_.,#/(=–-])(?<![=(] ){_NUMBER}(?![A-Za-z0-9_%/°–-])",
}


@cache
def patterns(language: str) -> dict[str, re.Pattern[str]]:
    """The kinds of answer, in order, with what finds them in texts of `language`."""
    name = _HAN_NAME if language == "zh" else _CAPITALS.get(language, _CAPITALS["en"])
    return {kind: re.compile(name if kind == "name" else pattern) for kind, pattern in _KINDS.items()}


_NOT_NAMES = frozenset(
    f"{_MONTHS.replace('|', ' ')} "
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mondays Tuesdays Wednesdays Thursdays "
    "Fridays Saturdays Sundays I The A An In On At It They He She We You If When Every All Each No For "
    "This That There Many Most Some Several Few Other Both Its Our Your After Before Since From To Of And "
    "But Or As By With".split()
)


_COMMON_NAMES = frozenset("District Districts Class Room Section Department".split())  # what many things are called
_TITLES_ZH = re.compile("董事|经理|主任|总监|负责|先生|女士|部门|公司|任何|万元|时间")


def is_name(text: str, start: int, language: str) -> bool:
    """Whether capitals make a name here: not of a month, nor of a single word at the start, which has one anyway."""
    words = text.split()
    if words[0] in _NOT_NAMES or words[-1] in _NOT_NAMES:
        return False
    if language == "zh":
        return not _TITLES_ZH.search(text)
    if text.endswith(("-St", " St")) or text in _COMMON_NAMES or {"Many", "Most", "Several", "Some"} & set(words):
        return False
    return start > 0 or len(words) > 1
