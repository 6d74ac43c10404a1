"""Units and words of number in other scripts than ASCII: `5元`, `5 кг`, `5만 원`, `30 años`. Nothing is translated but units.

Letters of such scripts are never variables, so they are words wherever they stand behind a value; those that change its
value multiply it (`5万`) or make the whole a text (`5元以上`).
"""

import re
import unicodedata

from rewards.math.changing_words import changes_number

_POWER = re.compile(r"\^\s*(?:\{\s*(\d)\s*\}|(\d))$")
_LATIN_END = "\u0250"
_GREEK = re.compile("[\u0370-\u03ff\u1f00-\u1fff]")
"""Names in formulas, as ASCII letters are."""

_KNOWN = {
    name: unit
    for unit, names in {
        "km": "公里 千米 км километр километра километров 킬로미터 キロメートル キロ कि.मी.", "m": "米 公尺 м метр метра метров 미터 メートル मीटर متر",
        "cm": "厘米 公分 см сантиметр сантиметра сантиметров 센티미터 センチメートル センチ सेमी سم", "mm": "毫米 мм 밀리미터 ミリメートル ミリ",
        "dm": "分米 дм", "kg": "千克 公斤 кг килограмм килограмма килограммов 킬로그램 キログラム किग्रा كجم كغ", "g": "克 г грамм грамма граммов 그램 グラム",
        "mg": "毫克 мг", "t": "吨 噸 т тонна тонны тонн 톤 トン", "l": "升 公升 л литр литра литров 리터 リットル", "ml": "毫升 мл 밀리리터 ミリリットル",
        "h": "小时 小時 时 時 钟头 時間 시간 ч час часа часов", "min": "分钟 分鐘 мин минута минуты минут", "s": "秒 秒钟 초 с сек секунда секунды секунд",
        "°": "度 градус градуса градусов 도", "°C": "摄氏度 攝氏度", "%": "процент процента процентов 퍼센트 パーセント प्रतिशत بالمئة بالمائة",
        "yuan": "元 圆 圓 块 塊 块钱 元人民币 人民币 юаней юань", "jiao": "角", "yen": "円 日元 エン иен", "won": "원 韩元",
        "ruble": "рубль рубля рублей руб руб. р", "dollar": "美元 美金 달러 ドル доллар доллара долларов", "euro": "欧元 유로 ユーロ евро",
        "rupee": "रुपये रुपया रुपए रु",
    }.items()
    for name in names.split()
}  # fmt: skip
"""Word → unit as `rewards.math.units` calls it."""
_POWERS = (("平方", "^2"), ("立方", "^3"), ("제곱", "^2"), ("평방", "^2"), ("세제곱", "^3"), ("кв. ", "^2"), ("кв.", "^2"), ("кв ", "^2"),
           ("куб. ", "^3"), ("куб.", "^3"), ("куб ", "^3"))  # fmt: skip

_SCALES = {
    **dict.fromkeys("十십", 10), **dict.fromkeys("百백", 100), **dict.fromkeys("千천", 1000),
    **dict.fromkeys("万萬만", 10**4), **dict.fromkeys("亿億억", 10**8), **dict.fromkeys("兆조", 10**12),
}  # fmt: skip
_LONGEST = 40
"""Characters of a unit with its scale."""
_MOST_SCALES = 3
_SCALE_SIGNS = re.compile(f"[{''.join(_SCALES)}]+")
_SCALE_WORDS = (
    (re.compile("тысяч[аи]?|тыс|हज़ार|हजार|ألف|آلاف|אלף|พัน"), 10**3),
    (re.compile("млн|миллион(?:а|ов)?|مليون|ملايين|מיליון|ล้าน"), 10**6),
    (re.compile("млрд|миллиард(?:а|ов)?|مليار|מיליארד"), 10**9),
    (re.compile("लाख"), 10**5), (re.compile("करोड़|करोड"), 10**7), (re.compile("सौ|مئة|مائة"), 100),
)  # fmt: skip

