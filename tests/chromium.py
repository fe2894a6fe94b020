"""A headless Chromium driven over a pair of pipes: the DevTools protocol without a socket."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

BINARY = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
_TIMEOUT = 60.0  # seconds for one answer, after which something is broken
# Chromium reads from descriptor 3 and writes to 4.
_LAUNCH = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, pipe in enumerate(pipes, start=3):
    os.dup2(pipe, number)
    os.close(pipe)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """One page. `problems`: errors in its console; `requests`: every address that it asked for."""

    def __init__(self) -> None:
        assert BINARY
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        child_in, self._in = os.pipe()
        self._out, child_out = os.pipe()
        command = [
            BINARY, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars",
            "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
            f"--user-data-dir={self._profile.name}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(child_in), str(child_out), *command],
            pass_fds=(child_in, child_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(child_in)
        os.close(child_out)
        self._buffer, self._message_id = b"", 0
        self._events: deque[dict[str, Any]] = deque()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._session = ""
        page = next(target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._session = ""
            self.call("Browser.close")
        except (OSError, EOFError):
            self._process.kill()
        self._process.wait(_TIMEOUT)
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> Any:
        """What the protocol's `method` answers; raises `RuntimeError` with its complaint."""
        self._message_id += 1
        message: dict[str, Any] = {"id": self._message_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            response = self._read_message()
            if response.get("id") == self._message_id:
                if "error" in response:
                    raise RuntimeError(f"{method}: {response['error']}")
                return response["result"]
            self._record_event(response)

    def open(
        self,
        path: Path,
        width: int = 1280,
        dark: bool = False,
        scripts: bool = True,
        media: str = "screen",
        height: int = 900,
    ) -> None:
        """Show the file at `path` and wait until it is drawn."""
        self.problems.clear()
        self.requests.clear()
        self._events.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._record_event(self._read_message())

    def resize(self, width: int, height: int) -> None:
        """Make the window so large, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, with what it promises; raises `RuntimeError` where it throws."""
        response = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in response:
            raise RuntimeError(f"{script}: {response['exceptionDetails']}")
        return response["result"].get("value")

    def move(self, x: float, y: float) -> None:
        """Rest the pointer there, in CSS pixels of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Click there."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, clip: tuple[float, float, float, float] | None = None) -> None:
        """Write the whole page, or x, y, width, height of it, as PNG."""
        extra = {} if clip is None else {"clip": dict(zip(("x", "y", "width", "height"), clip, strict=True)) | {"scale": 1}}
        response = self.call("Page.captureScreenshot", captureBeyondViewport=True, **extra)
        path.write_bytes(base64.b64decode(response["data"]))

    def print_pdf(self) -> bytes:
        """The page on paper."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def _read_message(self) -> dict[str, Any]:
        end = time.monotonic() + _TIMEOUT
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            chunk = os.read(self._out, 1 << 20)
            if not chunk:
                raise EOFError("Chromium has gone")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _record_event(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        method, value = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(value["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(value["exceptionDetails"]))
        elif method == "Log.entryAdded" and value["entry"]["level"] in {"error", "warning"}:
            self.problems.append(str(value["entry"]["text"]))
        elif method == "Runtime.consoleAPICalled" and value["type"] in {"error", "warning", "assert"}:
            self.problems.append(str(value["args"]))
