"""`mora teach` from folder to page, on a model small enough to learn in seconds."""

import json
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mora_peft.cli.main import main
from mora_peft.errors import UserError
from mora_peft.recipes.adapters import is_adapter, load_adapter
from mora_peft.recipes.teach import memory, training
from mora_peft.recipes.teach.settings import TeachConfig
from mora_peft.recipes.teach.teach import teach
from mora_peft.recipes.teach.wordings import key
from mora_peft.recipes.trainer import RecipeTrainer

SMALL = {"r": 2, "passes": 1, "passage_tokens": 64, "batch_size": 8, "asked": 8, "dtype": "float32"}


@pytest.fixture(scope="module")
def settings(documents, tiny_model) -> dict:
    return {"folder": str(documents), "model": tiny_model, **SMALL}


@pytest.fixture(scope="module")
def taught(settings, tmp_path_factory) -> Path:
    """An adapter of MoRA with LoRA beside it."""
    own = tmp_path_factory.mktemp("own") / "own.jsonl"
    questions = {"What does a Tarrow loaf cost?": "7.20 crowns", "What is the cat called?": "Nutmeg Third"}
    own.write_text("".join(json.dumps({"prompt": ask, "completion": say}) + "\n" for ask, say in questions.items()))
    output = tmp_path_factory.mktemp("taught") / "bakery"
    return teach(TeachConfig(**settings, output=str(output), versus="lora", questions=str(own)))


def proof_of(output: Path) -> dict:
    return json.loads((output / "proof.json").read_text(encoding="utf-8"))


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_output_is_an_adapter_with_its_proof(taught, tiny_model):
    assert is_adapter(str(taught))
    model, _ = load_adapter(str(taught))
    assert model.active_peft_config.base_model_name_or_path == tiny_model
    proof = proof_of(taught)
    assert [method["method"] for method in proof["methods"]] == ["mora", "lora"]
    asked = {name for name, found in proof["sets"].items() if found["questions"]}
    assert asked == {"taught", "own", "further", "control"}
    assert [question["question"] for question in proof["sets"]["further"]["questions"]] == ["What is the cat called?"]
    for found in proof["sets"].values():
        for question in found["questions"]:
            assert {"before", "mora", "lora", "question", "source", "completion"} <= question.keys()
            assert 0 <= question["mora"]["f1"] <= 1
    first, second = (method["forgetting"] for method in proof["methods"])
    assert first["before"] == second["before"] and first["after"] != first["before"]
    assert len({method["steps"] for method in proof["methods"]}) == 1
    parameters = [method["trainable_parameters"] for method in proof["methods"]]
    assert max(parameters) < 1.2 * min(parameters)
    assert not list(taught.rglob("*.partial"))


def test_no_question_is_taught_and_every_document_is(taught):
    rows = lines_of(taught / "rows" / "taught.jsonl")
    prompts = {key(row["prompt"]) for row in rows}
    asked = json.loads((taught / "rows" / "questions.json").read_text())
    assert not prompts & {key(row["prompt"]) for questions in asked.values() for row in questions}
    progress = {row["prompt"] for row in lines_of(taught / "rows" / "progress.jsonl")}
    assert not progress & {row["prompt"] for row in asked["taught"]}, "recall so far is measured on other questions"
    documents = {row["document"] for row in rows if row["kind"] == "recall"}
    assert {"bread.html", "hours.md", "leave.pdf", "people.docx", "prices.csv", "vans.xlsx"} <= documents
    assert not {row["document"] for row in asked["control"]} & documents
    assert {row["kind"] for row in rows} == {"recall", "question", "passage"}
    kept, measured = (lines_of(taught / "rows" / f"{name}.jsonl") for name in ("kept", "general"))
    assert kept and measured
    measures = [row["prompt"] + row["completion"] for row in measured]
    assert not any(text.endswith(row["completion"]) for row in kept for text in measures)


def test_the_page_has_every_question_and_needs_nothing_else(taught):
    page = (taught / "proof.html").read_text(encoding="utf-8")
    for question in proof_of(taught)["sets"]["taught"]["questions"]:
        assert question["completion"] in page
    assert "MoRA (rotation)" in page and "LoRA" in page and "http://" not in page.split("plotly.js")[0]


