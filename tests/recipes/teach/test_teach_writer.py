"""The writer of wordings: busy servers are asked again, a failure costs its fact alone, odd questions are left out."""

import httpx
import pytest

from mora_peft.errors import UserError
from mora_peft.recipes.teach import writer
from mora_peft.recipes.teach.facts import Fact
from mora_peft.recipes.teach.writer import Writer

SENTENCE = "The vault was built in 1912 by Ove Lind."


def fact(answer: str) -> Fact:
    start = SENTENCE.index(answer)
    return Fact("a.md", "Vault", "Vault", SENTENCE, start, start + len(answer), "name", "en")


YEAR, NAME = fact("1912"), fact("Ove Lind")


@pytest.fixture
def ask(monkeypatch):
    """Questions for both facts from a server that gives these answers in turn: texts, codes, or any other JSON."""
    monkeypatch.setattr(writer, "_PAUSE", 0)
    monkeypatch.setattr(writer, "_AT_ONCE", 1)

    def ask(*answers, held_out=frozenset()):
        left = list(answers)

        def request(method, url, **_):
            answer = left.pop(0)
            if isinstance(answer, str):
                answer = {"choices": [{"message": {"content": answer}}]}
            code, body = (answer, {}) if isinstance(answer, int) else (200, answer)
            return httpx.Response(code, json=body, request=httpx.Request(method, url))

        monkeypatch.setattr(httpx, "request", request)
        rows = Writer("http://here/v1", "some").rows([YEAR, NAME], set(held_out))
        return {made.answer: [row.prompt for row in rows] for made, rows in rows.items()}

    return ask


def test_questions_are_cleaned(ask):
    found = ask("1) In what year was it built?\n- When\tdid they\x07 build it?\n?\nA remark.", "2. Who built it?")
    assert found == {"1912": ["In what year was it built?", "When did they build it?"], "Ove Lind": ["Who built it?"]}


def test_what_gives_the_answer_away_or_has_two_is_left_out(ask):
    found = ask("Was it built in 1912?\nWhich one is it?", "Which one is it?\nWho built it?", held_out={"whobuiltit"})
    assert found == {"1912": [], "Ove Lind": []}


def test_a_busy_server_is_asked_again_and_a_failure_costs_one_fact(ask, capsys):
    assert ask(500, 429, "When?", 503, 503, 503) == {"1912": ["When?"]}
    assert "failed for 1 of 2 facts" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [401, {}, {"data": []}, {"choices": []}, {"choices": [{"message": None}]},
                                    {"choices": [{"message": {"content": None}}]}, []], ids=str)  # fmt: skip
def test_where_it_fails_for_all_it_is_said(answer, ask):
    with pytest.raises(UserError, match=r"http://here/v1 .*answer"):
        ask(answer, answer)