_CHANGES = re.compile(
    # more than, less than, about, or, not, half, times, tenths, to, -th
    "[半多余餘约約以不未非或和与與及至近超负負折倍割成第几幾數数番又]|左右|大于|大於|小于|小於|等于|等於|最|分之|上下|平方$|立方$|次方|根号|无穷|無窮|無限|无限"
    "|以上|이상|이하|초과|미만|정도|쯤|^반$|^배$|번째|くらい|ぐらい|ほど|より|では"
)
_CHANGING_WORD = re.compile(
    "или|и|не|нет|больше|меньше|более|менее|около|примерно|раз|раза|половин(?:[аыу]|ой)?|дюжин[аы]?|минус|плюс|без|кроме|до|от"
    "|(?:втор|трет|четв[её]рт|пят|шест|седьм|восьм|девят|десят|сот|тысячн|миллионн)(?:ых|ая|ую|ой|ей|и|ь)?|трети|сотен|сотни"
    "|أو|نصف|ربع|ثلث|ليس|تقريبا|या|आधा|नहीं|लगभग|או|חצי|לא|หรือ|ครึ่ง|ไม่|หมื่น|แสน"
    "|más|moitié|à|où|même|fünf[^\\W\\d_]*|zwölf[^\\W\\d_]*|dreißig[^\\W\\d_]*|mill?i?h?[óõã][^\\W\\d_]*|größer|höchstens|ungefähr|não|três|até|één|två"
)
_SINGLE = frozenset("мгстлчрВАНКДЖ")
"""Cyrillic letters that are units when they stand alone; others may be meant for the letters that look like them."""

_DIGITS = "一二三四五六七八九"
NUMBERS = {
    **{sign: value for value, sign in enumerate(_DIGITS, 1)},
    **dict.fromkeys("零〇", 0), "两": 2, "兩": 2, "十": 10, "百": 100, "一百": 100,
    **{f"十{sign}": 10 + value for value, sign in enumerate(_DIGITS, 1)},
    **{f"{ten}十{sign}": 10 * tens + ones for tens, ten in enumerate(_DIGITS, 1) for ones, sign in enumerate(("", *_DIGITS))},
}  # fmt: skip
"""Numbers up to a hundred in Chinese words."""


def split_unit(text: str) -> tuple[str, str, str] | None:
    """(value, words behind it, their power) where a text ends with words of which some letter is foreign: `5 м^2` → ("5", "м",
    "^2"). None for other texts. Linear in the length of the text."""
    match = _POWER.search(text[-12:])
    body = text[: len(text) - len(match[0])] if match else text
    body = body.rstrip(" .")
    start = len(body)
    while start and (_is_letter(body[start - 1]) or body[start - 1] in " ./"):
        start -= 1
    first = next((at for at in range(start, len(body)) if not body[at].isascii()), None)
    if first is None:
        return None
    if start == 0 or body[first] >= _LATIN_END:
        start = first  # what stands before is a name or a unit of its own
    while start < first and body[start] in " .":
        start += 1
    core = body[:start].rstrip()
    if core.endswith("/"):
        core, start = core[:-1].rstrip(), len(core) - 1
    return (core, body[start:], f"^{match[1] or match[2]}" if match else "") if core else None


def _is_letter(sign: str) -> bool:
    return (sign.isalpha() or unicodedata.category(sign)[0] == "M") and not _GREEK.match(sign)


def foreign_unit(text: str) -> tuple[str, int] | None:
    """(one spelling of a unit, what its number is multiplied by); None where the words change the number otherwise.

    `元` → ("yuan", 1); `万元` → ("yuan", 10⁴); `平方厘米` → ("cm^2", 1); `个苹果` → ("个苹果", 1); `元以上` → None.
    """
    text = " ".join(text.casefold().split()).strip(".")
    if len(text) > _LONGEST:
        return None
    name = _known(text)
    if name is not None:
        return name, 1
    scale = 1
    if match := _SCALE_SIGNS.match(text):
        if len(match[0]) > _MOST_SCALES:
            return None
        for sign in match[0]:
            scale *= _SCALES[sign]
        text = text[match.end() :].strip()
    else:
        first, _, rest = text.partition(" ")
        for words, times in _SCALE_WORDS:
            if words.fullmatch(first.strip(".")):
                scale, text = times, rest.strip()
    name = _known(text) if text else ""
    if name is not None:
        return name, scale
    if _CHANGES.search(text) or any(map(_changes, text.split())):
        return None
    return text, scale


def _known(text: str) -> str | None:
    """A unit of the table, its square or cube, or one over another."""
    if text in _KNOWN:
        return _KNOWN[text]
    for sign, power in _POWERS:
        if text.startswith(sign) and text.removeprefix(sign) in _KNOWN:
            return _KNOWN[text.removeprefix(sign)] + power
    above, over, below = text.replace("每", "/").replace(" в ", "/").partition("/")
    if over and below:
        parts = [_known(part.strip()) if part.strip() else "" for part in (above, below)]
        return None if None in parts else "/".join(map(str, parts))
    return None


def _changes(word: str) -> bool:
    if len(word) == 1 and "\u0400" <= word <= "\u04ff":
        return word not in _SINGLE
    if changes_number(word):
        return True
    return _CHANGING_WORD.fullmatch(word) is not None or any(words.fullmatch(word) for words, _ in _SCALE_WORDS)
