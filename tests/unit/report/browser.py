"""A headless Chromium, spoken to over a pipe in its own protocol: no driver, and nothing to install beside it.

Usage to take pictures of a page: python tests/unit/report/browser.py PAGE FOLDER
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 120.0
_OPTIONS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--no-sandbox",
    "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip


def find_browser() -> str | None:
    """The browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of one browser. events: all that the page has told since it was opened."""

    def __init__(self) -> None:
        path = find_browser()
        if path is None:
            raise FileNotFoundError(f"expected one of {', '.join(NAMES)}; found none. apt-get install chromium")
        self.events: list[dict[str, Any]] = []
        self._folder = tempfile.mkdtemp(prefix="cem-browser-")
        (reads, self._to), (self._from, writes) = os.pipe(), os.pipe()
        # Above 9, where they are not what the shell below gives the browser: 3 to read from, and 4 to write to.
        theirs = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (reads, writes)]
        words = [path, *_OPTIONS, f"--user-data-dir={self._folder}"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}', "browser", *words],
            pass_fds=theirs,
            stderr=subprocess.DEVNULL,
        )
        for one in (reads, writes, *theirs):
            os.close(one)
        self._rest, self._count, self._session = b"", 0, ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with suppress(Exception):
            self._session = ""
            self.ask("Browser.close")
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result. Raises RuntimeError with the browser's words, or TimeoutError."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError(f"the browser said nothing for {PATIENCE_S:g} s")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise RuntimeError("the browser ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(message))

    def open(self, page: Path, *, script: bool = True, width: int = 1000, dark: bool = False, media: str = "") -> None:
        """Open a file and wait until it and its pictures are there. media: print, or empty for a screen."""
        self.events.clear()
        self.ask("Emulation.setScriptExecutionDisabled", value=not script)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, code: str) -> Any:
        """The value of an expression in the page; a promise's when it is there."""
        answer = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{code}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def saved(self, code: str, folder: Path) -> Path:
        """The file that an expression in the page makes the browser save, when it is whole."""
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
        self.run(code)
        while not any(event["state"] == "completed" for event in self.said("Browser.downloadProgress")):
            self.events.append(self._next())
        return folder / self.said("Browser.downloadWillBegin")[-1]["suggestedFilename"]

    def said(self, *methods: str) -> list[dict[str, Any]]:
        """What was told by events of these names."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def picture(self, file: Path, most: int = 16_000) -> None:
        """The whole page as it is, as a PNG of at most so many pixels in height."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        data = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def print(self, file: Path) -> None:
        """The page as a PDF on A4."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": False}
        file.write_bytes(base64.b64decode(self.ask("Page.printToPDF", **paper)["data"]))


def main() -> None:
    page, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for width in (375, 1000, 1600):
            browser.open(page, width=width)
            browser.picture(folder / f"{width}.png")
        browser.open(page, width=1000, dark=True)
        browser.picture(folder / "dark.png")
        browser.print(folder / "print.pdf")


if __name__ == "__main__":
    main()
