"""A fair queue: costly work that any peer may ask for, one piece after the other and so many a second.

Peers take turns: of those who wait, whoever was served longest ago goes first, and whoever never was before
all others. So a flood costs what it may and holds up those alone who take part in it: another's first piece
waits for the one that is under way, and each further one for a piece of everybody else.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

from indexer.budget import Budget
from nektar.errors import NektarError

T = TypeVar("T")

# Pieces that wait of one peer, which may be a proxy, and of all: at ten a second for four seconds at most,
# of ten that exporters do.
OF_PEER, IN_ALL = 10, 40
# Peers of which is remembered when they were served; whoever is forgotten is as good as new.
PEERS = 8_192


class Busy(NektarError):
    """So much waits that this has to be asked for again."""


class _Piece(NamedTuple, Generic[T]):
    work: Callable[[], T]
    done: Future[T]


class FairQueue(Generic[T]):
    """The thread that does it, and who waits for it. Shared between threads."""

    def __init__(self, name: str, a_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = 1 / a_second
        self._budget = Budget(a_second, 1.0, clock())
        self._waiting: dict[str, deque[_Piece[T]]] = {}  # by peer, as they came
        self._size = 0
        self._served: OrderedDict[str, int] = OrderedDict()  # peer → number of its last piece
        self._pieces = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, peer: str, work: Callable[[], T]) -> Future[T]:
        """What `work` returns or raises, once it is done; cancelled before, it is not. Raises Busy, here or
        when another comes in its place."""
        piece = _Piece(work, Future[T]())
        with self._changed:
            if len(self._waiting.get(peer, ())) >= OF_PEER:
                raise Busy("too much from this address waits")
            if self._size >= IN_ALL:
                self._make_room(peer)
            self._waiting.setdefault(peer, deque()).append(piece)
            self._size += 1
            self._changed.notify()
        return piece.done

    def close(self) -> None:
        """Do no more; what waits is cancelled."""
        with self._changed:
            self._closing = True
            for pieces in self._waiting.values():
                for piece in pieces:
                    piece.done.cancel()
            self._changed.notify()
        self._thread.join()

    def _last(self, peer: str) -> int:
        return self._served.get(peer, 0)

    def _share(self, peer: str, more: int = 0) -> tuple[int, int]:
        """What a peer has had, and has waiting, or would have; the more, the sooner it gives way."""
        return self._last(peer), len(self._waiting.get(peer, ())) + more

    def _make_room(self, peer: str) -> None:
        """Have the newest piece of whoever has most give way to one who would have less. Raises Busy."""
        other = max(self._waiting, key=self._share)
        if self._share(other) <= self._share(peer, more=1):
            raise Busy("too much waits")
        self._pop(other, newest=True).done.set_exception(Busy("too much waits"))

    def _pop(self, peer: str, *, newest: bool = False) -> _Piece[T]:
        pieces = self._waiting[peer]
        piece = pieces.pop() if newest else pieces.popleft()
        self._size -= 1
        if not pieces:
            del self._waiting[peer]
        return piece

    def _run(self) -> None:
        while piece := self._next():
            if not piece.done.set_running_or_notify_cancel():
                continue
            try:
                piece.done.set_result(piece.work())
            except BaseException as error:  # it is whoever's who waits for it
                piece.done.set_exception(error)

    def _next(self) -> _Piece[T] | None:
        """The next piece, when there is one and its time has come; None at the end."""
        with self._changed:
            while not self._closing:
                if not self._waiting:
                    self._changed.wait()
                elif not self._budget.take(self._clock()):
                    self._changed.wait(self._pause)
                else:
                    peer = min(self._waiting, key=self._last)
                    self._pieces += 1
                    self._served[peer] = self._pieces
                    self._served.move_to_end(peer)
                    while len(self._served) > PEERS:
                        self._served.popitem(last=False)
                    return self._pop(peer)
        return None
