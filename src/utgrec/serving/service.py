"""What a server does, without HTTP: answers requests in batches, changes the catalogue in between.

Two threads work beside the event loop: one searches, one changes the catalogue and makes new
generations ready, so a change never holds up the answers.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from utgrec.config import require
from utgrec.errors import Overloaded, UTGRecError
from utgrec.serving.batching import Batcher, BatchingConfig
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.coder import Coder, RunCoder
from utgrec.serving.engine import Answer, Engine, Request, Shelf
from utgrec.serving.generations import GenerationStore
from utgrec.serving.peers import Peers
from utgrec.serving.pictures import MAX_PIXELS
from utgrec.serving.pruning import prune
from utgrec.serving.users.events import UserStore

log = logging.getLogger(__name__)
T = TypeVar("T")
MOST_CHANGES_WAITING = 8
MOST_LOOK_UPS_WAITING = 256
USER_THREADS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """Limits and times of a server."""

    batching: BatchingConfig = dataclasses.field(default_factory=BatchingConfig)
    """How requests are gathered."""
    max_body_bytes: int = 16 * 2**20
    """Largest body of a request (bytes)."""
    body_timeout_s: float = 30.0
    """Longest time in which a body arrives (s)."""
    max_pixels: int = MAX_PIXELS
    """Most pixels of a picture, width × height."""
    look_every_s: float = 1.0
    """Time between two looks whether somebody else changed the catalogue (s)."""
    keep_generations: int = 50
    """Newest generations that stay; once there are twice as many, the older ones are removed."""
    backbone: str | None = None
    """Hub name or folder of the tokenizer's base model; None for where it was in training."""

    def __post_init__(self) -> None:
        require(self.max_body_bytes >= 1, f"max_body_bytes is above 0, got {self.max_body_bytes}")
        require(
            self.keep_generations >= 1,
            f"keep_generations is at least 1, got {self.keep_generations}",
        )
        require(self.max_pixels >= 1, f"max_pixels is at least 1, got {self.max_pixels}")
        require(
            min(self.body_timeout_s, self.look_every_s) > 0,
            f"times must be above 0 seconds, got {self.body_timeout_s} and {self.look_every_s}",
        )


class Service:
    """One run's recommender, its catalogue, and everybody who waits for them."""

    def __init__(
        self,
        store: GenerationStore,
        config: ServiceConfig,
        coder: Coder | None = None,
        *,
        users: UserStore | None = None,
        together: Path | None = None,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
        on_refused_generation: Callable[[], None] = lambda: None,
        on_look: Callable[[int, int, int], None] = lambda waiting, generation, live: None,
    ) -> None:
        """Open the run; `coder` is its own tokenizer by default.

        Without `users` no histories are kept.

        Raises:
            MissingStage, CorruptFile, SettingsMismatch: the run cannot be used.
        """
        self.config = config
        self.store = store
        weights = None if together is None else together / "weights"
        self.engine = Engine(store, weights)
        self._peers = None if together is None else Peers(together / "peers")
        coder = coder or RunCoder(store.run.tokenizer, weights, config.backbone)
        self.editor = CatalogEditor(store, coder, max_pixels=config.max_pixels)
        self.batcher = Batcher[Request, Answer | Exception](
            self.engine.recommend, config.batching, on_batch
        )
        self.users = users
        self.draining = False
        self._on_refused, self._on_look = on_refused_generation, on_look
        self._changes = ThreadPoolExecutor(1, thread_name_prefix="changes")
        self._changing = 0
        self._looks = ThreadPoolExecutor(USER_THREADS, thread_name_prefix="users")
        self._looking = 0
        self._watcher: asyncio.Task[None] | None = None

    @property
    def shelf(self) -> Shelf:
        """The generation that serves."""
        return self.engine.shelf

    def start(self) -> None:
        """Begin to answer; call it inside the event loop."""
        self.look()
        self._announce()
        self.batcher.start()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def look(self) -> None:
        """Tell whoever counts how things are."""
        shelf = self.shelf
        self._on_look(self.batcher.waiting, shelf.number, shelf.live_count)

    async def stop(self) -> None:
        """Finish what was accepted, then end."""
        self.draining = True
        if self._peers is not None:
            self._peers.leave()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.batcher.drain()
        await asyncio.to_thread(self._changes.shutdown)
        await asyncio.to_thread(self._looks.shutdown)
        if self.users is not None:
            self.users.close()

    async def recommend(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests out of one generation.

        Raises:
            UnknownItem, InputError: a request that cannot be answered; none is then.
            Overloaded: too many are waiting.
        """
        replies = await self.batcher.ask(requests)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return [reply for reply in replies if not isinstance(reply, Exception)]

    async def change(self, work: Callable[[], T]) -> T:
        """Do something to the catalogue, or with the tokenizer, and serve what came of it.

        With several processes on one port it is done when all of them serve it.

        Raises:
            Overloaded: too many changes are waiting.
        """

        def do() -> T:
            done = work()
            if self._refresh() and self._peers is not None:
                self._peers.wait(lambda: self.store.current)
            return done

        if self._changing >= MOST_CHANGES_WAITING or self.draining:
            raise Overloaded(
                f"{self._changing} changes of the catalogue are waiting, at most "
                f"{MOST_CHANGES_WAITING} may; try again later, or send more items at once",
                5,
            )
        self._changing += 1
        try:
            # A caller who leaves does not undo what was begun.
            return await asyncio.shield(
                asyncio.get_running_loop().run_in_executor(self._changes, do)
            )
        finally:
            self._changing -= 1

    async def look_up(self, work: Callable[[], T]) -> T:
        """Do something with the histories of users, beside the event loop.

        Raises:
            Overloaded: too many are waiting.
        """
        if self._looking >= MOST_LOOK_UPS_WAITING or self.draining:
            raise Overloaded(f"{self._looking} look-ups of users are waiting; try again later", 1)
        self._looking += 1
        try:
            # A caller who leaves does not undo what was begun.
            return await asyncio.shield(
                asyncio.get_running_loop().run_in_executor(self._looks, work)
            )
        finally:
            self._looking -= 1

    def _refresh(self) -> bool:
        changed = self.engine.refresh()
        if changed and not self.draining:
            self._announce()
        return changed

    def _tidy(self) -> None:
        """Every change leaves a whole catalogue on the disk: do not fill it."""
        if len(self.store.numbers) >= 2 * self.config.keep_generations:
            done = prune(self.store, self.config.keep_generations)
            log.info("%d old generations removed", len(done.generations))

    def _announce(self) -> None:
        if self._peers is not None:
            self._peers.announce(self.shelf.number)

    async def _watch(self) -> None:
        """Serve what other processes publish, such as `utgrec catalog add`."""
        tried = None
        while True:
            await asyncio.sleep(self.config.look_every_s)
            self.look()
            try:
                mark = self.store.mark
                if mark != tried:
                    tried = mark
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self._changes, self._refresh)
                    await loop.run_in_executor(self._changes, self._tidy)
            except (UTGRecError, OSError) as error:
                self._on_refused()
                log.error("generation %d goes on serving: %s", self.shelf.number, error)
            except Exception:  # whatever it is, the next change must be seen
                self._on_refused()
                log.exception("generation %d goes on serving", self.shelf.number)
