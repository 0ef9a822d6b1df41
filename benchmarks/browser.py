"""A headless Chromium that is timed and not watched.

Tools that drive a browser for tests keep its network and script domains open: the browser then works out a stack trace
for every request, which for a large program is a third of a second that no reader pays. Here only the page domain of the
Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/) is on, over the pipe of
``--remote-debugging-pipe``, and a page is asked nothing until it is done.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import tempfile
from typing import Any, Self

_DEADLINE_S = 60.0
#: No window counts as hidden, or its page would be painted when the browser finds time.
_FLAGS = (
    *("--headless", "--remote-debugging-pipe", "--no-first-run", "--window-size=1280,800", "--disable-breakpad"),
    *("--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding"),
    "--disable-background-timer-throttling",
)


class Browser:
    """One browser with an empty profile of its own; a context of it is a visitor who was never there."""

    def __init__(self, program: str, flags: list[str]) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="hub-browser-", ignore_cleanup_errors=True)
        heard, self._asks = os.pipe()
        self._answers, says = os.pipe()
        # The protocol wants the descriptors 3 and 4; kept above them until then, neither is in the other's way.
        ends = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (heard, says)]

        def placed() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        try:
            self._process = subprocess.Popen(
                [program, *_FLAGS, *flags, f"--user-data-dir={self._profile.name}", "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                close_fds=False,
                preexec_fn=placed,  # noqa: PLW1509 - a benchmark that starts a browser has one thread
            )
        finally:
            for one in (heard, says, *ends):
                os.close(one)
        self._buffer = b""
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._asks)
        os.close(self._answers)
        try:
            # A browser whose pipe is closed ends by itself.
            self._process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def context(self) -> str:
        """Return a new visitor, with nothing in cache or storage."""
        return str(self._call("Target.createBrowserContext")["browserContextId"])

    def visit(self, context: str, address: str, script: str, wanted: str) -> Any:
        """Open *address* in a new tab of *context*, *script* ahead of the page's own, and return the value of *wanted*.

        *wanted* is an expression in the page, whose promise is awaited. The tab is closed.

        Raises:
            RuntimeError: the browser refused a command, or the page failed.
            TimeoutError: the browser said nothing for a minute.
        """
        target = self._call("Target.createTarget", url="about:blank", browserContextId=context, newWindow=True)
        session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self._call("Page.enable", session)
        self._call("Page.bringToFront", session)
        self._call("Page.addScriptToEvaluateOnNewDocument", session, source=script)
        self._call("Page.navigate", session, url=address)
        found = self._call("Runtime.evaluate", session, expression=wanted, awaitPromise=True, returnByValue=True)
        self._call("Target.closeTarget", targetId=target["targetId"])
        if "exceptionDetails" in found:
            raise RuntimeError(f"{address}: {found['exceptionDetails']}")
        return found["result"]["value"]

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        asked: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            asked["sessionId"] = session
        os.write(self._asks, json.dumps(asked).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], _DEADLINE_S)[0]:
                raise TimeoutError(f"The browser has said nothing for {_DEADLINE_S:.0f} s.")
            data = os.read(self._answers, 1 << 16)
            if not data:
                raise RuntimeError("The browser ended.")
            self._buffer += data
        one, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(one))
