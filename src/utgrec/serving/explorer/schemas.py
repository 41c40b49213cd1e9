"""What the explorer's routes answer."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from utgrec.serving.schemas import GenerationOut, ShortOut


class OverviewOut(BaseModel):
    """What is served here."""

    domain: str
    generation: int
    items: int = Field(description="Items that can be recommended.")
    removed: int
    pictured: int = Field(description="Of the items, those with a picture.")
    sizes: list[int] = Field(description="Entries of the codebook of each position.")
    hues: list[list[int]] = Field(description="Position → code → hue in degrees; alike is alike.")
    filters: bool = Field(description="Whether items have attributes to filter by.")
    report: bool = Field(description="Whether the run folder has a report.")
    users: bool = Field(description="Whether histories of users are kept here.")
    may_change: bool = Field(description="Whether this caller may change the catalogue.")
    version: str


class CardOut(ShortOut):
    """An item as a list shows it."""

    codes: list[int]
    live: bool
    price: float | None


class FoundOut(BaseModel):
    """One page of what a search found."""

    generation: int
    total: int
    items: list[CardOut]


class CardsOut(BaseModel):
    """Some items, in the order in which they were asked for."""

    generation: int
    items: list[CardOut]
    unknown: list[str] = Field(description="Ids that the catalogue has never had.")


class StepOut(BaseModel):
    """One code on the way to a place."""

    code: int
    items: int
    words: list[str]


class TreeBranchOut(BaseModel):
    """One child of a place in the tree."""

    code: int
    items: int
    moved: int = Field(description="Items that did not get their nearest codes.")
    words: list[str] = Field(description="Said of its items more often than of its siblings'.")
    covers: list[CardOut] = Field(description="Its most typical items.")


class TreeOut(BaseModel):
    """A place in the tree of codes, and all branches below it."""

    generation: int
    codes: list[int]
    items: int
    moved: int
    trail: list[StepOut]
    branches: list[TreeBranchOut]
    reserved: list[int] = Field(description="Codes that only removed items have.")
    unused: list[int] = Field(description="Codes that no item has ever had.")
    covers: list[CardOut]


class ValueOut(BaseModel):
    """One value of a column."""

    value: str | bool
    items: int


class FacetOut(BaseModel):
    """A column that filters may name."""

    name: str
    kind: Literal["words", "numbers", "flags"]
    items: int = Field(description="Items that have a value.")
    distinct: int
    values: list[ValueOut] = Field(description="The commonest values, not of numbers.")
    least: float | None
    most: float | None
    bars: list[int] = Field(description="Histogram of numbers; the last bar has all above bars_to.")
    bars_to: float | None


class FacetsOut(BaseModel):
    """All columns that filters may name."""

    generation: int
    facets: list[FacetOut]


class ChangedOut(BaseModel):
    """One kind of change, with some of its items."""

    items: int
    examples: list[ShortOut]


class ChangesOut(GenerationOut):
    """One generation, what it changed and how far the catalogue had moved with it."""

    changed: dict[str, ChangedOut]
    drift: dict[str, Any]


class ReportOut(BaseModel):
    """Where the report of the run is."""

    url: str | None = Field(description="To open within a minute; null if there is no report.")
