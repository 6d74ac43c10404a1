"""One spelling for the many that LaTeX and plain text have for an answer.

Everything here is linear in the length of the text; nothing is evaluated.
"""

import re
import unicodedata
from functools import lru_cache

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∗": "*", "÷": "/",
    "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "√": "sqrt", "°": "^\\circ ", "±": "\\pm ",
    "∓": "\\mp ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "θ": "\\theta ",
    "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "λ": "\\lambda ", "φ": "\\phi ", "ω": "\\omega ", "μ": "\\mu ",
    "‑": "-", "⁄": "/", "、": ", ", "∛": "sqrt[3]", "∜": "sqrt[4]", "¢": "\\text{ cents}", "∙": "\\cdot ", "•": "\\cdot ",
    "∶": ":", "º": "^\\circ ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "∣": "|",
    "⩽": "\\le ", "⩾": "\\ge ", "≦": "\\le ", "≧": "\\ge ", "∖": "\\setminus ", "ℚ": "\\mathbb{Q}", "ℤ": "\\mathbb{Z}",
    "ℕ": "\\mathbb{N}", "ℂ": "\\mathbb{C}", "≡": "\\equiv ", "…": "\\ldots ", "⋯": "\\ldots ", "≈": "\\approx ", "∧": "\\land ",
    "∨": "\\lor ", "⇒": "\\Rightarrow ", "→": "\\to ", "σ": "\\sigma ", "δ": "\\delta ", "ε": "\\epsilon ", "τ": "\\tau ",
    "ρ": "\\rho ", "ψ": "\\psi ", "µ": "\\mu ", "Δ": "\\Delta ", "Σ": "\\Sigma ", "Ω": "\\Omega ",
    "½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅕": " 1/5", "⅛": " 1/8", "⅙": " 1/6",
    "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u2009": " ", "\u202f": " ", "⟨": "\\langle ", "⟩": "\\rangle ",
    "٫": ".", "٬": ",", "٪": "%", "。": ".", "㎡": "\\text{ m}^2", "㎠": "\\text{ cm}^2", "㎢": "\\text{ km}^2", "㎥": "\\text{ m}^3",
    "≃": "\\approx ", "≅": "\\cong ", "≐": "\\approx ",
}  # fmt: skip
_SIGN = re.compile("|".join(_SIGNS))
_SUPERSCRIPT = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+|ⁿ")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
"""Shown as nothing at all. What turns the order of signs round is not among them: that is another answer to read."""

