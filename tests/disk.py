"""A disk that can be watched, fill up, or go away together with the process, at any change that Python makes on it."""

import os
import sys
from pathlib import Path

_ALLOCATES = ("open", "os.mkdir", "os.link", "shutil.copyfile")
_CHANGES = (*_ALLOCATES, "os.rename", "os.remove", "os.rmdir")
_watching = None


class Dead(BaseException):
    """The process was killed: nothing that it would still do happens."""


def _audit(event, args):
    if _watching is not None and event in _CHANGES:
        _watching.change(event, args)


sys.addaudithook(_audit)  # for good: Python knows no way to take it back


class Disk:
    """From change number `at` on, the process is dead (each further change raises Dead), or, if `full`, nothing new can
    be written. links=False: no hard links. only: a change of anything outside this folder fails.

    count: changes so far; struck: whether `at` was reached; last: the change at which it was.
    """

    def __init__(self, at: int, full: bool = False, links: bool = True, only: Path | None = None):
        self.at, self.full, self.links, self.only = at, full, links, only
        self.count, self.struck, self.last = 0, False, None

    def __enter__(self):
        global _watching
        _watching = self
        return self

    def __exit__(self, *_):
        global _watching
        _watching = None

    def change(self, event: str, args: tuple) -> None:
        paths = [os.fspath(a) for a in args[: 2 if event in ("os.rename", "os.link", "shutil.copyfile") else 1]
                 if isinstance(a, str | os.PathLike)]  # fmt: skip
        if event == "open" and (not paths or not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        if any("__pycache__" in path for path in paths):
            return
        if self.only is not None:
            for path in paths:  # a relative one is relative to a folder that was opened inside
                if os.path.isabs(path) and not Path(path).is_relative_to(self.only):
                    raise PermissionError(13, f"{event} outside of the folder", path)
        if event == "os.link" and not self.links:
            raise PermissionError(1, "no hard links here")
        self.count += 1
        if self.count > self.at and (not self.full or event in _ALLOCATES):
            self.struck, self.last = True, self.last or (event, *paths)
            raise OSError(28, "No space left on device") if self.full else Dead(event)
