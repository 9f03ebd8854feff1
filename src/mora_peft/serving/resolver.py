"""Adapters by name from one folder, loaded on first use, and again when their files have changed."""

from pathlib import Path

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from . import folders


class FolderResolver(LoRAResolver):
    """MoRA and LoRA adapters alike: a request's model is the name of a folder directly below `root` (resolved).

    `root` is never listed: a name costs a look at its own two files, however many others there are. The base model that
    an adapter names is not compared, since one model has many names; shapes are checked where the adapter is loaded.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._found: dict[str, tuple[str, tuple | None]] = {}  # name → path and fingerprint when it was found

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """The adapter `lora_name`, to be numbered by the caller; None where there is none.

        Raises UserError where it leads out of `root`, or has weights that are no safetensors.
        """
        folder = folders.find(lora_name, self.root)
        if folder is None:
            return None
        # Taken before the files are read: what is written while they are shows as a change afterwards.
        self._found[lora_name] = str(folder), folders.fingerprint(self.root / lora_name)
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))

    def has_found(self, name: str) -> bool:
        """Whether an adapter of that name was found here, now or before."""
        return name in self._found

    def is_current(self, request: LoRARequest) -> bool:
        """Whether the files behind an adapter are as they were when it was found; True if it was not found here."""
        path, seen = self._found.get(request.lora_name, (None, None))
        if path != request.lora_path:
            return True
        return seen is not None and seen == folders.fingerprint(self.root / request.lora_name)


class CurrentRequests(dict[str, LoRARequest]):
    """The adapters that a server knows by name; one whose files have changed or gone is forgotten when asked for.

    So it is found and loaded anew under a number of its own, while requests that run go on with what they began with.
    """

    def __init__(self, resolver: FolderResolver) -> None:
        super().__init__()
        self.resolver = resolver

    def __contains__(self, name: object) -> bool:
        request = self.get(name)
        if request is None:
            return False
        if not self.resolver.is_current(request):
            del self[name]
            return False
        return True

    def listed(self, most: int) -> list[LoRARequest]:
        """The adapters to tell of: all that were loaded on demand, and the last `most` that were found by name."""
        found = [name for name, request in self.items() if self.resolver.has_found(name)]
        hidden = set(found[: max(len(found) - most, 0)])
        return [request for name, request in self.items() if name not in hidden]
