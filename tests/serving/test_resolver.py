"""Names and paths from the network never lead out of the configured folder, and changed files are seen."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_peft.errors import UserError
from mora_peft.serving.folders import ADAPTERS, check_folder, configured, find, fingerprint, is_name
from mora_peft.tuner.files import CONFIG, WEIGHTS


def adapter(folder: Path, content: str = "1") -> Path:
    """A folder that looks like an adapter from outside; nothing here reads what is in its files."""
    folder.mkdir(parents=True)
    for file in (CONFIG, WEIGHTS):
        (folder / file).write_text(content)
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    """The configured folder, with the adapter `mine` in it, and `secret` beside it."""
    adapter(tmp_path / "served" / "mine")
    adapter(tmp_path / "secret")
    return tmp_path / "served"


@pytest.mark.parametrize("name", ["mine", "user_17", "v1.2-final", "_", "7", "a" * 128])
def test_names_of_adapters(name, root):
    assert is_name(name)
    folder = root / name
    assert find(name, root) == (folder if name == "mine" else None)
    assert name == "mine" or find(adapter(folder).name, root) == folder


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".mine", "../secret", "mine/", "a/b", "a\\b", "-x", "mine\n", "a b", "é", "a" * 129]
)
def test_names_that_are_none(name, root):
    assert not is_name(name) and find(name, root) is None


def test_other_adapters_cost_nothing(root, monkeypatch):
    """A name is looked up without listing the folder."""
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("the folder was listed"))
    assert find("mine", root) == root / "mine"
    assert find("yours", root) is None


def link(place: Path, target: Path) -> Path:
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    return place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: link(root / "link", root.parent / "secret"), "only adapters below"),
        (lambda root: link(adapter(root / "link") / WEIGHTS, root.parent / "secret" / WEIGHTS), "a link out of"),
        (lambda root: link(adapter(root / "link") / CONFIG, root.parent / "secret" / CONFIG), "a link out of"),
        (lambda root: link(root / "link", root), "only adapters below"),
        (
            lambda root: (adapter(root / "link") / WEIGHTS).rename(root / "link" / "adapter_model.bin"),
            "never from a pickle",
        ),
    ],
)
def test_links_and_pickles_are_refused_by_name_and_by_path(change, words, root):
    change(root)
    (root / CONFIG).write_text("{}")  # so that even the folder itself looks like an adapter
    for ask in (lambda: find("link", root), lambda: check_folder("link", root)):
        with pytest.raises(UserError, match=words):
            ask()


def test_links_inside_the_folder_are_followed(root):
    link(root / "alias", root / "mine")
    link(adapter(root / "other") / WEIGHTS, root / "mine" / WEIGHTS)
    assert find("alias", root) == check_folder("alias", root) == root / "mine"
    assert find("other", root) == check_folder("other", root) == root / "other"


def test_paths_below_the_folder_are_accepted(root):
    deep = adapter(root / "team" / "theirs")
    assert check_folder("mine", root) == check_folder(str(root / "mine"), root) == root / "mine"
    assert check_folder("./team/theirs/", root) == check_folder(str(deep), root) == deep


@pytest.mark.parametrize(
    "path",
    ["", ".", "/", "..", "../secret", "mine/../mine", "mine/../../secret", "/etc", "~", "~/x", "org/model", "mine\0",
     "https://example.org/x", "a" * 5000, "mine/" + CONFIG],
)  # fmt: skip
def test_paths_that_are_refused(path, root):
    with pytest.raises(UserError) as error:
        check_folder(path, root)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_links_in_a_circle_are_refused(root):
    link(root / "a", root / "b")
    link(root / "b", root / "a")
    with pytest.raises(UserError):
        check_folder("a", root)
    assert find("a", root) is None


@given(
    parts=st.lists(
        st.sampled_from(["..", ".", "mine", "served", "secret", "/", "~", "away", "\0", ""]) | st.text(max_size=3)
    )
)
def test_no_path_leads_out(parts, tmp_path_factory):
    base = tmp_path_factory.getbasetemp() / "no-path"
    root = base / "served"
    if not base.exists():
        adapter(root / "mine")
        adapter(base / "secret")
        link(root / "away", base / "secret")
    try:
        assert check_folder("/".join(parts), root) == root / "mine"
    except UserError:
        pass


def test_without_a_folder_paths_are_left_to_vllm():
    assert check_folder("org/model", None) == Path("org/model")


def test_the_folder_is_configured_by_a_variable(root, monkeypatch):
    monkeypatch.delenv(ADAPTERS, raising=False)
    assert configured() is None
    monkeypatch.setenv(ADAPTERS, str(link(root.parent / "alias", root)))
    assert configured() == root
    monkeypatch.setenv(ADAPTERS, str(root / "absent"))
    with pytest.raises(UserError, match="is not a folder"):
        configured()


def rewrite(folder: Path, file: str) -> None:
    """New content of the same size, as a training that ends again writes it."""
    (folder / file).write_text("2")
    os.utime(folder / file, ns=(1, 1))


CHANGES = {
    "configuration rewritten": lambda folder: rewrite(folder, CONFIG),
    "weights rewritten": lambda folder: rewrite(folder, WEIGHTS),
    "weights replaced": lambda folder: os.replace(adapter(folder.parent / "new") / WEIGHTS, folder / WEIGHTS),
    "folder replaced": lambda folder: (folder.rename(folder.parent / "old"), adapter(folder)),
    "link moved": lambda folder: (folder.rename(folder.parent / "old"), link(folder, adapter(folder.parent / "new"))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_has_another_fingerprint(change, root):
    before = fingerprint(root / "mine")
    assert before is not None and before == fingerprint(root / "mine")
    CHANGES[change](root / "mine")
    assert fingerprint(root / "mine") not in (None, before)
    (root / "mine" / WEIGHTS).unlink()
    assert fingerprint(root / "mine") is None


# What vLLM sees of it.


@pytest.fixture
def known(root):
    """A server's adapters, none yet, and the resolver that finds them."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from mora_peft.serving.engine.resolver import FolderResolver

    return SimpleNamespace(lora_requests={}, folder_resolver=FolderResolver(root))


