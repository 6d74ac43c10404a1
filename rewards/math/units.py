"""What may stand beside the number of an answer: currency, percent, degrees, units, and words that change its value."""

import re
from fractions import Fraction

from rewards.math.changing_words import changes_number
from rewards.math.scripts import NUMBERS, foreign_unit, split_unit

_CURRENCY = {
    "$": "dollar", "£": "pound sterling", "€": "euro", "¥": "¥", "₹": "rupee", "₽": "ruble", "₩": "won", "₪": "shekel", "₫": "dong",
    "฿": "baht", "₱": "peso", "₺": "lira",
    "₦": "naira", "₴": "hryvnia", "₵": "cedi", "₸": "tenge", "₼": "manat", "₾": "lari", "₡": "colon", "₲": "guarani", "₭": "kip", "₮": "tugrik",
    "৳": "taka",
}  # fmt: skip
_YEN_OR_YUAN = ("¥", "yen", "yuan")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_SAME = {
    name: unit
    for unit, names in {
        "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
        "in": "inch", "ft": "foot feet", "yd": "yard", "mi": "mile", "g": "gram gm", "kg": "kilogram", "mg": "milligram",
        "lb": "pound", "oz": "ounce", "s": "second sec", "min": "minute", "h": "hour hr", "l": "liter litre",
        "ml": "milliliter millilitre", "°": "degree deg", "dollar": "usd buck us$", "euro": "eur", "cent": "¢", "yuan": "rmb cny", "yen": "jpy",
        "%": "percent percentage pct", "mph": "mi/h", "km/h": "kmh kph", "unit": "", "th": "st nd rd",
    }.items()
    for name in names.split()
}  # fmt: skip
_SHORT = frozenset(
    str.split(
        "mm cm km ft in yd mi kg mg ml lb oz hr min sec mph kph kmh usd eur deg pct gm am pm day hrs yr yrs man men cup cat "
        "dog pen bag box car egg hat pie toy bus gal bar jar kid boy ton pts lbs ozs st nd rd th"
    )
)
"""Units of two or three letters that are taken as such outside `\\text`; other short words may be letters multiplied."""
_SHORT_UNIT = re.compile(
    rf"[-+]?[\d., /]*\d\s*(?:(?:per|an?) (?:{'|'.join(sorted(_SHORT))})|(?:mm|cm|km|kg|mg|ml|ft|lb|hr|st|nd|rd|th)|\s(?:{'|'.join(sorted(_SHORT))}|[mshgL]))\.?"
    rf"(?:\s?\^\s?\{{?\d\}}?|\s?/\s?(?:{'|'.join(sorted(_SHORT))}|[smh])(?:\s?\^\s?\{{?\d\}}?)?)?",
    re.I,
)
_LETTERS = ("m", "s", "h", "g", "l", "L")
_SYMBOLS = frozenset(
    str.split(
        "A C F H J L N V W cc cl dB dl dL eV GB gs Hz kB KB kg kJ kN kPa kV kW MB mA MJ mL mN MPa mV mW MW nm Pa pt qt "
        "sq cu sr TB d t u"
    )
)
"""Further units of one or two letters, taken as such within `\\text` only: elsewhere they are letters multiplied."""
_JOINING = frozenset(("per", "of", "a", "an", "the", "in", "each"))
_REFUSED = frozenset(
    str.split(
        "or and not no is isn isnt are was but maybe about if than times plus minus over half halves third thirds quarter "
        "quarters fifth fifths tenth tenths factorial squared cubed to dozen dozens gross score pair pairs most least more "
        "less fewer greater wrong incorrect false negative infinity pi mod modulo base remainder approximately approx around "
        "roughly between possibly perhaps otherwise without except either neither nor instead actually wait sqrt root never "
        "k bn mn fail fails failed exclude excluded excluding reject rejected invalid impossible mistake reciprocal opposite "
        "inverse whereas unless only if else ish cannot double doubled triple tripled quadruple quadrupled twice thrice halved "
        "below above under beneath short repeating recurring repeated lakh lakhs crore crores googol myriad mille permille "
        "sin cos tan cot csc exp log extraneous tausend mila tau phi psi chi eta rho alpha beta gamma delta theta lambda sigma omega"
    )
)
"""Words that change or doubt the number before them: an answer with one of them is text."""

