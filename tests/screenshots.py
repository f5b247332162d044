"""Takes the pictures of docs/screenshots: every tab, wide and narrow, light and dark, over the runs of a folder.

python tests/screenshots.py FOLDER

FOLDER/runs holds a finished run or two (`slimtune demo` makes one), FOLDER/sweeps a study (`slimtune sweep run
demo-cpu`).
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from test_app import CHROMIUM, SIZES, TABS, App, Page

OUT = Path(__file__).parents[1] / "docs" / "screenshots"
READY = {
    "Data": "#tokens mark",
    "Results": "#report .verdict",
    "Compare": "#comparison table",
    "Runs": "#run-view .slim-badge",
    "Leaderboard": "#board table.heat",
}


def main(folder: Path) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    app = App(folder.resolve(), log=Path(tempfile.mkdtemp()) / "app.log")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for size in SIZES:
            for theme in ("light", "dark"):
                page = Page(browser, app.url, size=size, theme=theme)
                for tab in TABS:
                    take(page, tab, f"{tab.lower().replace(' ', '-')}-{size[0]}-{theme}.webp")
                page.close()
        browser.close()
    app.close()


def take(page: Page, tab: str, name: str) -> None:
    page.tab(tab)
    if tab in READY:
        page.page.wait_for_selector(READY[tab], timeout=120_000)
    if tab == "Try it":
        page.page.wait_for_function("document.querySelector('#prompt textarea').value !== ''")
        page.page.click("#ask")
        page.wait_text("#tuned-answer", "tokens in", ms=120_000)
    page.page.wait_for_timeout(900)
    image = Image.open(io.BytesIO(page.page.screenshot()))
    image.convert("RGB").save(OUT / name, quality=70, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
