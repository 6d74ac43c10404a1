"""Words of the target language, both ways: honest texts keep their reward, mixed ones lose it."""

import pytest

from rewards.text.language import LANGUAGES, language_consistency
from rewards.text.prose import sentences
from rollout.data.templates import R1_ZERO
from rollout.errors import InputError

EN = (
    "Natalia sold 48 clips in April, and half as many in May. So in May she sold 48/2 = 24 clips. "
    "Wait, let me check that again. Yes, altogether she sold 48 + 24 = 72 clips in April and May."
)
TEXTS = {
    "en": EN,
    "fr": (
        "Natalia a vendu 48 pinces en avril, et la moitié en mai. Elle a donc vendu 24 pinces en mai. "
        "Attends, vérifions encore une fois. Oui, en tout elle a vendu 72 pinces."
    ),
    "de": (
        "Natalia hat im April 48 Klammern verkauft, und im Mai halb so viele. Also hat sie im Mai 24 verkauft. "
        "Moment, ich prüfe das noch einmal. Ja, insgesamt hat sie 72 Klammern verkauft."
    ),
    "es": (
        "Natalia vendió 48 pinzas en abril y la mitad en mayo. Por lo tanto, en mayo vendió 24 pinzas. "
        "Espera, voy a comprobarlo otra vez. Sí, en total vendió 72 pinzas."
    ),
    "ru": (
        "Наталья продала 48 заколок в апреле и вдвое меньше в мае. Значит, в мае она продала 24 заколки. "
        "Проверим ещё раз. Да, всего она продала 72 заколки."
    ),
    "uk": (
        "Наталя продала 48 шпильок у квітні та вдвічі менше у травні. Отже, у травні вона продала 24 шпильки. "
        "Перевіримо ще раз. Так, усього вона продала 72 шпильки."
    ),
    "zh": "娜塔莉亚在四月卖了48个夹子，五月卖的是四月的一半。所以五月她卖了24个。等一下，让我再检查一遍。是的，一共72个。",
    "ja": "ナタリアは4月に48個のクリップを売り、5月にはその半分を売りました。つまり5月は24個です。もう一度確認します。合計は72個です。",
    "ko": "나탈리아는 4월에 클립 48개를 팔았고 5월에는 그 절반을 팔았습니다. 그래서 5월에는 24개입니다. 다시 확인해 봅시다. 모두 72개입니다.",
    "ar": "باعت ناتاليا 48 مشبكا في أبريل ونصف هذا العدد في مايو. إذن باعت 24 مشبكا في مايو. دعني أتحقق مرة أخرى.",
    "hi": "नतालिया ने अप्रैल में 48 क्लिप बेचे और मई में उसके आधे। इसलिए मई में उसने 24 क्लिप बेचे। मैं फिर से जाँच करता हूँ।",
}  # fmt: skip


def value(text: str, target: str, prompt: str = "") -> float:
    return language_consistency(prompt, f"<think>{text}</think><answer>72</answer>", target=target)["value"]


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_is_in_its_own_language_and_in_no_other(language: str) -> None:
    for target in TEXTS:
        assert value(TEXTS[language], target) == pytest.approx(float(target == language), abs=0.001), target


@pytest.mark.parametrize(
    "text",
    [
        "Let $x$ be the speed. Then \\(v = \\frac{\\text{distance}}{\\text{Zeit}}\\), and we are done here.",
        "We call it:\n```python\ndef berechne(eingabe_wert):\n    return eingabe_wert  # Das ist die Antwort\n```\nThat is all.",
        "First `schlafen()` is called, and then `aufwachen(jetzt)` is called, and then we return the result.",
        "\\[ \\begin{aligned} geschwindigkeit &= weg / zeit \\end{aligned} \\] So the result follows at once.",
        "$$ summe = anzahl \\times preis $$ So the total price is known, and we can stop.",
        "They pay $5 for the apples and $7 for the pears, so together they pay $12 for all the fruit.",
        "See https://www.beispiel.de/seite/ueber/mathematik and mail an.jemand@beispiel.de for the rest of the proof.",
        "The values are α = 3, β = 4 and θ = π/2, so the sum of the first two is 7.",
        "Zoë met François at the café; the naïve façade of the résumé did not impress them at all.",
        "Viviana has vanilla chips, Susana has chocolate chips.",
        "Per mile 3 gallons, 4 mile gallons, 5 mile gallons, 6 mile gallons, 7 mile gallons, 8 mile.",
        "Let me check.",
        "Hmm. Okay. So x = 3.",
        "Kolton gave Giselle two brownies; Giselle paid per kilogram of papayas and had sodas.",
        "I'm sure it's right, as 𝑥 + 𝑦 = 𝟕 and Ｆ is a full-width letter.",
    ],
)
def test_honest_english_keeps_its_reward(text: str) -> None:
    assert value(text, "en") == 1.0


@pytest.mark.parametrize(
    ("text", "target", "low", "high"),
    [
        (f"{EN} 所以答案是七十二，没有问题。", "en", 0.6, 0.9),
        (f"{EN} {TEXTS['de']}", "en", 0.4, 0.75),
        (f"{TEXTS['de']} {EN}", "de", 0.25, 0.6),
        (f"{EN} {TEXTS['fr']} {EN}", "en", 0.6, 0.8),
        ("We нашли the ответ and then сумма is чётная", "en", 0.5, 0.6),
        ("我们用 Python 写一个函数，然后 return 结果。", "zh", 0.8, 0.95),
    ],
)
def test_mixing_costs_its_share(text: str, target: str, low: float, high: float) -> None:
    assert low < value(text, target) < high