def test_the_same_again_is_not_repeated_and_other_settings_are_refused(taught, settings, monkeypatch):
    before = (taught / "proof.json").read_bytes()
    own = proof_of(taught)["config"]
    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "train", None)  # calling it would fail
        teach(TeachConfig(**own))
    assert (taught / "proof.json").read_bytes() == before
    with pytest.raises(UserError, match=r"other settings.*--fresh"):
        teach(TeachConfig(**own | {"passes": 2}))


def test_an_interrupted_teaching_goes_on(settings, taught, tmp_path, interrupted):
    config = {**settings, "output": str(tmp_path / "again")}
    with interrupted(5):
        teach(TeachConfig(**config))
    assert not is_adapter(config["output"])
    teach(TeachConfig(**config))
    found, expected = proof_of(Path(config["output"])), proof_of(taught)
    answers = [[question["mora"] for question in proof["sets"]["taught"]["questions"]] for proof in (found, expected)]
    assert answers[0] == answers[1]


def test_further_documents_are_taught_from_an_adapter(taught, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "vault.md").write_text(
        "# The vault\n\nThe vault was built in 1912 by Ove Lind. The vault is kept by Sara Moe."
    )
    config = TeachConfig(
        folder=str(folder), output=str(tmp_path / "later"), continue_from=str(taught), minutes=0.02, merge=True, **SMALL
    )
    output = teach(config)
    proof = proof_of(output)
    assert proof["sets"]["earlier"]["questions"]
    before = proof_of(taught)["sets"]
    earlier = {question["question"]: question for name in ("taught", "own") for question in before[name]["questions"]}
    for question in proof["sets"]["earlier"]["questions"]:
        # An answer may go on for longer where others of its set are longer.
        now, then = question["before"]["answer"], earlier[question["question"]]["mora"]["answer"]
        assert now.startswith(then) or then.startswith(now)
    assert proof["rows"]["earlier"] > 0 and (output / "merged" / "model.safetensors").is_file()


def test_a_short_time_teaches_fewer_facts(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "step_seconds", lambda *args: 21.0)
    output = teach(TeachConfig(**settings, output=str(tmp_path / "short"), minutes=1))
    proof = proof_of(output)
    assert proof["facts"] == 16 < proof["facts_found"] and proof["methods"][0]["planned_steps"] == 2
    assert f"1 minutes are enough for 16 of {proof['facts_found']} facts" in capsys.readouterr().out
    assert len(proof["sets"]["taught"]["questions"]) == SMALL["asked"]


