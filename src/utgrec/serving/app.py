"""The HTTP application: routes, who may use them, and what they answer. See docs/serving.md."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

import utgrec
from utgrec.errors import BadImage, FieldError
from utgrec.serving import schemas
from utgrec.serving.access import allow
from utgrec.serving.addresses import register_ids
from utgrec.serving.coder import Coder
from utgrec.serving.documents import (
    answer_document,
    find_item,
    generation_list,
    plain,
    published,
    read_codes,
    short,
)
from utgrec.serving.explorer.page import page_routes
from utgrec.serving.explorer.routes import explorer_routes
from utgrec.serving.generations import GenerationStore
from utgrec.serving.guards import Guard
from utgrec.serving.keys import Key
from utgrec.serving.likeness import look_up, similar_items
from utgrec.serving.metrics import Metrics
from utgrec.serving.pictures import keep_picture
from utgrec.serving.problem_schema import DescribedApp, problem_answers
from utgrec.serving.problems import Refused, handle_problems
from utgrec.serving.service import Service, ServiceConfig
from utgrec.serving.user_routes import user_routes
from utgrec.serving.users.events import UserStore

PICTURE_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
}


def create_app(
    store: GenerationStore,
    config: ServiceConfig | None = None,
    *,
    keys: tuple[Key, ...] | None = None,
    coder: Coder | None = None,
    users: UserStore | None = None,
    together: Path | None = None,
) -> FastAPI:
    """The application of one run. Without `keys` it answers requests to localhost only.

    Without `users` it keeps no histories. `together` is a folder of several processes that serve
    one port; it holds folders peers, weights and figures.

    Raises:
        MissingStage, CorruptFile, SettingsMismatch: the run cannot be used.
    """
    register_ids()
    metrics = Metrics()
    config = config or ServiceConfig()
    service = Service(
        store,
        config,
        coder,
        users=users,
        together=together,
        on_batch=metrics.on_batch,
        on_look=metrics.on_look,
        on_refused_generation=metrics.refused.inc,
    )

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = DescribedApp(
        title="UTGRec",
        version=utgrec.__version__,
        description="Recommendations out of a catalogue that changes while it serves.",
        lifespan=life,
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        responses=problem_answers(),
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    handle_problems(app)
    app.add_middleware(Guard, config=config, metrics=metrics, only_local_names=keys is None)
    _add_health(app, service, metrics, keys)
    _add_reading(app, service, keys)
    _add_changing(app, service, keys)
    app.include_router(user_routes(service, keys))
    app.include_router(explorer_routes(service, keys))
    app.include_router(page_routes(store, keys))
    return app


def _add_health(
    app: FastAPI, service: Service, metrics: Metrics, keys: tuple[Key, ...] | None
) -> None:
    @app.get("/healthz", summary="Whether the process is alive.")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(
        "/readyz",
        summary="Whether it answers requests.",
        responses={
            503: {"description": "It is about to stop.", "content": {"application/json": {}}}
        },
    )
    async def readyz(response: Response) -> dict[str, Any]:
        response.status_code = 503 if service.draining else 200
        status = "draining" if service.draining else "ready"
        return {"status": status, "generation": service.shelf.number}

    @app.get(
        "/metrics",
        summary="Figures for Prometheus.",
        response_class=PlainTextResponse,
        dependencies=[allow(keys, "read")],
    )
    async def metrics_of_all() -> Response:
        service.look()
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")


def _add_reading(app: FastAPI, service: Service, keys: tuple[Key, ...] | None) -> None:
    read = [allow(keys, "read")]

    @app.post("/v1/recommend", response_model=schemas.RecommendOut, dependencies=read)
    async def recommend(body: schemas.RecommendIn) -> Response:
        """The next items after one history or several."""
        answers = await service.recommend(body.requests())
        document = {
            "generation": answers[0].shelf.number,
            "answers": [answer_document(answer) for answer in answers],
        }
        return JSONResponse(document)

    @app.post("/v1/tokenize", response_model=schemas.CodesOut, dependencies=read)
    async def tokenize(body: schemas.TextIn) -> Response:
        """The nearest codes of words and picture; nothing is kept."""

        def encode() -> list[int]:
            coder = service.editor.coder
            with tempfile.TemporaryDirectory() as name, torch.no_grad():
                folder, picture = Path(name), None
                if body.image is not None:
                    picture = folder / keep_picture(body.image, folder, service.config.max_pixels)
                states = coder.states([body.text], [picture])
                return [int(code) for code in coder.quantizer.nearest(states)[0]]

        return JSONResponse({"codes": await service.change(encode)})

    @app.get("/v1/items/{item_id:id}", response_model=schemas.ItemOut, dependencies=read)
    async def get_item(item_id: schemas.ItemInPath) -> Response:
        """An item, also one that was removed."""
        shelf, place = find_item(service, item_id)
        found = shelf.catalog[place]
        return JSONResponse(
            {
                **short(shelf, place),
                "text": found.text,
                "codes": shelf.codes[place].tolist(),
                "live": bool(shelf.live[place]),
                "since": int(shelf.generation.rows.since[place]),
                "attributes": {name: plain(value) for name, value in found.attributes.items()},
            }
        )

    @app.get("/v1/similar/{item_id:id}", response_model=schemas.SimilarsOut, dependencies=read)
    def similar_to(
        item_id: schemas.ItemInPath, k: Annotated[int, Query(ge=1, le=schemas.MAX_K)] = 10
    ) -> Response:
        """Items whose codes begin like those of an item, nearest first."""
        shelf, place = find_item(service, item_id)
        found = similar_items(shelf, place, k, service.editor.coder.quantizer)
        items = [
            {**short(shelf, one.item), "shared_codes": one.shared, "distance": one.distance}
            for one in found
        ]
        return JSONResponse({"generation": shelf.number, "items": items})

    @app.get(
        "/v1/images/{item_id:id}",
        response_class=FileResponse,
        responses={200: {"content": {kind: {} for kind in PICTURE_TYPES.values()}}},
        dependencies=read,
    )
    async def get_picture(item_id: schemas.ItemInPath, request: Request) -> Response:
        """The picture of an item. Whoever has it already is told so (its ETag)."""
        shelf, place = find_item(service, item_id)
        path = shelf.catalog[place].image
        kind = None if path is None else PICTURE_TYPES.get(path.suffix.lower())
        if path is None or kind is None or not path.is_file():
            raise HTTPException(404, "this item has no picture")
        # An item may get another picture: whoever keeps one asks each time whether it still is it.
        found = FileResponse(
            path,
            media_type=kind,
            headers={"cache-control": "private, no-cache"},
            stat_result=path.stat(),
        )
        if request.headers.get("if-none-match") == found.headers["etag"]:
            kept = {name: found.headers[name] for name in ("etag", "cache-control")}
            return Response(status_code=304, headers=kept)
        return found

    @app.get("/v1/codes", response_model=schemas.PlaceOut, dependencies=read)
    async def codes(examples: schemas.Examples = 10) -> Response:
        """The first codes."""
        return below([], examples)

    @app.get("/v1/codes/{codes:path}", response_model=schemas.PlaceOut, dependencies=read)
    async def codes_below(codes: schemas.CodesInPath, examples: schemas.Examples = 10) -> Response:
        """A place in the tree of codes, such as /v1/codes/12/300: what is below it."""
        return below(read_codes(codes), examples)

    def below(prefix: list[int], examples: int) -> Response:
        shelf = service.shelf
        place = look_up(shelf, prefix, examples)
        return JSONResponse(
            {
                "generation": shelf.number,
                "codes": prefix,
                "items": place.items,
                "branches": [branch._asdict() for branch in place.branches],
                "examples": [short(shelf, item) for item in place.examples],
            }
        )

    @app.get("/v1/generations", response_model=schemas.GenerationsOut, dependencies=read)
    async def list_generations() -> Response:
        """All published versions of the catalogue."""
        return JSONResponse(generation_list(service))


def _find_live(service: Service, item_id: str) -> None:
    """Answer 404 unless an item can be recommended."""
    shelf, place = find_item(service, item_id)
    if not shelf.live[place]:
        raise Refused(
            404,
            "this item was removed; add it again to have it back",
            FieldError.of("path.item_id", item_id, "was not removed"),
        )


def _add_changing(app: FastAPI, service: Service, keys: tuple[Key, ...] | None) -> None:
    write = [allow(keys, "write")]

    @app.post("/v1/items", response_model=schemas.PublishedOut, dependencies=write)
    async def add_items(body: schemas.ItemsIn) -> Response:
        """Publish new items, or change items that are there. They are live with the answer."""
        items = [item.fields() for item in body.items]
        pictures = {item.item_id: item.image for item in body.items if item.image is not None}
        change = service.editor.replace if body.replace else service.editor.add
        made = await service.change(lambda: change(items, pictures, activate=body.activate))
        return JSONResponse(published(made))

    @app.put(
        "/v1/images/{item_id:id}",
        response_model=schemas.PublishedOut,
        openapi_extra={
            "requestBody": {
                "description": "A JPEG, PNG, WebP, GIF or BMP; its content decides which.",
                "required": True,
                "content": {"application/octet-stream": {}, "image/*": {}},
            }
        },
        dependencies=write,
    )
    async def put_picture(item_id: schemas.ItemInPath, request: Request) -> Response:
        """Give an item another picture. Its codes stay."""
        _find_live(service, item_id)
        data, one = await request.body(), {"item_id": item_id}
        try:
            made = await service.change(lambda: service.editor.replace([one], {item_id: data}))
        except BadImage as error:  # the body is nothing but the picture
            raise error.about(one._replace(field="") for one in error.fields) from None
        return JSONResponse(published(made))

    @app.delete("/v1/items/{item_id:id}", response_model=schemas.PublishedOut, dependencies=write)
    async def remove_item(item_id: schemas.ItemInPath) -> Response:
        """Stop recommending an item. Histories with it stay readable."""
        _find_live(service, item_id)
        made = await service.change(lambda: service.editor.remove([item_id]))
        return JSONResponse(published(made))

    @app.post("/v1/generations", response_model=schemas.GenerationsOut, dependencies=write)
    async def activate_generation(body: schemas.ActivateIn) -> Response:
        """Serve another generation, or the parent of the current one."""

        def do() -> None:
            if body.activate is None:
                service.store.rollback()
            elif body.activate in service.store.numbers:
                service.store.activate(body.activate)
            else:
                known = ", ".join(map(str, service.store.numbers[-10:]))
                raise Refused(
                    404,
                    f"there is no generation {body.activate}; the newest ones are {known}",
                    FieldError.of("body.activate", body.activate, "is a generation"),
                )

        await service.change(do)
        return JSONResponse(generation_list(service))
