"""Headless Chromium for tests of pages: the DevTools protocol over a pair of pipes, no package.

Protocol: https://chromedevtools.github.io/devtools-protocol/ ; with ``--remote-debugging-pipe``
Chromium reads commands from descriptor 3 and writes answers to 4, JSON ended by a NUL byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=1500,1500",
    # A container's root has no namespaces for the sandbox; the page under test is ours.
    "--no-sandbox",
)  # fmt: skip


class Browser:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self._chooser = 0  # the file input that asks for files
        self.requested: list[str] = []  # every URL that the page asked for
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result; events that come before it are noted."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._count:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Network.requestWillBeSent":
            self.requested.append(event["params"]["request"]["url"])
        elif event.get("method") == "Page.fileChooserOpened":
            self._chooser = event["params"]["backendNodeId"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], 60)
            assert ready, "Chromium does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        text, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        return message

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """The first value of the expression that is true in JavaScript."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            text = "document.body.innerText.slice(0, 2000)"
            assert time.monotonic() < end, f"{expression} is not so: {self.evaluate(text)}"
            time.sleep(0.2)
        return value

    def choose_files(self, button: str, *paths: Path) -> None:
        """Click what opens a file dialogue, and choose in it."""
        self.call("Page.setInterceptFileChooserDialog", enabled=True)
        click = f"document.querySelector('{button}').click()"
        self.call("Runtime.evaluate", expression=click, userGesture=True)
        while not self._chooser:
            self._note(self._next())
        node, self._chooser = self._chooser, 0
        self.call("DOM.setFileInputFiles", backendNodeId=node, files=[str(path) for path in paths])

    def type_into(self, selector: str, text: str) -> None:
        """Focus an element, choose all that it holds, and type."""
        self.evaluate(
            f"(e => {{ e.focus(); e.select && e.select() }})(document.querySelector('{selector}'))"
        )
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """A key that writes nothing, for example Enter."""
        for kind in ("keyDown", "keyUp"):
            code = {"Enter": 13, "ArrowDown": 40}[key]
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A Chromium with a profile of its own, ended with the block."""
    assert CHROMIUM
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()

    def wire() -> None:
        # Moved away first: one of them may be 3 or 4 already.
        reads, writes = os.dup(in_read), os.dup(out_write)
        high_reads, high_writes = os.dup2(reads, 103), os.dup2(writes, 104)
        os.dup2(high_reads, 3)
        os.dup2(high_writes, 4)

    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=wire,
        pass_fds=(3, 4),
    )
    os.close(in_read)
    os.close(out_write)
    try:
        yield Browser(in_write, out_read)
    finally:
        process.kill()
        process.wait(timeout=30)
        os.close(in_write)
        os.close(out_read)
