"""Files: written whole or not at all, and read with one clear line when they are missing or damaged."""

import glob
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from bayesdd.numerics.refusal import MissingPackage, Refusal

T = TypeVar("T")

MOST_LETTERS = 1000  # of a message: names in a damaged file can have any length
STRAY_AFTER = 60.0  # seconds: a process may share its number with a dead one of another machine on a shared disk


def writable(path: str | os.PathLike[str]) -> Path:
    """The real path behind `path`, if a file could be written there now.

    Creates a nameless temporary file beside it, because permission bits say nothing about read-only or full disks.

    Raises:
        OSError: in one line, of the type that applies (FileNotFoundError, PermissionError, ...).
    """
    target = Path(os.path.realpath(path))
    if not target.parent.exists():
        raise FileNotFoundError(f"cannot write {path}: folder {target.parent} does not exist; create it first")
    if not target.parent.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {target.parent} is not a folder")
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise OSError(f"cannot write {path}: it is a device or a pipe; name an ordinary file")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"cannot write {path}: the file there is write-protected; name another one")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror or one_line(error)}; name another folder") from error
    return target


def vacant(path: str | os.PathLike[str]) -> Path:
    """The path, if a new file could be written there now.

    Raises:
        OSError: It exists already, or cannot be written (one line).
    """
    if os.path.lexists(path):
        raise FileExistsError(f"cannot write {path}: this file exists already; name another one, or delete it")
    writable(path)
    return Path(path)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it takes the place of `path` in one step.

    On any failure the temporary file is removed and what was at `path` stays. RuntimeError counts as an input/output
    error: netCDF4 raises it where the disk is full.

    Raises:
        OSError: in one line, if the file cannot be written.
    """
    target = writable(path)
    _remove_strays(target)
    part = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield part
        _sync(part)
        os.replace(part, target)
    except (OSError, RuntimeError) as error:
        kept = "; the earlier file there is unchanged" if target.exists() else ""
        raise OSError(f"cannot write {path}: {one_line(error)} (is the disk full?){kept}") from error
    finally:
        part.unlink(missing_ok=True)
    _sync(target.parent)


def _remove_strays(target: Path) -> None:
    """Removes what killed processes of this machine left half-written beside a file."""
    for stray in target.parent.glob(f".{glob.escape(target.name)}.*.*.part"):
        owner = stray.name.split(".")[-3]
        old = time.time() - stray.stat().st_mtime > STRAY_AFTER
        if owner.isdecimal() and old and not _alive(int(owner)):
            stray.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextmanager
def claimed(path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a path for one process: another that wants to write it is told at once.

    Raises:
        OSError: Another process holds it.
    """
    target = Path(os.path.realpath(path))
    lock = FileLock(target.with_name(f".{target.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OSError(
            f"cannot write {path}: another process is about to write it; wait for it, or name another file"
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def load(path: str | os.PathLike[str], read: Callable[[Path], T], what: str, *, folder: bool = False) -> T:
    """`read(path)`, whose failures become one line; `what` names the kind of file expected, such as "a netCDF file".

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: a folder, unless `folder` allows it.
        PermissionError: not ours to read.
        Refusal: truncated, damaged, or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir() and not folder:
        raise IsADirectoryError(f"{path} is a folder; {what} was expected")
    try:
        return read(path)
    except PermissionError as error:
        raise PermissionError(f"{path}: no permission to read it") from error
    except MissingPackage:
        raise
    except Exception as error:  # readers answer damaged bytes with errors of every type
        raise Refusal(
            f"{path} cannot be read as {what}; it is damaged or of another kind: {one_line(error)[:MOST_LETTERS]}"
        ) from error


def one_line(error: BaseException) -> str:
    """The message of an exception without line breaks; its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
