"""The routes that the explorer page reads: overview, search, tree, facets, generations.

They are answered in threads beside the event loop. What is made of a generation for them is made
when it is first asked for, and again after the catalogue has changed.
"""

import threading
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

import utgrec
from utgrec import storage
from utgrec.errors import StorageError
from utgrec.serving.access import allow
from utgrec.serving.documents import listed, read_codes, short
from utgrec.serving.engine import Shelf
from utgrec.serving.explorer import schemas
from utgrec.serving.explorer.facets import describe_facets
from utgrec.serving.explorer.hues import code_hues
from utgrec.serving.explorer.search import SearchIndex
from utgrec.serving.explorer.tree import Atlas
from utgrec.serving.generations import GenerationStore, Listed
from utgrec.serving.keys import Key, find_key
from utgrec.serving.schemas import MAX_K, CodesInPath
from utgrec.serving.service import Service

MOST_FOUND = 100  # items of one page of a search
DEEPEST = 10_000  # items into a search that pages go
CHANGES_SHOWN = 12  # items of each kind of change


class Made:
    """What one generation became for the explorer; each part when it is first needed."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.atlas = Atlas(shelf)
        self._search: SearchIndex | None = None
        self._facets: list[dict[str, Any]] | None = None
        self._lock = threading.Lock()

    @property
    def search(self) -> SearchIndex:
        """Its words."""
        with self._lock:
            if self._search is None:
                self._search = SearchIndex(self.shelf.catalog, self.shelf.live)
            return self._search

    @property
    def facets(self) -> list[dict[str, Any]]:
        """Its columns."""
        with self._lock:
            if self._facets is None:
                found = describe_facets(self.shelf.catalog, self.shelf.live)
                self._facets = [
                    {
                        **facet._asdict(),
                        "values": [{"value": v, "items": n} for v, n in facet.values],
                    }
                    for facet in found
                ]
            return self._facets


class Explorer:
    """What the explorer knows about a service."""

    def __init__(self, service: Service, keys: tuple[Key, ...] | None) -> None:
        self._service = service
        self._keys = keys
        self._made: Made | None = None
        self._hues: list[list[int]] | None = None
        self._lock = threading.Lock()

    @property
    def store(self) -> GenerationStore:
        """All generations."""
        return self._service.store

    @property
    def made(self) -> Made:
        """Of the generation that serves now."""
        shelf = self._service.shelf
        with self._lock:
            if self._made is None or self._made.shelf is not shelf:
                self._made = Made(shelf)
                # Its words take longest: whoever types will not have to wait for all of it.
                made = self._made
                threading.Thread(target=lambda: made.search, daemon=True).start()
            return self._made

    @property
    def hues(self) -> list[list[int]]:
        """A colour for every code; codebooks never change."""
        with self._lock:
            if self._hues is None:
                sizes = self._service.shelf.generation.sizes
                self._hues = code_hues(self._service.editor.coder, sizes)
            return self._hues

    def may_change(self, request: Request) -> bool:
        """Whether a caller has a key for that."""
        if self._keys is None:
            return True
        word = request.headers.get("authorization", "").partition(" ")[2]
        found = find_key(self._keys, word)
        return found is not None and found.role == "write"


def explorer_routes(service: Service, keys: tuple[Key, ...] | None) -> APIRouter:
    """All of them; callers need the role read."""
    routes = APIRouter(dependencies=[allow(keys, "read")])
    explorer = Explorer(service, keys)

    @routes.get("/v1/overview", response_model=schemas.OverviewOut)
    def overview(request: Request) -> Response:
        """What is served here."""
        shelf = explorer.made.shelf
        live = int(shelf.live.sum())
        return JSONResponse(
            {
                "domain": explorer.store.domain,
                "generation": shelf.number,
                "items": live,
                "removed": len(shelf.live) - live,
                "pictured": int((shelf.pictured & shelf.live).sum()),
                "sizes": list(shelf.generation.sizes),
                "hues": explorer.hues,
                "filters": bool(shelf.index.columns),
                "report": explorer.store.run.report.is_file(),
                "users": service.users is not None,
                "may_change": explorer.may_change(request),
                "version": utgrec.__version__,
            }
        )

    @routes.get("/v1/items", response_model=schemas.FoundOut)
    def search(
        query: Annotated[str, Query(min_length=1, max_length=200, examples=["blue cup"])],
        k: Annotated[int, Query(ge=1, le=MOST_FOUND)] = 24,
        offset: Annotated[int, Query(ge=0, le=DEEPEST)] = 0,
    ) -> Response:
        """Items whose title, id, brand or categories have words that begin like these."""
        made = explorer.made
        found = made.search.find(query, k, offset)
        return JSONResponse(
            {
                "generation": made.shelf.number,
                "total": found.total,
                "items": cards(made.shelf, found.items),
            }
        )

    @routes.get("/v1/cards", response_model=schemas.CardsOut)
    def cards_of(
        item_id: Annotated[list[str], Query(min_length=1, max_length=MAX_K, examples=[["A12"]])],
    ) -> Response:
        """Several items at once, as lists show them."""
        shelf = service.shelf
        known = shelf.index.find(item_id)
        return JSONResponse(
            {
                "generation": shelf.number,
                "items": cards(shelf, known.places.tolist()),
                "unknown": known.unknown,
            }
        )

    @routes.get("/v1/tree", response_model=schemas.TreeOut)
    def tree() -> Response:
        """The first codes, as something to look at."""
        return below([])

    @routes.get("/v1/tree/{codes:path}", response_model=schemas.TreeOut)
    def tree_below(codes: CodesInPath) -> Response:
        """A place in the tree of codes, such as /v1/tree/12/300, as something to look at."""
        return below(read_codes(codes))

    def below(prefix: list[int]) -> Response:
        made = explorer.made
        place = made.atlas.spread(prefix)
        return JSONResponse(
            {
                **place._asdict(),
                "generation": made.shelf.number,
                "codes": prefix,
                "trail": [step._asdict() for step in place.trail],
                "branches": [
                    {**branch._asdict(), "covers": cards(made.shelf, branch.covers)}
                    for branch in place.branches
                ],
                "covers": cards(made.shelf, place.covers),
            }
        )

    @routes.get("/v1/facets", response_model=schemas.FacetsOut)
    def facets() -> Response:
        """What items can be filtered by."""
        made = explorer.made
        return JSONResponse({"generation": made.shelf.number, "facets": made.facets})

    @routes.get("/v1/changes", response_model=list[schemas.ChangesOut])
    def changes(
        newest: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Response:
        """The newest generations, each with what it changed and its drift report."""
        listed = explorer.store.listing()[-newest:]
        return JSONResponse([_told(explorer, one) for one in reversed(listed)])

    return routes


def cards(shelf: Shelf, items: list[int]) -> list[dict[str, Any]]:
    """Items as lists show them."""
    table, rows = shelf.catalog.table, pa.array(items, pa.int64())
    prices = table.column("price").take(rows).to_pylist() if "price" in table.column_names else []
    return [
        {
            **short(shelf, item),
            "codes": shelf.codes[item].tolist(),
            "live": bool(shelf.live[item]),
            "price": _number(prices[row]) if prices else None,
        }
        for row, item in enumerate(items)
    ]


def _number(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and abs(value) < 1e15 else None


def _told(explorer: Explorer, one: Listed) -> dict[str, Any]:
    store, shelf = explorer.store, explorer.made.shelf
    changed, drift = {}, {}
    if one.problem is None:
        try:
            drift = store.drift(one.number)
            delta = storage.read_json(store.path(one.number) / "delta.json")
        except StorageError as error:
            one, drift, delta = one._replace(problem=str(error)), {}, {}
        for kind, ids in delta.items():
            known = [item_id for item_id in ids[:CHANGES_SHOWN] if item_id in shelf.catalog]
            places = shelf.catalog.indices_of(known)
            examples = [short(shelf, place) for place in places]
            changed[kind] = {"items": len(ids), "examples": examples}
    return {**listed(one), "changed": changed, "drift": drift}
