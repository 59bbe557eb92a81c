"""A real headless Chromium (Debian: chromium, chromium-driver) to look at pages with.

One is started for each language that a reader may have, serves all tests of a worker, and ends with its session.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DESKTOP, PHONE = (1280, 900), (360, 740)


_running: dict[str, Any] = {}  # the browsers, by the reader's language


@contextmanager
def chromium(*, size: tuple[int, int] = DESKTOP, dark: bool = False, language: str = "en-US") -> Iterator[Any]:
    """Open a tab that knows nothing of those before it, and close it; the test skips where there is no browser.

    Args:
        size: width and height of the page in CSS pixels.
        dark: whether the reader prefers a dark theme.
        language: what the reader's browser asks for.
    """
    browser = _running.pop(language, None) or _start(language)
    first = browser.current_window_handle
    try:
        browser.switch_to.new_window("tab")
        _emulate(browser, size, dark, language)
        yield browser
        _forget_pages(browser, first)
    except BaseException:
        browser.quit()  # who knows in what state it is
        raise
    if _running.setdefault(language, browser) is not browser:
        browser.quit()  # two were open at once


def quit_browsers() -> None:
    """End the browsers that were started."""
    while _running:
        _running.popitem()[1].quit()


def _start(language: str) -> Any:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", f"--lang={language}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def _forget_pages(browser: Any, first: str) -> None:
    """Close all tabs but the first; what pages stored, and what they put on the console, is not for the next test."""
    for tab in browser.window_handles:
        if tab != first:
            browser.switch_to.window(tab)
            browser.execute_script("localStorage.clear(); sessionStorage.clear()")
            browser.close()
    browser.switch_to.window(first)
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    browser.get_log("browser")


def _emulate(browser: Any, size: tuple[int, int], dark: bool, language: str) -> None:
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
    agent = browser.execute_script("return navigator.userAgent")
    browser.execute_cdp_cmd("Emulation.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": language})


def complaints(browser: Any) -> list[str]:
    """What the page put on the console: errors, warnings, and resources that its policy refused."""
    return [entry["message"] for entry in browser.get_log("browser")]


def photograph(browser: Any, path: Path) -> None:
    """Take a picture of the whole page, not only of the part in view."""
    import base64

    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))


def low_contrasts(browser: Any) -> list[tuple[str, str, float, float]]:
    """What of a page has too little contrast: its kind, what it says, its contrast, and the least it should have."""
    script = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
    return [tuple(one) for one in browser.execute_script(script)]
