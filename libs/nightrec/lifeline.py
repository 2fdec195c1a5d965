"""The line from each training process to the driver: on it a process says that it gets on, or of what it fails.

The kernel closes the line of a process that dies, whatever killed it: so the driver knows at once which one is gone.
Likewise a process whose driver is gone, or has given it up, ends itself. A process that crashes (SIGSEGV and its like)
or is told to end (SIGTERM) writes its last words on the line, from within the signal.

Lines of JSON, nothing that could run, on the address of Horovod's rendezvous. Whoever connects must know the run's
secret, which travels with Spark's closure.
"""

from __future__ import annotations

import faulthandler
import hmac
import json
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from nightrec import errors
from nightrec.errors import NightrecError, TrainingFailed

Address = tuple[str, int]

# Seconds between two signs of a process that gets on.
_BEAT_S = 1.0
# Seconds for the others to notice a failure by Horovod and to tell their own: it took them less than 1. After a death
# fewer: 2 s after it Spark begins to end the others itself, and they must not be taken for dead like the first.
_AFTER_FAILURE_S, _AFTER_DEATH_S = 5.0, 1.5
# Seconds to say where they are, before they are ended.
_ANSWER_S = 3.0
# Seconds in which Spark ends a task that it was told to end: it looks every 2 s, then waits for 2 s.
_END_S = 12.0
_LONGEST_LINE = 2**20


class _Own:
    """How often this process got on since it began."""

    marks = 0


def progress() -> None:
    """Say that this training process got on: by another batch, step or tree. The line tells of it once a second."""
    _Own.marks += 1


@dataclass(frozen=True)
class End:
    """Where the driver listens, and the secret of the run."""

    address: Address
    secret: str


