"""What goes over the wire: requests and answers of the server, with their limits and examples."""

import base64
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict

from utgrec.serving.engine import Request
from utgrec.serving.filters import Condition, Filters

MAX_K = 200
MAX_BEAM = 1000
MAX_HISTORIES = 64
MAX_HISTORY = 1000
MAX_LISTED = 10_000  # ids in an allow or deny list
MAX_VALUES = 100  # values of one condition, and conditions of one request
MAX_NEW_ITEMS = 1000

ItemId = Annotated[str, Field(min_length=1, max_length=1000)]
ItemInPath = Annotated[str, Path(examples=["B08R5B7YS4"])]
CodesInPath = Annotated[str, Path(examples=["12/300"])]
Examples = Annotated[int, Query(ge=0, le=MAX_K)]
History = Annotated[list[ItemId], Field(max_length=MAX_HISTORY)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Scalar = StrictStr | StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("the bytes of a picture are a text in base64")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ValueError(f"this is not base64 ({error})") from error


Picture = Annotated[
    bytes,
    BeforeValidator(_decoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]


class Strict(BaseModel):
    """A body in which an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class BoundsIn(Strict):
    """Numbers between two bounds, both included; either may be left out."""

    min: Number | None = None
    max: Number | None = None

    def condition(self, field: str) -> Condition:
        """As the engine takes it; `field` is where the request has it."""
        return Condition(at_least=self.min, at_most=self.max, field=field)


Values = Annotated[list[Scalar], Field(min_length=1, max_length=MAX_VALUES)]


class FiltersIn(Strict):
    """Which items may be recommended; everything named must hold."""

    category: Annotated[list[str], Field(min_length=1, max_length=MAX_VALUES)] | None = Field(
        default=None, description="One of these is among the item's categories."
    )
    price: BoundsIn | None = None
    where: dict[str, Scalar | Values | BoundsIn] = Field(
        default_factory=dict,
        max_length=MAX_VALUES,
        description="Column → its value, or a list of values, or bounds.",
    )
    allow: Annotated[list[ItemId], Field(max_length=MAX_LISTED)] | None = Field(
        default=None, description="The only items to choose from."
    )
    deny: Annotated[list[ItemId], Field(max_length=MAX_LISTED)] = Field(
        default_factory=list, description="Items to leave out."
    )

    def filters(self) -> Filters:
        """As the engine takes it."""
        where: list[tuple[str, Condition]] = []
        if self.category is not None:
            field = "filters.category"
            where.append(("category", Condition(any_of=tuple(self.category), field=field)))
        if self.price is not None:
            where.append(("price", self.price.condition("filters.price")))
        for name, value in self.where.items():
            field = f"filters.where.{name}"
            if isinstance(value, BoundsIn):
                where.append((name, value.condition(field)))
            else:
                values = value if isinstance(value, list) else [value]
                where.append((name, Condition(any_of=tuple(values), field=field)))
        allow = None if self.allow is None else tuple(self.allow)
        return Filters(where=tuple(where), allow=allow, deny=tuple(self.deny))


class RecommendIn(Strict):
    """One history or several, and what to recommend after them."""

    history: History | None = Field(default=None, description="Ids of items, oldest first.")
    histories: Annotated[list[History], Field(min_length=1, max_length=MAX_HISTORIES)] | None = (
        Field(default=None, description="Several histories, answered in their order.")
    )
    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    beam: Annotated[int, Field(ge=1, le=MAX_BEAM)] | None = Field(
        default=None,
        description="Beams kept while decoding; wider finds more. The run's own if left out.",
    )
    filters: FiltersIn = Field(default_factory=FiltersIn)
    exclude_seen: bool = Field(default=True, description="Leave items of the history out.")
    unknown: Literal["error", "skip"] = Field(
        default="error", description="What to do about ids that the catalogue has never had."
    )
    attention: bool = Field(
        default=False,
        description="Also name items of the history that the recommender attended to.",
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "history": ["B08R5B7YS4", "B0863MT183"],
                    "k": 5,
                    "filters": {"category": ["kitchen"], "price": {"max": 30}},
                }
            ]
        },
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "RecommendIn":
        if (self.history is None) == (self.histories is None):
            raise ValueError("give either history or histories")
        return self

    def requests(self) -> list[Request]:
        """As the engine takes them."""
        several = {f"histories.{place}": one for place, one in enumerate(self.histories or [])}
        histories = several if self.history is None else {"history": self.history}
        filters = self.filters.filters()
        return [
            Request(
                history=tuple(history),
                k=self.k,
                beam=self.beam,
                filters=filters,
                exclude_seen=self.exclude_seen,
                unknown=self.unknown,
                attention=self.attention,
                field=field,
            )
            for field, history in histories.items()
        ]


class WhyOut(BaseModel):
    """An item of the history that a recommended one is there for."""

    item_id: str
    title: str
    shared_codes: int = Field(description="Codes that both begin with.")
    attention: float | None = Field(
        description="Its share of the recommender's attention to the history; null if not asked."
    )


class HitOut(BaseModel):
    """One recommended item."""

    item_id: str
    title: str
    score: float = Field(
        description="Log-probability of the item, mixed of the recommender's voices. Some of them "
        "share their probability among the items that the request allows, so filters and "
        "exclude_seen change it: compare scores within one answer only."
    )
    codes: list[int]
    image: str | None = Field(description="Where the picture is, on this server.")
    why: list[WhyOut] = Field(description="Items of the history that are alike or attended to.")


class AnswerOut(BaseModel):
    """What one history gets, best first."""

    items: list[HitOut]
    unknown: list[str] = Field(description="Ids that were skipped.")


_WHY: JsonDict = {
    "item_id": "B0863MT183",
    "title": "Cup number 18",
    "shared_codes": 2,
    "attention": 0.4,
}
_HIT: JsonDict = {
    "item_id": "B0863MT199",
    "title": "Cup number 19",
    "image": "/v1/images/B0863MT199",
}
_ANSWER: JsonDict = {
    "items": [{**_HIT, "score": -3.1, "codes": [4, 2, 7], "why": [_WHY]}],
    "unknown": [],
}


class RecommendOut(BaseModel):
    """An answer per history, all out of one generation of the catalogue."""

    generation: int
    answers: list[AnswerOut]

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"generation": 1, "answers": [_ANSWER]}]}
    )


class NewItemIn(BaseModel):
    """One item: its id, any field that the shop's own table of items has, and a picture."""

    item_id: ItemId
    image: Picture | None = Field(
        default=None, description="The bytes of a JPEG, PNG, WebP, GIF or BMP, in base64."
    )

    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)
    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"item_id": "A1", "title": "Blue cup", "brand": "Ostara", "price": 12.5}]
        },
    )

    def fields(self) -> dict[str, Any]:
        """The item without its picture."""
        return {"item_id": self.item_id, **(self.__pydantic_extra__ or {})}


