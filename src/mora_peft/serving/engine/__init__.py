"""What the plugin changes in vLLM: the one place that knows vLLM's internals."""

_installed = False


def install() -> None:
    """Change vLLM in this process; calling it again changes nothing."""
    global _installed
    if _installed:
        return
    from . import answers, faults, layers, loading, metrics, names, steps

    for part in (layers, loading, steps, faults, answers, names, metrics):
        part.install()
    _installed = True
