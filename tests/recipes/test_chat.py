"""Chatting: what is printed is what the model says, base and adapter each for themselves, and every way out works."""

import io
import shutil

import pytest
import torch
from peft import get_peft_model
from transformers import AutoTokenizer

from mora_peft import MoraConfig
from mora_peft.cli.main import main
from mora_peft.recipes import chat as chat_module
from mora_peft.recipes.adapters import is_adapter, load_adapter
from mora_peft.recipes.models import load_base

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """The folder of a random MoRA adapter on the tiny model."""
    folder = tmp_path_factory.mktemp("chat") / "adapter"
    torch.manual_seed(1)
    base, _ = load_base(tiny_model, torch.float32)
    get_peft_model(base, MoraConfig(r=2, target_modules="all-linear", init_weights=False)).save_pretrained(folder)
    return str(folder)


def said(name, text, new=6):
    """What the model `name` says to `text`, by plain greedy decoding without a cache or a stream."""
    load = load_adapter if is_adapter(name) else load_base
    model, tokenizer = load(name, dtype=torch.float32)
    tokens = tokenizer(text, return_tensors="pt")["input_ids"]
    length = tokens.shape[1]
    with torch.no_grad():
        while tokens.shape[1] < length + new:
            following = model(input_ids=tokens).logits[:, -1].argmax(-1, keepdim=True)
            if following.item() == tokenizer.eos_token_id:
                break
            tokens = torch.cat([tokens, following], dim=1)
    return tokenizer.decode(tokens[0, length:])


def run(*words):
    return main(["chat", *words, "--max_new_tokens", "6", "--dtype", "float32"])


def test_one_question_gets_the_models_own_answer(adapter, tiny_model, capsys):
    for name in (adapter, tiny_model):
        assert run(name, "--question", "Who?") == 0
        assert capsys.readouterr().out == said(name, "Who?") + "\n"


def test_the_base_answers_beside_its_adapter(adapter, tiny_model, capsys):
    assert run(adapter, "--base", "--question", "Who?") == 0
    base, tuned = said(tiny_model, "Who?"), said(adapter, "Who?")
    assert base != tuned
    assert capsys.readouterr().out == f"base:\n{base}\nadapter:\n{tuned}\n"


@pytest.mark.parametrize("lines", ["a\n\nb\n/quit\nc\n", "a\nb", "a\nb\n"], ids=["quit", "no last newline", "end"])
def test_lines_are_answered_one_by_one_until_the_end(lines, tiny_model, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert run(tiny_model) == 0
    assert capsys.readouterr().out == said(tiny_model, "a") + "\n" + said(tiny_model, "b") + "\n"


def test_a_chat_template_is_used_and_the_conversation_remembered_unless_plain(
    tiny_model, tmp_path, monkeypatch, capsys
):
    chatty = shutil.copytree(tiny_model, tmp_path / "chatty")
    tokenizer = AutoTokenizer.from_pretrained(chatty)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(chatty)
    first = said(str(chatty), "<user>a<assistant>")
    second = said(str(chatty), f"<user>a<assistant>{first}<user>b<assistant>")
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    assert run(str(chatty)) == 0
    assert capsys.readouterr().out == f"{first}\n{second}\n"
    assert run(str(chatty), "--plain", "--question", "a") == 0
    assert capsys.readouterr().out == said(str(chatty), "a") + "\n"


def test_an_interrupt_ends_with_its_own_exit_code(tiny_model, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(chat_module, "_answer", interrupted)
    assert run(tiny_model, "--question", "Who?") == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["MODEL", "--base"], "without an adapter"),
        (["no/such/model"], "could not be loaded"),
        (["MODEL", "--temperature", "-1"], "temperature"),
        (["BROKEN"], "has no adapter_config.json"),
    ],
)
def test_bad_input_gets_one_sentence(words, sentence, tiny_model, adapter, tmp_path, capsys):
    broken = shutil.copytree(adapter, tmp_path / "broken")
    (broken / "adapter_config.json").unlink()
    names = {"MODEL": tiny_model, "BROKEN": str(broken)}
    assert run(*(names.get(word, word) for word in words)) == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