@pytest.mark.parametrize("fence", ["```\n{}\n```", "`{}`", "$${}$$", "\\[{}\\]", "\\({}\\)", "$\\text{{{}}}$", "~~~{}"])
def test_another_script_cannot_hide_in_code_or_formulas(fence: str) -> None:
    assert value(f"So we start. {fence.format('我们需要计算这个数字的总和')} That is it.", "en") < 0.5
    assert value(f"我们开始吧。{fence.format('我们需要计算这个数字的总和')}就是这样。", "zh") == 1.0


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("Combien de pinces Natalia a-t-elle vendues en avril et en mai ?", "fr"),
        ("ナタリアは四月と五月に合計でいくつのクリップを売りましたか。", "ja"),
        ("娜塔莉亚在四月和五月一共卖了多少个夹子？", "zh"),
        (R1_ZERO.replace("{prompt}", "娜塔莉亚一共卖了多少个夹子？"), "zh"),
        (R1_ZERO.replace("{prompt}", "Wie viele Klammern hat Natalia im April und im Mai verkauft?"), "de"),
        ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nСколько всего заколок продала Наталья за эти два месяца?<|im_end|>\n<|im_start|>assistant\n<think>\n", "ru"),
        ("How many clips did Natalia sell altogether in April and May?", "en"),
    ],
)  # fmt: skip
def test_the_language_of_the_question(prompt: str, language: str) -> None:
    for spoken, text in TEXTS.items():
        assert value(text, "prompt", prompt) == pytest.approx(float(spoken == language), abs=0.001), spoken


def test_the_same_few_words_again_and_again_do_not_tell_a_language() -> None:
    thought = "7 plus 8 is 15. 2 plus 4 plus 1 is 7. 3 plus 5 is 8."
    assert language_consistency("What is the sum of 327 and 548?", f"<think>{thought}</think>")["value"] == 1.0
    # In another script they are still foreign.
    assert language_consistency("从3开始，加4，减5，等于多少？", f"<think>{thought}</think>")["value"] == 0.0


def test_a_question_that_does_not_tell_asks_for_one_language() -> None:
    for text in TEXTS.values():
        assert value(text, "prompt", "27+48=") == pytest.approx(1.0)
    assert value(f"{EN} {TEXTS['zh']}", "prompt", "27+48=") < 0.7


@pytest.mark.parametrize("text", ["", "7+8=15,2+4+1=7", "x = y", "```python\nprint(1)\n```", "\\boxed{72}", "!?…"])
def test_without_words_nothing_is_mixed(text: str) -> None:
    found = language_consistency("27+48=", text, target="en")
    assert (found["value"], found["words"]) == (1.0, 0.0)


def test_what_is_judged_is_the_thought() -> None:
    assert language_consistency("", f"<think>{EN}</think>{TEXTS['zh']}", target="en")["value"] == 1.0
    assert language_consistency("<think>\n", f"{EN}</think>{TEXTS['zh']}", target="en")["value"] == 1.0
    assert language_consistency("", TEXTS["zh"], target="en")["value"] == 0.0


def test_the_shares_add_up() -> None:
    found = language_consistency("", f"{EN} {TEXTS['de']} {TEXTS['zh']}", target="en")
    assert found["foreign_script"] > 0
    assert found["foreign_language"] > 0
    assert found["value"] + found["foreign_script"] + found["foreign_language"] == pytest.approx(1.0)


@pytest.mark.parametrize("target", ["english", "xx", "", "EN", "zh-CN"])
def test_an_unknown_target_is_an_input_error(target: str) -> None:
    with pytest.raises(InputError, match="is not one of prompt, af"):
        language_consistency("", EN, target=target)


def test_every_language_is_known_to_the_classifier() -> None:
    from rewards.text.language import _classifier

    assert set(LANGUAGES) <= set(_classifier().labels)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apples at $5 or pears at $7 each", "apples at or pears at each"),
        ("apples at $5 and $x$ pears", "apples at and pears"),
        ("$5 apples/$7 pears", "apples pears"),
        ("so $speed = way$ and \\(way\\) it", "so and it"),
        ("$$ way $$ now $$ then", "now then"),
        ("\\begin{align*}\\begin{aligned} way &= time \\end{aligned}\\end{align*} it", "it"),
        ("use `foo bar` or foo_bar, fooBar, foo2, sin(x), <b>bold</b>", "use or bold"),
        ("```\nfoo\n``` it ```js\nbar", "it"),
        ("\\text{it} \\alpha ", "it"),
    ],
)
def test_what_is_prose(text: str, words: str) -> None:
    assert " ".join(word.text for found in sentences(text) for word in found) == words


def test_scripts() -> None:
    found = [word for words in sentences("don't l’été нет γεια 한국 日本のカメラ שלום ไทย ok") for word in words]
    assert [word.script for word in found] == [
        "latin", "latin", "cyrillic", "greek", "hangul", "han", "kana", "hebrew", "thai", "latin",
    ]  # fmt: skip
    assert [word.weight for word in found] == [1, 1, 1, 1, 2, 2, 4, 1, 3, 1]


@pytest.mark.parametrize(
    "piece",
    ["a", "a ", "the ", "`", "$", "$$", "$a", "\\[", "\\(", "\\begin{a}", "\\end{a}", "<a", "<think>", "@", "a@", "http://",
     "```", "```a", "~~~", "字", "字。", "_", "1", "a1", "'", "a'", "\\", "ﷺ", "а", "\n", ". ", "ab ", "aé"],
)  # fmt: skip
def test_a_flood_of_anything_is_judged(piece: str) -> None:
    text = piece * (250_000 // len(piece.encode()))
    assert 0.0 <= language_consistency(text, text, target="en")["value"] <= 1.0
