"""A template gives the text that is tokenised; the question enters it untouched."""

from pathlib import Path
from typing import Any

import pytest

from rollout.data.templates import load_template
from rollout.data.tokens import prompt_tokens
from rollout.errors import InputError

QUESTION = r"What is $\frac{1}{2}$ of {prompt} and {0}?"


class Chatty:
    """As much of a tokenizer as the chat template needs."""

    chat_template = "…"
    eos_token: str | None = "<end>"
    after = "<close>"

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tools: None = None, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        assert not tokenize
        asked = "<assistant>" if add_generation_prompt else ""
        return "".join(f"<{m['role']}>{m['content']}{self.after}" for m in messages) + asked


class Plain:
    chat_template = None
    name_or_path = "base-model"


def test_plain_is_the_question() -> None:
    assert load_template("plain", None).render(QUESTION) == QUESTION


def test_r1_zero_is_the_published_text() -> None:
    assert load_template("r1-zero", None).render("2+2=?") == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        "User: 2+2=?. Assistant:"
    )


def test_chat_is_the_template_of_the_model() -> None:
    assert load_template("chat", Chatty()).render(QUESTION) == f"<user>{QUESTION}<close><assistant>"


@pytest.mark.parametrize(
    ("after", "end", "closing"),
    [
        ("<close>\n", "<end>", "<close>"),
        ("<close>", None, "<close>"),
        ("<end>\n", "<end>", ""),
        ("<close>\n<end>", "<end>", "<close>"),
        ("\n", "<end>", ""),
    ],
)
def test_what_closes_a_reply_is_the_mark_of_the_chat_template(after: str, end: str | None, closing: str) -> None:
    tokenizer = Chatty()
    tokenizer.after, tokenizer.eos_token = after, end
    assert load_template("chat", tokenizer).closing == closing
    assert load_template("plain", tokenizer).closing == ""


def test_chat_without_a_chat_template_says_what_to_use() -> None:
    with pytest.raises(InputError, match=r"base-model has no chat template; use data\.template=r1-zero or .*plain"):
        load_template("chat", Plain())


def test_only_the_placeholder_of_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Use {braces} and \\boxed{{}}.\n{prompt}\nAnswer:\n")

    template = load_template(str(path), None)

    assert template.render(QUESTION) == f"Use {{braces}} and \\boxed{{{{}}}}.\n{QUESTION}\nAnswer:"
    assert template.name == str(path)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Answer this: {question}")
    with pytest.raises(InputError, match=r"mine\.txt': the file has no \{prompt\}"):
        load_template(str(path), None)

    path.write_bytes(b"\xff{prompt}")
    with pytest.raises(InputError, match="cannot be read"):
        load_template(str(path), None)

    with pytest.raises(
        InputError, match=r"not one of plain, r1-zero, chat, and no file is there; did you mean 'r1-zero'"
    ):
        load_template("r1_zero", None)


def test_special_tokens_stand_once_with_a_real_tokenizer(tmp_path: Path) -> None:
    """Whether the template writes `<s>` or the tokenizer adds it; and a prompt does not end with what ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<s>": 0, "<u>": 1, "<a>": 2, "hi": 3, "?": 4, "</s>": 5}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 5)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="?")
    tokenizer.chat_template = "{{ bos_token }} <u> {{ messages[0]['content'] }} <a>"

    def ids(name: str) -> Any:
        return prompt_tokens(tokenizer, [load_template(name, tokenizer).render("hi")])

    assert ids("chat") == [[0, 1, 3, 2]]
    assert ids("plain") == [[0, 3]]
    (tmp_path / "own.txt").write_text("<s> <u> {prompt} <a>\n")
    assert ids(str(tmp_path / "own.txt")) == [[0, 1, 3, 2]]
    tokenizer.chat_template = "<u> {{ messages[0]['content'] }} <a>"
    assert ids("chat") == [[0, 1, 3, 2]]
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 5)])
    assert prompt_tokens(PreTrainedTokenizerFast(tokenizer_object=core), ["hi", "<s> hi"]) == [[3], [0, 3]]
    assert prompt_tokens(tokenizer, []) == []
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        load_template("chat", tokenizer)


def test_a_question_may_be_put_into_a_form_first() -> None:
    asked = load_template("r1-zero", None).asking("{prompt} Box it: \\boxed{}.").render("1+{x}?")
    assert "User: 1+{x}? Box it: \\boxed{}.. Assistant:" in asked
