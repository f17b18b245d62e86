"""pytest settings for tests/ and for the notebooks under nbval: the mode of the committed outputs, and what nbval does
not compare."""

import os

from tools.run_notebooks import MODE

os.environ.update(MODE)


def pytest_collectstart(collector):
    path = getattr(collector, "path", None)
    if path is not None and path.suffix == ".ipynb":
        # stderr holds progress bars and process numbers; a table's HTML says what its compared text/plain says
        collector.skip_compare += ("stderr", "text/html", "application/javascript")
