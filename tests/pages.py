"""Run a service in a thread, and look at its pages with a real browser."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from anomalens.options import LoadOptions
from anomalens.serving.running import bind
from anomalens.serving.settings import ServeSettings
from anomalens.serving.web_app import create_app
from real_browser import Tab, new_tab

NUTS = Path(__file__).parents[1] / "examples" / "hazelnuts" / "peeled_hazelnut"
GOOD = sorted((NUTS / "train" / "good").glob("*.jpg"))
SOUND = sorted((NUTS / "test" / "good").glob("*.jpg"))
PAINTED = sorted((NUTS / "test" / "colour").glob("*.jpg"))

# Images are seen small and once, so that tests wait little.
SMALL = LoadOptions(size=224, extra_sizes=(0,))


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[str]:
    """Run a service that keeps its history in `folder`; yield its address."""
    app = create_app(ServeSettings(store=f"sqlite:///{folder / 'history.db'}", options=SMALL, **settings))
    with bind("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            httpx.get(f"{address}/healthz", timeout=60).raise_for_status()
            yield address
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def looking(browser: Any, address: str, *, refused: int | str = "", **context: Any) -> Iterator[Tab]:
    """Open a tab on a service; afterwards fails where its console held a complaint or a script failed.

    The browser complains of every answer that refuses something; `refused` is the status of those that are expected,
    or the browser's own name for what it could not reach.
    """
    tab = new_tab(browser, base_url=address, **context)
    try:
        yield tab
    finally:
        tab.page.close()
    complaints = [text for text in tab.complaints if not (refused and f"{refused}" in text)]
    assert not complaints, complaints
