"""Files that are written whole or not at all, folders that belong to one process, and a Ctrl-C that loses nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from ..records import RunError


class FolderInUse(RunError):
    """Another process is training in the folder."""


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that becomes `path` at the end, and only if all went well: never a half-written one."""
    name = path.parent / f".{path.name}-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with name.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # on the disk, not only on its way, before the old file goes
        os.replace(name, path)
    except BaseException as error:
        with suppress(OSError):
            name.unlink()
        if isinstance(error, OSError | RuntimeError):  # torch reports a full disk as a RuntimeError
            kept = "the previous one is kept" if path.exists() else "there is no previous one"
            raise RunError(f"{path} could not be written ({error}); {kept}") from error
        raise


class Interrupt:
    """Turns Ctrl-C, the notebook's stop button or SIGTERM into a wish that the run fulfils after the update it is in.

    A second one breaks off at once, with KeyboardInterrupt. Outside the main thread nothing is changed.
    """

    wanted = False

    def __enter__(self) -> Interrupt:
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        self.before = {number: signal.signal(number, self._note) for number in signals}
        return self

    def _note(self, *_: object) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Make `folder`, and keep other processes from training in it; the system lifts that when this one ends or is killed.

    Raises RunError if the folder cannot be made, FolderInUse if another process trains there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise FolderInUse(f"another process is training in {folder}; wait for it, or choose another folder") from None
    except NotImplementedError:  # a file system without locks
        lock = nullcontext()
    except OSError as error:
        raise RunError(f"{folder} cannot be the folder of a run ({error})") from error
    with lock:
        yield