_COMMANDS = {
    **dict.fromkeys(
        ("left", "right", "bigl", "bigr", "Bigl", "Bigr", "big", "Big", "bigg", "Bigg", "biggl", "biggr", "!",
         "middle", "displaystyle", "textstyle", "limits", "mathstrut", "boldsymbol", "bm", "underline", "num", "tiny", "small",
         "normalsize", "large", "Large", "LARGE", "huge", "Huge", "bf", "it", "sf", "tt"), ""),
    **dict.fromkeys((",", ";", ":", " ", "quad", "qquad", "thinspace", "\n"), " "),
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "sfrac", "nicefrac"), "\\frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "\\binom"),
    **dict.fromkeys(
        ("mathrm", "textbf", "textit", "textrm", "mathbf", "mathit", "mathsf", "mbox", "operatorname", "textnormal",
         "textsf", "textsc", "mathtt", "texttt", "hbox", "operatorname*", "emph"), "\\text"),
    **dict.fromkeys(("leq", "leqslant", "le"), "\\le "),
    **dict.fromkeys(("geq", "geqslant", "ge"), "\\ge "),
    **dict.fromkeys(("neq", "ne"), "\\ne "),
    "lt": "<", "gt": ">", "%": "%", "$": "$", "cdotp": "\\cdot ", "ast": "*", "degree": "°", "#": "#", "&": "&",
    "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "infin": "\\infty ",
    "varnothing": "\\emptyset ", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "colon": ":", "_": "_",
    "overline": "\\overline", "bar": "\\overline", "dots": "\\ldots", "cdots": "\\ldots", "iff": "\\iff ",
    **dict.fromkeys(("simeq", "approxeq", "thickapprox", "doteq", "doteqdot"), "\\approx "),
    "(": "", ")": "", "[": "", "]": "", "bigcup": "\\cup ", "backslash": "\\setminus ",
}  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+\*?|[^A-Za-z])")
_SPACES = re.compile(r"\s+")
_DOLLAR = re.compile(r"(?<!\\)\$")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
_PHRASE = re.compile(
    r"(?P<text>\\text\s*\{\s*)?(?:(?:so |thus |hence |therefore,? )?(?:the |my )?(?:final |correct )?(?:answer|result|ans|option|choice)(?: is|\s?:)"
    r"|(?:所以|因此|故)?,?(?:最终|正确|最後|最后)?(?:的)?(?:答案|结果|結果)(?:是|为|為|\s?:)|[答答]\s?:"
    r"|(?:ответ|respuesta|réponse|antwort|risposta|resposta|정답|답|答え|الجواب|उत्तर)\s?(?::|은|는|は))\s*:?\s*(?(text)\}?|)\s*",
    re.I,
)
_ABOUT = re.compile(r"^(?:\\approx(?![A-Za-z])|约等于|約等於)\s*(?=[-+.\d\\$(])")
"""In front of a value: how it was found, and no part of it."""
_FUNCTION_NAMES = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp"
_FONT = r"\\(?:(?:math|text)(?:bf|rm|it|sf|tt|normal)|boldsymbol|bm)(?![A-Za-z])"
_VECTOR = re.compile(
    rf"(?P<outer>{_FONT}\s*\{{\s*)?\\(?:hat|widehat|vec|overrightarrow)(?![A-Za-z])\s*"
    rf"(?:\{{\s*{_FONT}\s*\{{\s*([A-Za-z])\s*\}}\s*\}}|\{{\s*(?:{_FONT}\s*)?([A-Za-z]|\\[a-z]{{2,8}})\s*\}}"
    rf"|{_FONT}\s*\{{\s*([A-Za-z])\s*\}}|([A-Za-z])(?![A-Za-z]))(?(outer)\s*\}}|)"
)
"""A hat or an arrow over one letter, in whatever font: vectors are compared by their letters."""
_HAT = re.compile(r"(?<![^\W\d_])(?:[îĵ]|[a-zA-Z]\u0302)(?![^\W\d_\u0302])")
_BEFORE = (
    (re.compile(r"\\([ij])math(?![A-Za-z])"), r" \1 "),
    (_VECTOR, r" \2\3\4\5 "),
    (re.compile(r"\{\s*\}(?=\s*\^)"), ""),
    (_DEGREE, "°"),
    (re.compile(r"\\(?:text)?color\s*\{[A-Za-z!0-9]{1,20}\}"), ""),
    (re.compile(r"\{\s*\\(?:rm|bf|it|sf|tt)(?![A-Za-z])"), r"\\text{"),
    # A vector, and no text; a formula in bold.
    (re.compile(r"\\math(?:bf|it)\s*(?:\{\s*([A-Za-z])\s*\}|\s([A-Za-z])(?![A-Za-z]))"), r" \1\2 "),
    (
        re.compile(
            r"\\(?:math|text)(?:bf|it|rm|sf)?\s*\{(?=\s*-?\s*\d{0,9}\s*\\[dt]?(?:frac|sqrt|pi|binom)(?![A-Za-z]))"
        ),
        "{",
    ),
    (re.compile(r"\\\\\s*\[\s*-?[\d.]{1,6}\s*(?:pt|ex|em|mm|cm)\s*\]"), r"\\\\"),
    # 0.\dot{1}4\dot{2} is another way to write 0.\overline{142}.
    (re.compile(r"(?<=[.\d])\\dot\s*\{?(\d)\}?(?:(\d{0,20})\\dot\s*\{?(\d)\}?)?"), r"\\overline{\1\2\3}"),
)
"""Spellings of LaTeX, before commands are replaced by their plain ones."""
_AFTER = (
    (re.compile(r"\\text\s*\{(\s*[-+,.;:]?\s*)\}"), r"\1"),
    # The power of a unit stands outside of its text.
    (re.compile(r"\\text\s*\{([^{}^]*)\^\s*(?:\{\s*(\d)\s*\}|(\d))\s*\}"), r"\\text{\1}^\2\3"),
    (re.compile(r"\\text\s*\{\s*([ie])\s*\}(?=\s*[\^+\-])|(?<=[\d)}+\-])\s*\\text\s*\{([ie])\}"), r"\1\2"),
    # Five seconds are no secant.
    (re.compile(rf"\\text\s*\{{\s*({_FUNCTION_NAMES})\s*\}}(?=\s*[\w\\({{^])"), r"\\\1 "),
    (re.compile(r"\\overline\s*(\d)"), r"\\overline{\1}"),
    (re.compile(r"(?<=\d)\s*\^\s*(?:\{\s*)?\\text\s*\{\s*(st|nd|rd|th)\s*\}(?:\s*\})?"), r"\\text{\1}"),
    (re.compile(r"°\s*(?:\\text\s*\{\s*([CF])\s*\}|([CF])(?![A-Za-z]))"), r"°\1\2"),
    # A fraction of units is one unit.
    (
        re.compile(
            r"\\frac\s*\{\s*\\text\s*\{([A-Za-z .]{1,30})\}\s*\}\s*"
            r"\{\s*\\text\s*\{([A-Za-z .]{1,30})\}\s*(\^\s*\{?\s*\d\s*\}?)?\s*\}"
        ),
        r"\\text{ \1/\2}\3",
    ),
)
"""Spellings of LaTeX, after that."""
_PLAIN = (
    (re.compile(r"(?<=[\d)}])\s*\^\s*(?:\{\s*)?(?:\\text\s*\{\s*o\s*\}|o(?![A-Za-z]))(?:\s*\})?"), "°"),
    # A time of day, a product with a power of ten, an aside that repeats the answer, a ratio.
    (re.compile(r"(:\s?\d\d)\s*(\\text\s*\{\s*)?([AaPp])\.?\s?[Mm](?![A-Za-z])\.?(?(2)\s*\}|)"), r"\1 \3m"),
    (re.compile(r"(?<=\d)\s*(\\text\s*\{\s*)?([AaPp])\.\s?[Mm]\.?(?![A-Za-z])(?(1)\s*\}|)"), r" \2m"),
    (re.compile(r"(?<=\d)\s*\^\s*\{\s*(st|nd|rd|th)\s*\}"), r"\\text{\1}"),
    (re.compile(r"^(?:\\text\s*\{\s*(?:negative|minus)\s*\}|(?:negative|minus)\s)\s*(?=\d)", re.I), "-"),
    (re.compile(r"^(?:USD\s*|US(?=\$))\$?(?=[\d.])"), "$"),
    (re.compile(r"^(?:Rs\.?|INR)\s*(?=[\d.])"), "₹"),
    (re.compile(r"^EUR\s*(?=[\d.])"), "€"),
    (re.compile(r"^GBP\s*(?=[\d.])"), "£"),
    (re.compile(r"^(?:RMB|CNY|JPY)\s*(?=[\d.])"), "¥"),
    (re.compile(r"(?<=\d)\s*[xX]\s*10\s*\^"), r"\\times 10^"),
    (re.compile(r"\(\s*(?:or|=|i\.e\.,?)\s+([^()]{1,60})\)$"), r" or \1"),
    (re.compile(r"(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(?=\d)"), ":"),
)
_LETTER = re.compile("[A-Za-z]")
_BRACED_SIGN = re.compile(r"\{\s*([-+:=,])\s*\}")
_POWER_SIGN = re.compile(r"(?<=[\w)}])\s*\*\*\s*(?=[\w({-])")
_OUTER = " \t.,;:!"