_FRACTION = re.compile(
    r"(?:\w*(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|teen|tie|hundred|thousand|illion)ths?"
    r"|\w*illions?|mil(?:li?|h)?(?:on[ei]n?s?|oes|oni|[ij]ard\w*)|\w*(?:tuple|fold)d?)"
)
"""Words that multiply or divide by a number, in its own name: 5 eighths, threefold."""

_TEXT_TAIL = re.compile(r"^(?P<core>.+?)\s*\\text\s*\{(?P<unit>[^{}]*)\}\s*(?P<power>\^\s*(?:\{\s*\d\s*\}|\d))?$")
_PLAIN_TAIL = re.compile(
    r"^(?P<core>.*[\d)}\]])(?P<space>\s*)(?P<unit>/?[A-Za-z]+(?:[ /][A-Za-z]+){0,5})(?P<power>\s?\^\s?\{?\d\}?)?\.?$"
)
_UNIT = re.compile(r"[A-Za-z¢%°'/ .\-()]*")
_ONES = str.split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = str.split("twenty thirty forty fifty sixty seventy eighty ninety")
_PARTS = {
    3: ("third",), 4: ("fourth", "quarter"), 5: ("fifth",), 6: ("sixth",), 7: ("seventh",), 8: ("eighth",), 9: ("ninth",),
    10: ("tenth",),
}  # fmt: skip
_NUMBERS: dict[str, int | Fraction] = {
    **{name: value for value, name in enumerate(_ONES)},
    **{name: 10 * value for value, name in enumerate(_TENS, 2)},
    **{f"{ten}{sign}{one}": 10 * tens + ones for tens, ten in enumerate(_TENS, 2) for ones, one in enumerate(_ONES[:10])
       if ones for sign in "- "},
    **{f"{one} {name}": value * scale for value, one in enumerate(_ONES) if value for name, scale in _SCALES.items()},
    **{f"{one}{sign}{name}{'s' * (value > 1)}": Fraction(value, below)
       for value, one in enumerate(_ONES[:10]) if value for sign in "- " for below, names in _PARTS.items() for name in names},
    **{f"{one}{sign}halves": Fraction(value, 2) for value, one in enumerate(_ONES[:10]) if value > 1 for sign in "- "},
    "half": Fraction(1, 2), "one half": Fraction(1, 2), "one-half": Fraction(1, 2), "one dozen": 12, "a dozen": 12,
}  # fmt: skip


def number_in_words(text: str) -> int | Fraction | None:
    """`five` → 5, `twenty-one` → 21; None for other words."""
    return _NUMBERS.get(text, NUMBERS.get(text))


def has_short_unit(text: str) -> bool:
    """A plain number with a unit that could also be read as letters multiplied: 5 cm, 3:30 pm's 30 pm."""
    return _SHORT_UNIT.fullmatch(text) is not None


def is_doubt(text: str) -> bool:
    """Whether a word in it changes or doubts what it says."""
    return any(_changes(word) for word in re.findall(r"[a-z]{2,}", text.casefold()))


def _changes(word: str) -> bool:
    return word in _REFUSED or word in _NUMBERS or changes_number(word) or _FRACTION.fullmatch(word) is not None


def peel(text: str) -> tuple[str, str, Fraction | int] | None:
    """The number's own text, its unit ("" without one) and what it is multiplied by; None where the words change it.

    `\\$5` → ("5", "dollar", 1); `5 \\text{ cm}^2` → ("5", "cm^2", 1); `2 million people` → ("2", "people", 10**6);
    `5 or more` → None. Linear in the length of the text.
    """
    sign = ""
    if text[:1] in "-+" and text[1:].lstrip()[:1] in _CURRENCY:
        sign, text = text[:1], text[1:].lstrip()
    if text[:1] in _CURRENCY:
        inner = peel(text[1:].lstrip())
        unit = _CURRENCY[text[0]]
        if inner is None or not (inner[1] in ("", unit) or inner[1].startswith("/")):
            return None
        return sign + inner[0], unit + inner[1].removeprefix(unit), inner[2]
    for tail in ("%", "°", "°C", "°F", *_CURRENCY):
        if text.endswith(tail):
            return text[: -len(tail)].rstrip(), _CURRENCY.get(tail, tail), 1
    match = _TEXT_TAIL.match(text) or _PLAIN_TAIL.match(text)
    if match is None or not match["unit"].isascii():
        apart = (match["core"], match["unit"], _power(match)) if match else split_unit(text)
        return (text, "", 1) if apart is None else _with_foreign(*apart)
    return _with_words(match, is_text="space" not in match.groupdict())