def ask(known, name: str, number: int):
    """What the server does for a request with the name `name`."""
    from mora_peft.serving.engine.resolver import forget_if_changed

    forget_if_changed(known, name)
    if name not in known.lora_requests and (found := asyncio.run(known.folder_resolver.resolve_lora("base", name))):
        found.lora_int_id = number
        known.lora_requests[name] = found
    return known.lora_requests.get(name)


def test_an_adapter_is_found_once(known, root):
    first = ask(known, "mine", 1)
    assert (first.lora_name, first.lora_path) == ("mine", str(root / "mine"))
    assert ask(known, "mine", 2) is first
    assert ask(known, "yours", 3) is None


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_adapter_is_found_anew(change, known, root):
    ask(known, "mine", 1)
    CHANGES[change](root / "mine")
    assert ask(known, "mine", 2).lora_int_id == 2
    assert ask(known, "mine", 3).lora_int_id == 2


def test_a_link_that_is_moved_shows_as_a_change(known, root):
    """The usual way to replace a folder at one stroke."""
    link(root / "current", adapter(root / "v1"))
    assert ask(known, "current", 1).lora_path == str(root / "v1")
    link(root / "current", adapter(root / "v2"))
    assert ask(known, "current", 2).lora_path == str(root / "v2")


def test_a_removed_adapter_is_forgotten(known, root):
    ask(known, "mine", 1)
    (root / "mine" / CONFIG).unlink()
    assert ask(known, "mine", 2) is None


def test_what_a_client_loaded_itself_stays(known, root):
    from vllm.lora.request import LoRARequest

    ask(known, "mine", 1)
    known.lora_requests["mine"] = LoRARequest("mine", 2, str(root.parent / "secret"))
    rewrite(root / "mine", WEIGHTS)
    assert ask(known, "mine", 3).lora_int_id == 2


def test_thousands_are_not_listed(known, root):
    from vllm.lora.request import LoRARequest

    from mora_peft.serving.engine.names import told_of

    for number in range(1, 10):
        ask(known, adapter(root / f"a{number}").name, number)
        known.lora_requests[f"loaded{number}"] = LoRARequest(f"loaded{number}", number + 10, "/anywhere")
    names = [request.lora_name for request in told_of(known, 3)]
    assert sorted(names) == sorted([f"loaded{n}" for n in range(1, 10)] + ["a7", "a8", "a9"])
