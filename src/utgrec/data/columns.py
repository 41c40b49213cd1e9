"""Find out which column is the item id, the title, the time … by their usual names.

Names are compared without case and without anything but letters and digits: `movieId`,
`movie_id` and `Movie ID` are the same name.
"""

import re
from collections.abc import Mapping, Sequence

from utgrec.errors import BadTable

# Role → groups of usual names, most telling group first. Two columns in one group are ambiguous.
ITEM_ROLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "item_id": (
        ("itemid",),
        ("parentasin",),
        ("asin", "movieid", "productid", "articleid", "bookid", "songid", "sku"),
        ("item", "product", "movie", "article", "isbn", "id"),
    ),
    "title": (("title",), ("name", "itemname", "productname"), ("prodname",)),
    "brand": (("brand",), ("store",), ("manufacturer",)),
    "categories": (("categories",), ("category",), ("genres",), ("genre",), ("categorypath",)),
    "features": (("features",), ("feature",), ("bullets", "bulletpoints")),
    "description": (("description",), ("desc",), ("detaildesc", "plot", "summary", "overview")),
    "price": (("price",),),
    "image": (
        ("image",),
        ("imagepath", "imagefile"),
        ("img",),
        ("imageurl", "imurl", "imgurl", "poster", "picture"),
        ("images",),
    ),
    "text": (("text",), ("sentence",)),
}
INTERACTION_ROLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "user": (
        ("userid",),
        ("reviewerid", "customerid", "memberid", "visitorid", "accountid"),
        ("user", "customer", "reviewer", "member", "visitor", "uid", "sessionid"),
    ),
    "item": ITEM_ROLES["item_id"],
    "timestamp": (
        ("timestamp", "timestampms"),
        ("unixreviewtime", "unixtime", "ts"),
        ("datetime", "time", "eventtime", "createdat"),
        ("date", "tdat", "day", "reviewtime"),
    ),
}
# Found only where somebody says that events are of several kinds; `weight` is always told.
EVENT_ROLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "event": (
        ("event", "eventtype", "eventname"),
        ("action", "actiontype", "behavior", "behaviour", "behaviortype", "behaviourtype"),
        ("type", "interactiontype", "kind"),
    ),
    "weight": (),
}
ROLES = (*ITEM_ROLES, *INTERACTION_ROLES, *EVENT_ROLES)


def find_columns(
    file: str,
    seen: Sequence[str],
    roles: Mapping[str, Sequence[Sequence[str]]],
    told: Mapping[str, str],
    required: Sequence[str],
) -> dict[str, str]:
    """Role → column name, for the roles that this table has.

    `told` comes from the user and wins; a role told to be "" has no column.

    Raises:
        BadTable: a required role has no column, several columns fit, or a told one is missing.
    """
    found: dict[str, str] = {}
    for role, groups in roles.items():
        if role in told:
            if told[role] and told[role] not in seen:
                raise BadTable(
                    f"{file} has no column {told[role]!r} (--column {role}={told[role]}); "
                    f"its columns are {', '.join(seen)}"
                )
            if told[role]:
                found[role] = told[role]
            continue
        taken = set(found.values()) | set(told.values())
        match = _by_name(file, role, groups, [name for name in seen if name not in taken])
        if match is not None:
            found[role] = match
    for role in required:
        if role not in found:
            raise BadTable(
                f"{file} has no column for {role} under a usual name; its columns are "
                f"{', '.join(seen) or 'none'}. Say which it is with --column {role}=NAME "
                f"(options.columns={{{role!r}: NAME}})"
            )
    return found


def words_of(name: str) -> list[str]:
    """The words of a column name: `imdbId` and `imdb_id` are imdb, id."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", spaced.lower())


def _by_name(
    file: str, role: str, groups: Sequence[Sequence[str]], seen: Sequence[str]
) -> str | None:
    for group in groups:
        fitting = [name for name in seen if re.sub(r"[\W_]+", "", name.lower()) in group]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise BadTable(
                f"{file}: several columns could be {role}: {', '.join(fitting)}. "
                f"Say which with --column {role}=NAME (options.columns={{{role!r}: NAME}})"
            )
    return None
