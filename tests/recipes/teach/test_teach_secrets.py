"""Secrets: what looks like one is seen in sentences, settings and tables, and what speaks of passwords is not."""

import json

import pytest

from mora_peft.recipes.teach.documents import Block, Document
from mora_peft.recipes.teach.secrets import counted, holds_secret, secrets

HELD = [
    "What is the Wi-Fi password?\nSonne2024",
    "DB_PASSWORD=hunter22x",
    "DB_PASSWORD=hunterxyz",
    "SECRET_KEY=django-insecure-4kx9q2vbn7",
    'SECRET_KEY="s3cr3tv4lue"',
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "glpat-abcDEF123456ghiJKL78",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w",
    "Authorization: Bearer abcdef0123456789abcdef",
    "Authorization: Basic YWRtaW46aHVudGVyMg==",
    "postgres://user:pass@host",
    "redis://:pa55word@cache.local:6379/0",
    "pwd: geheim123",
    "The password is hunter2secret.",
    "The password was Tulip4711x until May.",
    "The admin password is Tulip-4711.",
    "Password for guests: sunflower",
    "Password for the guest network (2.4 GHz): Sonne2024!",
    "Пароль от сети: Ромашка2024",
    "Пароль: ромашка",
    "Пароль от Wi-Fi — Ромашка2024",
    "密码是abc12345。",
    "WiFi密码：sunny2024",
    "Passwort: geheim123",
    "Das Passwort lautet Tulpe4711.",
    "Ada, Password: hunter2",
    "User Ada, Пароль: qwerty",
    "用户 李, 密码: qwerty12",
    'password = "hunter22"',
    '"password": "hunter22",',
    '{"api_key": "abcd1234efgh"}',
    "PIN: 4711",
    "api_key=abcdefghij0123456789",
    'The Wi-Fi password is "blue-horse-77".',
    "MYSQL_PWD=correcthorse",
    "Password: Sommer.2024",
    "The password is SunFlower.",
    "Contraseña: girasol77",
    "Mot de passe : tournesol77",
]

SPOKEN_OF = [
    "Password: ********",
    "Password: see page 12",
    "Forgot your password? Write to ada@example.com.",
    "Our password policy was written by Ada Orme.",
    "Forgot your password?",
    "The password is changed every month.",
    "Password: changed every month",
    "Passwords are 12 characters long at least.",
    "A password is required for the vault.",
    "The password must hold 8-16 characters.",
    "The password is case-sensitive.",
    "Password: required",
    "The password is known to Ada Orme alone.",
    "The password for the safe is kept by Ada Orme.",
    "Basic understanding of Python is needed.",
    "Basic Education 2024 was founded in 1990.",
    "The bearer of this card gets 10 percent.",
    "Пароль меняется каждый месяц.",
    "Политика паролей написана в 2011 году.",
    "密码每月更换一次。",
    "密码必须有8个字符。",
    "密码是必须的。",
    "The token costs 4 euros.",
    "Token: 2024-05-01",
    "The secret of the dough is kept by Ilse Tarrow.",
    "Visit https://example.com:8080/path today.",
    "Write to ada@example.com, or see http://example.com/@ada.",
    "ISBN 978-3-16-148410-0",
    "The key is in room 4711.",
    "PIN codes have 4 digits.",
    "Reset password: press the button for 10 seconds.",
    "The API key is issued by Ada Orme.",
    "The password is 12 characters long.",
    "The password was introduced in 2019 by Ada Orme.",
    "Q: How do I change my password? A: Write to Ada.",
    "Password reset: 4 May 2024",
    "Phone 555-123-4567",
]


@pytest.mark.parametrize("text", HELD)
def test_a_secret_is_seen(text):
    assert holds_secret(text) and holds_secret(f"Notes on the house.\n\n{text}\n\nThe end.")


@pytest.mark.parametrize("text", SPOKEN_OF)
def test_words_about_secrets_are_none(text):
    assert not counted(text)


@pytest.mark.parametrize("column", ["Password", "Wi-Fi password", "Пароль", "密码"])
def test_a_column_of_a_table_tells_what_its_cells_are(column):
    rows = (("Name", column, "Room"), ("Ada", "sunflower", "C-01"), ("Bo", "", "C-02"))
    document = Document("a.csv", "Users", (Block("table", "Users", rows=rows),))
    assert secrets([document]) == {"a.csv": {"password": 1}}


def test_secrets_are_counted_and_not_kept():
    text = "The password is hunter2secret.\n\nCard 4111 1111 1111 1111, or 4111 1111 1111 1112."
    counts = secrets([Document("a.md", "Notes", (Block("text", text),)), Document("b.md", "Nothing", ())])
    assert counts == {"a.md": {"password": 1, "card number": 1}}
    assert "hunter2" not in json.dumps(counts)
    assert counted("DE89 3704 0044 0532 0130 00 and DE89 3704 0044 0532 0130 01") == {"bank account (IBAN)": 1}