@lru_cache(maxsize=8192)
def normal(text: str) -> str:
    """One spelling of an answer: one set of commands, no layout, no delimiters of formulas, no closing point.

    `\\left( \\dfrac{1}{2},\\ 3 \\right)` → `( \\frac{1}{2}, 3 )`; degrees become `°`, `\\mathrm` becomes `\\text`.
    """
    text = text.strip().rstrip("\\ ")  # a blank of LaTeX at the end, whose own blank is stripped
    if "\0" in text:
        text = text.replace("\0", "\ufffd")  # it stands for something else where lists are read
    if not text.isascii():
        text = text.translate(_INVISIBLE).strip()
        text = _SIGN.sub(lambda match: _SIGNS[match[0]], text)
        text = _SUBSCRIPT.sub(lambda match: "_{" + unicodedata.normalize("NFKC", match[0]) + "}", text)
        text = _SUPERSCRIPT.sub(
            lambda match: "^{" + unicodedata.normalize("NFKC", match[0]).replace("−", "-") + "}", text
        )
        text = _HAT.sub(lambda match: unicodedata.normalize("NFD", match[0])[0], unicodedata.normalize("NFKC", text))
    text = _drop_dollars(text)
    if "\\" in text:
        for pattern, spelling in _BEFORE:
            text = pattern.sub(spelling, text)
        text = _COMMAND.sub(_plain_command, text)
        for pattern, spelling in _AFTER:
            text = pattern.sub(spelling, text)
    if "{" in text:
        text = _BRACED_SIGN.sub(r"\1", text)
    if "\\\\" in text:
        text = _one_line(text)
    if "**" in text:
        text = _POWER_SIGN.sub("^", text.removeprefix("**").removesuffix("**"))
    if not text.isdigit() and _LETTER.search(text):
        for pattern, spelling in _PLAIN:
            text = pattern.sub(spelling, text)
    text = _SPACES.sub(" ", text.replace("~", " ")).strip()
    if text.endswith(("..", "\\ldots")):
        text = _overline_period(text)
    # A factorial is no exclamation.
    text = text.rstrip(" \t.,;:").lstrip(" \t,;:=" if text[:2] != "==" else " ")
    text = _ABOUT.sub("", text)
    match = _PHRASE.match(text)
    if match is None:
        return text
    rest = _drop_dollars(text[match.end() :].strip()).rstrip(" \t.,;:")
    # The phrase and the answer may stand in one \\text.
    return "\\text{" + rest if rest.endswith("}") and rest.count("}") > rest.count("{") else rest


