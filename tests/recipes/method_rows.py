"""The table of methods for tests: the options that a row cannot do without."""

import json
from pathlib import Path


def options_for(method: str, folder: Path) -> dict:
    """Options with which `method` can be used; files that they name are written to `folder`."""
    if method != "peft":
        return {}
    file = folder / "lokr.json"
    file.write_text(json.dumps({"peft_type": "LOKR", "r": 4}))
    return {"config": str(file)}