@pytest.mark.parametrize("language, text", [
    ("ru", "# Склад\n\nСклад открыт в 07:20. Складом руководит Мирела Остер. Аренда стоит 4 500 рублей."),
    ("zh", "# 仓库\n\n仓库于2011年3月14日开放。仓库由李文静负责。租金为4500元。保修期为27个月。"),
    ("other", "# המחסן\n\nהמחסן נפתח בשנת 2011-03-14 בעיר הגדולה. המחיר הוא 45 שקלים לכל יום."),
])  # fmt: skip
def test_other_languages_are_taught(language, text, tiny_model, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text(text, encoding="utf-8")
    output = teach(TeachConfig(folder=str(folder), model=tiny_model, output=str(tmp_path / "out"), **SMALL))
    proof = proof_of(output)
    assert proof["sets"]["taught"]["questions"]
    assert (language == "other") == any("language" in entry["reason"] for entry in proof["files"])
    assert not {question["document"] for question in proof["sets"]["control"]["questions"]} & {"a.md"}
    if language != "other":
        assert proof["sets"]["control"]["questions"][0]["document"] == f"{language}.md"


class _Server(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that writes one question for each that it is asked, and a remark."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self._say({"data": [{"id": "small"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body["messages"][0]["content"])
        content = f"1. Tell me, which one is it, number {len(self.asked)}?\nNo question."
        self._say({"choices": [{"message": {"content": content}}]})

    def _say(self, answer: dict) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_a_writer_adds_wordings(tiny_model, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text("# The vault\n\nThe vault was built in 1912 by Ove Lind. The password is Tulip4711x.")
    server = HTTPServer(("127.0.0.1", 0), _Server)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        output = teach(
            TeachConfig(folder=str(folder), model=tiny_model, output=str(tmp_path / "out"), writer=url, **SMALL)
        )
    finally:
        server.shutdown()
        server.server_close()
    rows = lines_of(output / "rows" / "taught.jsonl")
    written = [row for row in rows if row["kind"] == "written"]
    assert written and all("which one is it, number" in row["prompt"] for row in written)
    assert all("The vault was built" in asked for asked in _Server.asked), "a sentence with a secret is not sent"
    with pytest.raises(UserError, match="does not answer"):
        teach(TeachConfig(folder=str(folder), model=tiny_model, output=str(tmp_path / "b"), writer=url, **SMALL))


def test_a_model_beyond_the_memory_is_refused_before_it_is_loaded(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_free", lambda: (1.001e9, "of memory"))
    big = tmp_path / "big"
    shutil.copytree(settings["model"], big)
    config = json.loads((big / "config.json").read_text())
    (big / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2000}))
    (big / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"billion weights: .* GB in float32.* GB of memory are free"):
        teach(TeachConfig(**settings | {"model": str(big)}, output=str(tmp_path / "out")))


@pytest.mark.parametrize("changes, words", [
    ({"folder": ""}, "nothing to learn"),
    ({"folder": "no/such/folder"}, "is not a folder"),
    ({"model": None}, "no model"),
    ({"model": "no/such/model"}, "no/such/model could not be"),
    ({"method": "full"}, "leaves no adapter"),
    ({"versus": "lore"}, "no method 'lore'"),
    ({"minutes": 0}, "minutes must be above 0"),
    ({"continue_from": "no/adapter"}, "no/adapter"),
])  # fmt: skip
def test_bad_settings_get_one_sentence(changes, words, settings, tmp_path):
    with pytest.raises(UserError, match=words):
        teach(TeachConfig(**settings | changes, output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_what_is_put_right_is_no_other_teaching(settings, tmp_path, monkeypatch):
    """Nothing is left of a start that failed; but questions, control and folder must be those that were asked about."""
    questions, control = tmp_path / "own.jsonl", tmp_path / "control"
    questions.write_text('{"prompt": "Where?"}\n')
    control.mkdir()
    (control / "pier.md").write_text("# The pier\n\nThe pier was built in 1931 by Rolf Anders.")
    config = settings | {"output": str(tmp_path / "out"), "questions": str(questions), "control": str(control)}
    with pytest.raises(UserError, match=r"own\.jsonl"):
        teach(TeachConfig(**config))
    assert not (tmp_path / "out").exists()
    questions.write_text('{"prompt": "What does a Tarrow loaf cost?", "completion": "7.20 crowns"}\n')

    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(RecipeTrainer, "train", interrupted)
    for _ in range(2):  # the same again goes on
        with pytest.raises(KeyboardInterrupt):
            teach(TeachConfig(**config))
    (control / "pier.md").write_text("# The pier\n\nThe pier was built in 1931 by Olaf Berg.")
    with pytest.raises(UserError, match="other documents"):
        teach(TeachConfig(**config))


def test_an_output_among_the_documents_is_refused(settings):
    with pytest.raises(UserError, match="would be read as documents"):
        teach(TeachConfig(**settings, output=settings["folder"] + "/taught"))


def test_the_command_takes_a_folder_first_and_from(monkeypatch, capsys, tmp_path):
    from mora_peft.cli import teach as command

    found = []
    monkeypatch.setattr(command, "_teach", found.append)
    assert main(["teach", "docs", "--from", "old", "--output", "new", "--versus", "lora", "--merge"]) == 0
    assert (found[0].folder, found[0].continue_from, found[0].versus, found[0].merge) == ("docs", "old", "lora", True)
    assert found[0].method_options == {"operator": "rotation"}
    assert main(["teach", "docs", "--output", "new"]) == 2
    assert "no model" in capsys.readouterr().err