def _with_foreign(core: str, words: str, power: str) -> tuple[str, str, Fraction | int] | None:
    unit = foreign_unit(words)
    return None if unit is None else (core.rstrip(" ,"), unit[0] + power, unit[1])


def _with_words(match: re.Match[str], is_text: bool) -> tuple[str, str, Fraction | int] | None:
    core, unit = match["core"], match["unit"].strip(" .").replace("(", "").replace(")", "")
    if not _UNIT.fullmatch(unit):
        return None
    spelt = unit.replace("/", " / ").split()
    found = [word.casefold() for word in spelt]
    scale = _SCALES.get(found[0].removesuffix("s"), 1) if found else 1
    if scale != 1:
        spelt, found = spelt[1:], found[1:]
    if any(_changes(word) and (is_text or len(word) > 1) for word in found):
        return None
    if is_text and any(map(_is_factor, spelt)):
        return None
    if any(word.removesuffix("s") in _SCALES for word in found):
        return None
    if not is_text and scale == 1 and not _are_words(spelt, found, bool(match["space"])):
        return match[0], "", 1
    return core.rstrip(" ,"), _name(found) + _power(match), scale


def _power(match: re.Match[str]) -> str:
    return re.sub(r"[\s{}]", "", match["power"] or "")


def same_unit(one: str, other: str) -> bool:
    """5° may be 5°C or 5°F, but 5°C is not 5°F; ¥ is yen or yuan; what another script calls an apple is not known."""
    if one.isascii() != other.isascii() and "°" not in one + other and "¥" not in one + other:
        return True
    if one in _YEN_OR_YUAN and other in _YEN_OR_YUAN and "¥" in (one, other):
        return True
    return one == other or (one[0] == other[0] == "°" and "°" in (one, other))


def _is_factor(word: str) -> bool:
    """Whether letters in `\\text` are a factor and no unit: 5\\text{x}, 5\\text{ab}."""
    if len(word) > 2 or not word.isalpha():
        return False
    lower = word.casefold()
    return not (word in _SYMBOLS or word in _LETTERS or lower in _SHORT or lower in _JOINING or lower in _SAME)


def _are_words(spelt: list[str], found: list[str], apart: bool) -> bool:
    """Whether letters after a number are words, rather than letters multiplied: 5cm, 5 apples, but 5xy, 5 x and 5 M."""
    long = [word for word in found if len(word) > 3 or word in _SHORT]
    if apart and len(found) == 1 and spelt[0] in _LETTERS:
        return True
    if apart and "/" in found and all(word in (*_LETTERS, "/") for word in spelt):
        return True
    known = (*_SHORT, *_JOINING, *_LETTERS, "/")
    return (
        bool(long)
        and all(len(word) > 3 or word in known for word in found)
        and (apart or found[0] in _SHORT or found[0] == "/" or len(found[0]) > 4)
    )


def _name(found: list[str]) -> str:
    """One spelling of a unit: singular, abbreviated, `square cm` as cm^2, `per` as /."""
    power = ""
    found = [word.strip(".") or word for word in found]
    if found[:1] in (["square"], ["sq"]):
        found, power = found[1:], "^2"
    elif found[:1] in (["cubic"], ["cu"]):
        found, power = found[1:], "^3"
    named = []
    for word in found:
        if word in ("a", "an", "the"):
            continue
        word = "/" if word == "per" else word.strip(".")
        singular = _singular(word)
        named.append(_SAME.get(word) or _SAME.get(singular) or singular)
    if not named and power:
        named = ["unit"]
    name = " ".join(named).replace(" / ", "/").replace("/ ", "/")
    return _SAME.get(name, name) + power


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and len(word) > 2 and not word.endswith("ss") else word
