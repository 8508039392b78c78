"""Take the pictures in docs/images/ of the admin pages, from recorded answers of one moment.

Needs Chromium and playwright; pngquant makes the files smaller, where it is installed.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "tests" / "support"))

# The folder of the tests' support is on the path by now.
import recorded_answers as recorded  # noqa: E402
from page_visits import Site, serving  # noqa: E402
from recorded_rollouts import RELEASES  # noqa: E402

# Name of the file: page, for a release with steps with its phase, and look.
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "overview": ("overview", {"color_scheme": "light", "height": 860}),
    "overview-light": ("overview", {"color_scheme": "light"}),
    "overview-dark": ("overview", {"color_scheme": "dark"}),
    "overview-phone": ("overview", {"color_scheme": "dark", "width": 390, "height": 1900, "device_scale_factor": 2}),
    "release-light": ("release", {"color_scheme": "light"}),
    "release-progressing": ("release Progressing", {"color_scheme": "light", "height": 1620}),
    "release-rolled-back": ("release RolledBack", {"color_scheme": "light", "height": 1620}),
    "rules-light": ("rules", {"color_scheme": "light"}),
    "explain-light": ("explain", {"color_scheme": "light"}),
    "traffic-dark": ("traffic", {"color_scheme": "dark"}),
    "reloads-light": ("reloads", {"color_scheme": "light"}),
}


def take(browser: Browser, site: Site, name: str, page: str, width: int = 1280, height: int = 0, **look: Any) -> None:
    """Take one picture: of the whole page, or so much of it from the top."""
    page, _, phase = page.partition(" ")
    site.answers["release"] = RELEASES[phase] if phase else recorded.RELEASE  # type: ignore[index]
    context = browser.new_context(viewport={"width": width, "height": height or 900}, reduced_motion="reduce", **look)
    opened = context.new_page()
    opened.goto(site.page(page))
    opened.locator("#state[data-state=live]").wait_for()
    opened.evaluate("document.fonts.ready")
    # The age of the page is the one figure that is not recorded. The script of the page goes on with the old element.
    opened.evaluate("""(() => {
        const age = document.querySelector('#state .age'), shown = age.cloneNode();
        shown.textContent = '· 1 s ago';
        age.replaceWith(shown);
    })()""")
    path = IMAGES / f"{name}.png"
    clip = {"x": 0, "y": 0, "width": width, "height": height} if height else None
    opened.screenshot(path=path, full_page=True, clip=clip)  # type: ignore[arg-type,unused-ignore]
    context.close()
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--strip", "--ext", ".png", "256", path], check=True)


def main() -> None:
    """Take all pictures, or those that are named."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium is found: apt-get install chromium pngquant")
    IMAGES.mkdir(exist_ok=True)
    with serving(Site()) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in sys.argv[1:] or PICTURES:
            page, look = PICTURES[name]
            take(browser, site, name, page, **look)
        browser.close()


if __name__ == "__main__":
    main()
