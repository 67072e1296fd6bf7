"""One notebook run for :mod:`piaa_utils.classroom.grade`, in a process of its own behind a fence.

The process is started with two arguments: a JSON file that says what to run, and the file that
its findings go to, one JSON object a line. A verdict is whether the lesson's own check raised,
never what was printed.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BLANK = "Your answer goes here"  # what notebooks/build.py puts into a student's function
LOUDEST = 20_000_000  # characters that an answer may print
LARGEST_FILE = 256 << 20  # bytes
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Audit event -> where its arguments hold the paths that it would change, and their folders' fds.
CHANGES = {
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.mkdir": [(0, 2)],
    "os.rename": [(0, 2), (1, 3)],
    "os.link": [(1, 3)],
    "os.symlink": [(1, 2)],
    "os.chmod": [(0, 2)],
    "os.chown": [(0, 3)],
    "os.utime": [(0, 3)],
    "os.truncate": [(0, None)],
}
NETWORK = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.bind")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty")
MACHINE = ("os.kill", "os.killpg", "resource.setrlimit")
GUARDED = ("builtins", "math", "numpy", "torch", "sklearn.metrics")  # and all of piaa_utils


class TooSlow(BaseException):
    """An answer used up the time of one exercise; no ``except Exception`` swallows it."""


class TooLoud(BaseException):
    """An answer printed more than LOUDEST characters."""


class Fence:
    """An audit hook that denies what a lesson has no need of; it stops accidents, not attacks.

    Parameters
    ----------
    writable : folders below which files may be written.
    cache : the features' folder, denied like the rest, but trying is nobody's fault.

    While ``strict`` (an answer runs) new processes and signals are denied too, and ``denied``
    collects what was tried.
    """

    def __init__(self, writable: Iterable[str], cache: str = "") -> None:
        self.writable = [os.path.realpath(folder) for folder in writable]
        self.cache = os.path.realpath(cache) if cache else None
        self.strict = False
        self.denied: list[str] = []

    def __call__(self, event: str, args: tuple) -> None:
        """Raise PermissionError for an event that is denied; see ``sys.addaudithook``."""
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING:
                self._write(path, None)
        elif event in CHANGES:
            for at, folder in CHANGES[event]:
                self._write(args[at], None if folder is None else args[folder])
        elif event in NETWORK:
            if not self._between_own_processes(event, args):
                self._deny("use the network")
        elif self.strict and event in PROCESSES:
            self._deny("start another program")
        elif self.strict and event in MACHINE:
            self._deny("send signals or change limits")

    def _between_own_processes(self, event: str, args: tuple) -> bool:
        """This machine's own address, and not from the thread that runs an answer: Dask's."""
        address = args[0] if event == "socket.getaddrinfo" else args[1]
        host = address[0] if isinstance(address, tuple) else address
        answering = self.strict and threading.current_thread() is threading.main_thread()
        return host in LOOPBACK and not answering

    def _write(self, path: object, folder: int | None) -> None:
        if isinstance(path, int) or path is None:
            return  # a file that is open already
        path = os.fsdecode(path)
        if folder is not None and folder >= 0 and not os.path.isabs(path):
            path = os.path.join(f"/proc/self/fd/{folder}", path)
        path = os.path.realpath(path)
        if path == os.devnull or _below(path, self.writable):
            return
        blameless = self.cache is not None and _below(path, [self.cache])
        self._deny(f"change {path}, outside its folder", blameless)

    def _deny(self, what: str, blameless: bool = False) -> None:
        if self.strict and not blameless and what not in self.denied:
            self.denied.append(what)
        raise PermissionError(f"Grading does not let a notebook {what}.")


def _below(path: str, folders: Iterable[str]) -> bool:
    return any(path == f or path.startswith(f + os.sep) for f in folders)


class Seal:
    """The functions that a verdict rests on, as they were; ``mend`` puts back what was changed."""

    def __init__(self) -> None:
        self.kept = [
            (module, name, value, getattr(value, "__code__", None))
            for key, module in list(sys.modules.items())
            if module is not None and (key in GUARDED or key.split(".")[0] == "piaa_utils")
            for name, value in list(vars(module).items())
            if callable(value)
        ]

    def mend(self) -> list[str]:
        """Put back what was changed since, and name it."""
        changed = []
        for module, name, value, code in self.kept:
            if vars(module).get(name) is not value:
                setattr(module, name, value)
                changed.append(f"{module.__name__}.{name}")
            if code is not None and value.__code__ is not code:
                value.__code__ = code
                changed.append(f"{module.__name__}.{name}")
        return changed


class Counter(io.TextIOBase):
    """Takes what is printed, keeps nothing, and raises TooLoud where it is too much."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, text: str) -> int:
        self.size += len(text)
        if self.size > LOUDEST:
            raise TooLoud(f"it printed more than {LOUDEST:,} characters")
        return len(text)


