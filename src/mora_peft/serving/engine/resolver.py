"""Adapters by name from one folder, loaded on first use, and again when their files have changed."""

from pathlib import Path
from typing import Any

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from .. import folders


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


def forget_if_changed(models: Any, name: str) -> None:
    """Drop `name` from what a server knows where its files have changed or gone.

    So it is found and loaded anew under a number of its own, while requests that run go on with what they began with.
    """
    resolver, known = getattr(models, "folder_resolver", None), models.lora_requests.get(name)
    if resolver is not None and known is not None and not resolver.is_current(known):
        del models.lora_requests[name]
