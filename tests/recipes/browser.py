"""A page in a real browser, headless: what a script finds in it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_page import Page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the page is not tried in a browser")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=5000 --dump-dom"""


def probed(page: Path, script: str, width: int) -> dict:
    """What `script` put into `probe`, run on `page` when it is drawn; fails on anything in the log."""
    probe = (
        f"<script>const probe = {{}}; {script}; parent.document.body.dataset.probe = JSON.stringify(probe);</script>"
    )
    whole = page.read_text(encoding="utf-8").replace("</body>", probe + "</body>")
    # No window is narrower than 500 pixels, but a frame can be; in srcdoc it may write to its parent.
    quoted = whole.replace("&", "&amp;").replace('"', "&quot;")
    frame = page.with_name("frame.html")
    frame.write_text(f'<meta charset="utf-8"><body><iframe width={width} height=800 srcdoc="{quoted}"></iframe></body>')
    profile = f"--user-data-dir={page.with_name('profile')}"
    done = subprocess.run(
        [BROWSER, *FLAGS.split(), "--window-size=1100,900", profile, frame.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(next(attrs["data-probe"] for _, attrs in Page(done.stdout).elements if "data-probe" in attrs))