def limit(seconds: float, megabytes: int) -> None:
    """Set this process's limits: processor seconds, memory of its own, size of a file, no core."""
    cores = os.cpu_count() or 1
    wanted = {
        resource.RLIMIT_CPU: int(seconds * cores) + 5,
        resource.RLIMIT_DATA: megabytes << 20,
        resource.RLIMIT_FSIZE: LARGEST_FILE,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def open_loopback() -> None:
    """Bring up 127.0.0.1, which a process that was cut off from the network starts without."""
    set_flags, up = 0x8914, 1  # SIOCSIFFLAGS and IFF_UP of Linux
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up))


def run(
    plan: list[dict[str, Any]],
    tell: Callable[..., None],
    fence: Fence,
    each: float,
    printed: Counter,
) -> None:
    """Run a plan's steps in order and tell what was found.

    Parameters
    ----------
    plan : steps ``{"kind", "source"}``. A "lesson" is the pristine notebook's; an "answer" is the
        student's and has a "number" (None for a cell of their own between the lessons'); a "check"
        has a "number" and the names of the "answers" that it may take from the student.
    tell : called with keywords: ``start`` before a step that is not a lesson's, ``verdict`` with
        its ``number`` and ``message`` after a check, ``note`` for anything else worth a word.
    fence : made strict while the student's code runs.
    each : seconds that the answer to one exercise may take, and its check again.
    printed : counts what each step prints.
    """
    shell = _shell()
    space = shell.user_ns
    before: dict[str, Any] | None = None  # the lesson's names, while the student's code runs
    seal, error = None, ""
    for step in plan:
        if step["kind"] == "lesson":
            if before is not None:
                space.update(before)
                before, error = None, ""
            result = shell.run_cell(step["source"])
            if not result.success:
                tell(note=f"a cell of the lesson stopped ({_words(_error(result))})")
            continue
        number = step.get("number")
        tell(start=f"Exercise {number}" if number else "a cell that the student added")
        if before is None:
            before, seal = dict(space), Seal()
        fence.strict, printed.size = True, 0
        if step["kind"] == "answer":
            failure = _timed(each, lambda s=step: _error(shell.run_cell(s["source"])))
            if failure is not None and number:
                error = _words(failure)
            elif failure is not None:
                tell(note=f"a cell that the student added stopped ({_words(failure)})")
        else:
            given = {name: space[name] for name in step["answers"] if name in space}
            seal.mend()
            found, message = _verdict(step["source"], {**before, **given}, given, each)
            if changed := seal.mend():
                found, message = "failed", f"it changed {changed[0]} while it was checked"
            if found == "failed" and error:
                message = error
            error = ""
        fence.strict = False
        changed = seal.mend()
        if changed:
            tell(note=f"an answer replaced {changed[0]}, which was put back")
        for what in fence.denied:
            tell(note=f"it tried to {what}, and was not let")
        fence.denied.clear()
        if step["kind"] == "check":
            tell(verdict=found, number=number, message=message)
    tell(end=True)


def _verdict(source: str, space: dict, given: dict, each: float) -> tuple[str, str]:
    """Whether a check passes: ("passed" | "failed" | "blank", why)."""
    code = compile(source, "<check>", "exec")
    failure = _timed(each, lambda: exec(code, space))
    if failure is None:
        return "passed", ""
    left = isinstance(failure, NotImplementedError) and BLANK in str(failure)
    if left or any(value is ... for value in given.values()):
        return "blank", ""
    return "failed", _words(failure)


def _timed(seconds: float, action: Callable[[], Any]) -> BaseException | None:
    """What an action raised or returned as its error, TooSlow after so many seconds."""

    def stop(*_: object) -> None:
        raise TooSlow(f"it ran for {seconds:g} s and was stopped")

    signal.signal(signal.SIGALRM, stop)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
            return action()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as error:
        return error


def _error(result: Any) -> BaseException | None:
    """The error of a cell that IPython ran."""
    return result.error_before_exec or result.error_in_exec


def _words(error: BaseException) -> str:
    """An error on one line; the lesson's own words without the name of its class."""
    try:
        text = " ".join(str(error)[:1000].split())
    except BaseException:
        text = ""
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return "it needed more memory than the limit"
    kind = type(error).__name__
    if kind in ("CheckFailed", "TooSlow", "TooLoud") and text:
        return text
    return f"{kind}: {text}" if text else kind


def _shell() -> Any:
    """An IPython that keeps no history and shows no tracebacks."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.cache_size = 0
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=config)
    shell.showtraceback = shell.showsyntaxerror = lambda *args, **kwargs: None
    return shell


def main() -> None:
    """The process's own entry: ``sys.argv[1:]`` are the two files."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = open(sys.argv[2], "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def tell(**what: Any) -> None:
        found.write(json.dumps(what) + "\n")

    limit(spec["timeout"], spec["memory"])
    if spec["cut_off"]:
        open_loopback()
    sys.stdout = sys.stderr = printed = Counter()
    sys.path.append(os.getcwd())  # last, so that a student's json.py hides no library
    fence = Fence([os.getcwd(), *spec["writable"]], spec["cache"])
    sys.addaudithook(fence)
    run(spec["plan"], tell, fence, spec["each"], printed)
    os._exit(0)  # threads that an answer left behind do not hold us