_UNFINISHED = re.compile(r"(?P<head>.*?(?<![\d.])\d*\.)(?P<digits>\d{1,60})(?:\.{2,}|\s?\\ldots)")
_PERIOD = re.compile(r"(\d*?)(?:(\d)\2{2,}|(\d{2,12}?)\3+)")


def _overline_period(text: str) -> str:
    """A decimal that goes on: 0.333… is 0.\\overline{3}; one whose digits do not repeat names no number."""
    head = text.rstrip(".")
    if head.rstrip().endswith(","):
        return head + "\\ldots"  # a list that goes on
    match = _UNFINISHED.fullmatch(text)
    if match is None:
        return text
    period = _PERIOD.fullmatch(match["digits"])
    if period is None:
        return f"{match['head']}{match['digits']}\\ldots"
    return f"{match['head']}{period[1]}\\overline{{{period[2] or period[3]}}}"


def _drop_dollars(text: str) -> str:
    """Without the signs around formulas: `$…$`, `$$…$$`; a single `$`, or `\\$`, is currency."""
    return _DOLLAR.sub("", text) if "$" in text and len(_DOLLAR.findall(text)) in (2, 4, 6, 8) else text


_SYSTEM = re.compile(r"\\begin\s*\{(cases|aligned|align\*?|gathered|split)\}(.*)\\end\s*\{\1\}", re.S)


def _one_line(text: str) -> str:
    """A system of equations, one a line, is a list of them; the lines of a matrix stay."""
    match = _SYSTEM.fullmatch(text.strip())
    lines = match[2] if match else text
    if "\\begin" in lines or (match and not all("=" in line for line in lines.split("\\\\") if line.strip())):
        return text
    return (lines.replace("&", "") if match else lines).replace("\\\\", ", ")


def _plain_command(match: re.Match[str]) -> str:
    plain = _COMMANDS.get(match[1])
    return match[0] if plain is None else plain


def words(text: str) -> str:
    """Text answers are compared without case, outer punctuation, `\\text` and runs of white space."""
    return " ".join(
        text.replace("\\text", " ").replace("{", " ").replace("}", " ").casefold().strip(_OUTER + "\"'$").split()
    )
