"""The only file that touches PEFT's internals: makes `MORA` a PEFT method of full standing."""

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType, register_peft_method


def add_enum_member(enum_class: type, name: str) -> None:
    """Add the member `name`, equal to its own name, to a `str` enum that is already defined. Idempotent.

    Attribute, call, index and iteration find it; it hashes and pickles as a member written in the class would.
    """
    if name in enum_class.__members__:
        return
    member = str.__new__(enum_class, name)
    member._name_ = name
    member._value_ = name
    member.__objclass__ = enum_class
    member._sort_order_ = len(enum_class._member_names_)
    enum_class._member_names_.append(name)
    enum_class._member_map_[name] = member
    enum_class._value2member_map_[name] = member
    type.__setattr__(enum_class, name, member)


# Tools find the method from here on; `register` fills in its classes once they exist.
_known_to_peft = "MORA" in PeftType.__members__
add_enum_member(PeftType, "MORA")


def register(config_cls: type, model_cls: type) -> None:
    """Register MoRA's config and model with PEFT. Calling it again with the same classes changes nothing.

    Raises:
        ImportError: PEFT has a MORA method of its own.
    """
    registered = PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType.MORA)
    if registered is config_cls:
        return
    if registered is not None or _known_to_peft:
        import peft

        raise ImportError(
            f"PEFT {peft.__version__} already has a method called MORA, so mora-peft must not register its own: "
            "use PEFT's, or install the PEFT version that mora-peft asks for (see its requirements)."
        )
    register_peft_method(name="mora", config_cls=config_cls, model_cls=model_cls)