class ItemsIn(Strict):
    """Items to publish."""

    items: Annotated[list[NewItemIn], Field(min_length=1, max_length=MAX_NEW_ITEMS)]
    replace: bool = Field(
        default=False, description="Change items that are there, instead of adding new ones."
    )
    activate: bool = Field(default=True, description="Serve the new generation at once.")


class PublishedOut(BaseModel):
    """What a change came to."""

    generation: int
    active: bool
    changes: dict[str, list[str]]
    codes: dict[str, list[int]]
    drift: dict[str, Any] = Field(description="Whether assigning all codes anew would pay.")


class TextIn(Strict):
    """Words and picture of something that need not be in the catalogue."""

    text: Annotated[str, Field(max_length=20_000)] = ""
    image: Picture | None = None

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "Blue cup. Ostara."}]}
    )

    @model_validator(mode="after")
    def _something(self) -> "TextIn":
        if not self.text.strip() and self.image is None:
            raise ValueError("give text, an image, or both")
        return self


class CodesOut(BaseModel):
    """The nearest codes; items of the catalogue may have them already."""

    codes: list[int]


class ItemOut(BaseModel):
    """One item of the catalogue."""

    item_id: str
    title: str
    text: str
    codes: list[int]
    live: bool = Field(description="Whether it can be recommended.")
    since: int = Field(description="The generation that first had it.")
    image: str | None
    attributes: dict[str, Any]


class SimilarOut(BaseModel):
    """An item that is like another one."""

    item_id: str
    title: str
    shared_codes: int
    distance: float
    image: str | None


class SimilarsOut(BaseModel):
    """Items that are like another one, nearest first."""

    generation: int
    items: list[SimilarOut]


class BranchOut(BaseModel):
    """One child of a place in the tree."""

    code: int
    items: int


class ShortOut(BaseModel):
    """An item by its name."""

    item_id: str
    title: str
    image: str | None


class PlaceOut(BaseModel):
    """A place in the tree of codes."""

    generation: int
    codes: list[int]
    items: int
    branches: list[BranchOut]
    examples: list[ShortOut]


class GenerationOut(BaseModel):
    """One published version of the catalogue."""

    number: int
    active: bool
    parent: int | None
    live: int
    changes: dict[str, int]
    written: float = Field(description="Seconds since 1970.")
    problem: str | None


class GenerationsOut(BaseModel):
    """All versions, oldest first, and the one that serves here."""

    serving: int
    generations: list[GenerationOut]


class ActivateIn(Strict):
    """Another generation to serve: by its number, or the parent of the current one."""

    activate: Annotated[int, Field(ge=1, le=999_999_999)] | None = None
    rollback: bool = False

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"activate": 3}]})

    @model_validator(mode="after")
    def _one_of_both(self) -> "ActivateIn":
        if (self.activate is None) != self.rollback:
            raise ValueError('give either {"activate": NUMBER} or {"rollback": true}')
        return self
