"""`MORA` is a PEFT type like any other, on every Python at hand, and never shadows one of PEFT's own."""

import copy
import inspect
import pickle
import shutil
import subprocess
import sys
import textwrap
from enum import Enum
from pathlib import Path

import peft
import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType

from mora_peft import MoraConfig, MoraModel
from mora_peft.tuner import registration


def test_the_member_is_found_every_way():
    member = PeftType.MORA
    assert member is PeftType("MORA") is PeftType["MORA"] is next(m for m in PeftType if m.name == "MORA")
    assert isinstance(member, PeftType)
    assert member == member.value == member.name == "MORA"
    assert hash(member) == hash("MORA")
    assert {member: 1}["MORA"] == 1
    assert member in PeftType
    assert list(PeftType).count(member) == 1
    assert len(PeftType) == len(PeftType.__members__) == len(list(PeftType))
    assert member != PeftType.LORA


def test_the_member_survives_copies():
    member = PeftType.MORA
    assert copy.copy(member) is copy.deepcopy(member) is member
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(member, protocol)) is member


def test_members_of_peft_are_as_they_were():
    assert PeftType.LORA is PeftType("LORA")
    assert PeftType.LORA.name == "LORA"


def test_peft_knows_the_method():
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.MORA] is MoraConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.MORA] is MoraModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING[PeftType.MORA] == MoraModel.prefix == "mora_"


def test_registering_again_changes_nothing():
    before = list(PeftType), dict(PEFT_TYPE_TO_CONFIG_MAPPING)
    registration.add_enum_member(PeftType, "MORA")
    registration.register(MoraConfig, MoraModel)
    assert (list(PeftType), dict(PEFT_TYPE_TO_CONFIG_MAPPING)) == before


def test_a_peft_with_its_own_mora_is_left_alone(monkeypatch):
    class TheirConfig:
        pass

    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.MORA, TheirConfig)
    with pytest.raises(ImportError, match=rf"PEFT {peft.__version__} already has a method called MORA"):
        registration.register(MoraConfig, MoraModel)
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType.MORA] is TheirConfig


def test_importing_beside_a_peft_with_its_own_mora_says_so():
    """As a PEFT of the future would have it: the member written in the class, and registered before us."""
    program = """
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
        from peft.utils import PeftType
        member = str.__new__(PeftType, "MORA")
        member._name_ = member._value_ = "MORA"
        PeftType._member_map_["MORA"] = PeftType._value2member_map_["MORA"] = member
        type.__setattr__(PeftType, "MORA", member)
        PEFT_TYPE_TO_CONFIG_MAPPING[member] = object
        try:
            import mora_peft
        except ImportError as error:
            print(error)
        assert PEFT_TYPE_TO_CONFIG_MAPPING[member] is object
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "already has a method called MORA" in done.stdout


class Colour(str, Enum):  # noqa: UP042
    """An enum as PEFT writes its own."""

    RED = "RED"


def test_any_str_enum_gains_members_in_order():
    registration.add_enum_member(Colour, "BLUE")
    registration.add_enum_member(Colour, "BLUE")
    assert [member.value for member in Colour] == ["RED", "BLUE"]
    assert pickle.loads(pickle.dumps(Colour.BLUE)) is Colour.BLUE


def find_python(version: str) -> str | None:
    """An interpreter of that version on the path, or one that pyenv keeps."""
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    for executable in filter(None, (shutil.which(f"python{version}"), *map(str, kept))):
        if subprocess.run([executable, "-c", ""], capture_output=True).returncode == 0:
            return executable
    return None


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_enums_of_other_pythons(version):
    executable = find_python(version)
    if executable is None:
        pytest.skip(f"Python {version} is not installed")
    program = inspect.getsource(registration.add_enum_member) + textwrap.dedent("""
        import copy, enum, pickle
        class Kind(str, enum.Enum):
            LORA = "LORA"
        add_enum_member(Kind, "MORA")
        add_enum_member(Kind, "MORA")
        member = Kind.MORA
        assert member is Kind("MORA") is Kind["MORA"] is list(Kind)[-1] and len(Kind) == len(list(Kind)) == 2
        assert hash(member) == hash("MORA") and member == "MORA" and member in Kind and isinstance(member, Kind)
        assert copy.copy(member) is copy.deepcopy(member) is pickle.loads(pickle.dumps(member)) is member
        assert repr(member) == repr(Kind.LORA).replace("LORA", "MORA")
        assert member.name == member.value == "MORA" and Kind.LORA is Kind("LORA")
        """)
    done = subprocess.run([executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