class Line:
    """A training process's end of the line, from its first to its last moment in a job."""

    def __init__(self, end: End, rank: int) -> None:
        self._socket = socket.create_connection(end.address, timeout=60)
        self._socket.settimeout(None)
        _keep_alive(self._socket)
        self._saying = threading.Lock()
        self._main = threading.get_ident()
        self._is_closed = False
        self._say(secret=end.secret, rank=rank, host=socket.gethostname(), pid=os.getpid())
        # Spark may have its own; a second one would take its place.
        self._has_last_words = not faulthandler.is_enabled()
        if self._has_last_words:
            faulthandler.enable(self._socket.fileno(), all_threads=False)
            faulthandler.register(signal.SIGTERM, self._socket.fileno(), all_threads=False, chain=True)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def failed(self, error: Exception, of_another: bool) -> None:
        """Tell of what this process fails; `of_another`: only because another has gone."""
        kind = type(error).__name__ if isinstance(error, NightrecError) else ""
        told = (str(error) if kind else "".join(traceback.format_exception_only(error)).strip())[:10_000]
        with suppress(OSError):
            self._say(failed=[told, kind, traceback.format_exc()[-_LONGEST_LINE // 4 :], of_another])

    def close(self) -> None:
        """Part from the driver in order."""
        self._is_closed = True
        if self._has_last_words:
            faulthandler.unregister(signal.SIGTERM)
            faulthandler.disable()
        with suppress(OSError):
            self._say(done=True)
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _say(self, **message: Any) -> None:
        with self._saying:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _listen(self) -> None:
        """Answer the driver and tell it of progress, beside the training, until the line is closed."""
        told = _Own.marks
        with selectors.DefaultSelector() as ready:
            ready.register(self._socket, selectors.EVENT_READ)
            while not self._is_closed:
                try:
                    if ready.select(_BEAT_S):
                        if not self._socket.recv(64):
                            break
                        self._say(where=self._where())
                    elif told != _Own.marks:
                        told = _Own.marks
                        self._say(progress=told)
                except OSError:
                    break
        if not self._is_closed:
            # Nothing else reaches a process whose main thread waits for another in Horovod.
            os.kill(os.getpid(), signal.SIGKILL)

    def _where(self) -> list[str]:
        """The main thread's stack, innermost last."""
        frame = sys._current_frames().get(self._main)
        return traceback.format_stack(frame)[-30:] if frame else []


@dataclass(frozen=True)
class Failure:
    """Why a process gave up: `kind` is the class of a NightrecError, empty for other errors; `of_another`: only because
    another process had gone."""

    told: str
    kind: str
    trace: str
    of_another: bool


@dataclass
class Process:
    """What the driver knows of a training process. `moved`: when it last got on, by the monotonic clock."""

    line: socket.socket
    moved: float
    rank: int = -1
    name: str = ""
    heard: bytes = b""
    failure: Failure | None = None
    last_words: list[str] = field(default_factory=list)
    where: list[str] | None = None
    is_done: bool = False  # it said so
    is_over: bool = False  # that, or its line is closed
    is_dead: bool = False  # closed before it was done, and not by us

    @property
    def waits(self) -> bool:
        """Whether it is in Horovod, where it waits for the others."""
        return bool(self.where) and any(f"{os.sep}horovod{os.sep}" in frame for frame in self.where or ())


class Watch:
    """The driver's end of all lines. Where a process dies or fails, or none gets on for `deadline_s`, it lets the
    others tell what they know, ends what is left, and calls `end`, by which Spark ends what does not end itself."""

    def __init__(self, host: str, processes: int, deadline_s: float | None, end: Callable[[], None]) -> None:
        self._count, self._deadline_s, self._end = processes, deadline_s, end
        self._secret = secrets.token_hex()
        self._server = socket.create_server((host, 0), backlog=processes)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._strangers: list[Process] = []
        self._known: dict[int, Process] = {}
        self._is_late = False  # none got on until the deadline
        self._ask_at: float | None = None  # where they are; by the monotonic clock, as the next one
        self._end_at: float | None = None
        self._has_ended = False  # those that were left
        self._is_stopped = False
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopped = True
        self._thread.join()
        # Whoever is still there ends itself now.
        for process in (*self._strangers, *self._known.values()):
            process.line.close()
        self._selector.close()
        self._server.close()

    def end_for(self, host: str) -> End:
        """What the processes must know, which reach the driver under an address."""
        return End((host, self._server.getsockname()[1]), self._secret)

    def settle(self) -> None:
        """Wait until every process that has joined is over: at once where all is well."""
        until = time.monotonic() + _AFTER_FAILURE_S + _ANSWER_S + _END_S
        while time.monotonic() < until and not self._is_over():
            time.sleep(0.02)

    def error(self) -> NightrecError | None:
        """Why training failed, None where nothing is known against it; `settle` comes before. Of several reasons a
        death, then a process's own error, then one that hangs; a user's mistake keeps its class."""
        dead = [process for process in self._ranks() if process.is_dead]
        if dead:
            return TrainingFailed("; ".join(f"{self._named(process)} {_cause_of_death(process)}" for process in dead))
        failures = [(process, process.failure) for process in self._ranks() if process.failure]
        own = [failure for failure in failures if not failure[1].of_another]
        if not own and (self._is_late or self._has_ended):
            return TrainingFailed(self._hung())
        for process, failure in own or failures:
            kind = getattr(errors, failure.kind, TrainingFailed)
            return kind(failure.told if failure.kind else f"{self._named(process)} failed: {failure.told}")
        return None

    def report(self) -> str:
        """What every process that failed, died or hung told, for the driver's log: traces, each under its number."""
        told = []
        for process in self._ranks():
            if process.failure:
                # A mistake that its sentence explains needs no trace.
                why = process.failure.told if process.failure.kind else process.failure.trace
                told.append((process, "failed", why))
            if process.is_dead:
                told.append((process, _cause_of_death(process), "\n".join(process.last_words)))
            elif process.where and not process.failure:
                told.append((process, "was ended here", "".join(process.where)))
        return "".join(f"{self._named(process)} {how}\n{text.rstrip()}\n" for process, how, text in told)

    def _ranks(self) -> list[Process]:
        return [process for _, process in sorted(self._known.items())]

    def _named(self, process: Process) -> str:
        return f"training process {process.rank} of {self._count} ({process.name})"

    def _hung(self) -> str:
        """Who it was that did not get on: whoever does not answer, else whoever does not wait for another."""
        missing = [
            f"training process {rank} of {self._count} never came"
            for rank in range(self._count)
            if rank not in self._known
        ]
        told = [
            f"{self._named(process)} does not answer: it was stopped, or its machine is gone"
            if process.where is None
            else f"{self._named(process)} hangs: {' '.join(process.where[-1].split())}"
            for process in self._ranks()
            if not process.failure and not process.is_done and not process.waits
        ]
        why = f"no training process had got on for {self._deadline_s:g} s" if self._is_late else "another one lost it"
        who = "; ".join(missing + told) or "all training processes wait for one another"
        return f"{who}; {why}, and all were ended"

    def _is_over(self) -> bool:
        return all(process.is_over for process in self._known.values())

    # What follows runs in the watch's own thread.

    def _watch(self) -> None:
        while not self._is_stopped:
            for key, _ in self._selector.select(0.2):
                if key.fileobj is self._server:
                    self._greet()
                else:
                    self._hear(key.data)
            self._judge(time.monotonic())

    def _greet(self) -> None:
        line, _ = self._server.accept()
        line.settimeout(5)
        _keep_alive(line)
        process = Process(line, time.monotonic())
        self._strangers.append(process)
        self._selector.register(line, selectors.EVENT_READ, process)

    def _hear(self, process: Process) -> None:
        try:
            heard = process.line.recv(2**16)
        except OSError:
            heard = b""
        *lines, process.heard = (process.heard + heard).split(b"\n")
        for line in lines:
            self._take(process, line.decode(errors="replace"))
        is_stranger = process.rank < 0
        if not heard or len(process.heard) > (1024 if is_stranger else _LONGEST_LINE) or (lines and is_stranger):
            self._selector.unregister(process.line)
            if process.heard and not is_stranger:
                process.last_words.append(process.heard.decode(errors="replace"))
            is_ours = self._ask_at is not None and time.monotonic() > self._ask_at
            process.is_dead = not is_stranger and not process.is_over and not is_ours
            process.is_over = True
            if is_stranger:
                self._strangers.remove(process)
                process.line.close()

    def _take(self, process: Process, line: str) -> None:
        """One line of a process: a message, or words of one that crashes."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if process.rank < 0:
            if isinstance(message, dict) and hmac.compare_digest(str(message.get("secret")), self._secret):
                process.rank, process.name = message["rank"], f"pid {message['pid']} on {message['host']}"
                self._strangers.remove(process)
                self._known[process.rank] = process
        elif not isinstance(message, dict):
            process.last_words.append(line)
        elif "failed" in message:
            process.failure = Failure(*message["failed"])
        elif "where" in message:
            process.where = message["where"]
        elif "done" in message:
            process.is_done = process.is_over = True
        else:
            process.moved = time.monotonic()

    def _judge(self, now: float) -> None:
        """Begin to end what is left where something is wrong; go on with it where it has begun."""
        known = self._known.values()
        if self._has_ended or (self._ask_at is not None and self._is_over()):
            return
        if self._ask_at is None:
            moved = max((process.moved for process in known), default=now)
            if any(process.is_dead for process in known):
                self._ask_at = now + _AFTER_DEATH_S
            elif any(process.failure for process in known):
                self._ask_at = now + _AFTER_FAILURE_S
            elif self._deadline_s is not None and now - moved > self._deadline_s:
                self._is_late, self._ask_at = True, now
        elif self._end_at is None:
            if now >= self._ask_at:
                self._end_at = now + _ANSWER_S
                self._to_all(lambda line: line.sendall(b"where\n"))
        elif now >= self._end_at or all(process.where or process.is_over for process in known):
            self._has_ended = True
            self._to_all(lambda line: line.shutdown(socket.SHUT_WR))
            self._end()

    def _to_all(self, act: Callable[[socket.socket], None]) -> None:
        for process in self._known.values():
            if not process.is_over:
                with suppress(OSError):
                    act(process.line)


def _keep_alive(line: socket.socket) -> None:
    """Let the kernels speak while the processes have nothing to say: no firewall then forgets the line, and a machine
    that is gone is noticed after four minutes."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 9)):
        line.setsockopt(socket.IPPROTO_TCP, option, value)


def _cause_of_death(process: Process) -> str:
    """What is known of it. SIGKILL leaves no words."""
    if not process.last_words:
        return "died without a word, as of SIGKILL: somebody killed it, or the system for want of memory"
    first = process.last_words[0]
    return f"died: {first.split('error: ', 1)[1]}" if "error: " in first else "died of SIGTERM: somebody ended it"
