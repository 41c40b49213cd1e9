"""The categories of Amazon Reviews 2023 that the paper uses, and the counts it states for them."""

import difflib
from typing import NamedTuple

from utgrec.errors import BadConfig


class Counts(NamedTuple):
    """A domain in numbers."""

    users: int
    items: int
    interactions: int
    training_pairs: int  # a prefix of a training history and its next item


class Preset(NamedTuple):
    """One category that the paper uses."""

    category: str  # as the files are called
    short: str  # as the paper's tables call it
    role: str  # pretrain or adapt
    counts: Counts | None  # of the 5-core, as the paper states them; None = it states none


PRESETS = (
    Preset("Arts_Crafts_and_Sewing", "Arts", "pretrain", None),
    Preset("Baby_Products", "Baby", "pretrain", Counts(150_777, 36_013, 1_241_083, 788_752)),
    Preset("CDs_and_Vinyl", "CD", "pretrain", Counts(123_876, 89_370, 1_552_764, 1_181_136)),
    Preset(
        "Cell_Phones_and_Accessories",
        "Phone",
        "pretrain",
        Counts(380_999, 111_480, 2_752_785, 1_609_788),
    ),
    Preset("Software", "Software", "pretrain", None),
    Preset("Musical_Instruments", "Instrument", "adapt", Counts(57_439, 24_587, 511_836, 339_519)),
    Preset(
        "Industrial_and_Scientific", "Scientific", "adapt", Counts(50_985, 25_848, 412_947, 259_992)
    ),
    Preset("Video_Games", "Game", "adapt", Counts(94_762, 25_612, 814_586, 530_300)),
    Preset("Office_Products", "Office", "adapt", Counts(223_308, 77_551, 1_800_878, 1_130_954)),
)

# All categories of the data set, so that a slip of the pen is found before a download.
CATEGORIES = (
    *("All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive"),
    *("Baby_Products", "Beauty_and_Personal_Care", "Books", "CDs_and_Vinyl"),
    *("Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics"),
    *("Gift_Cards", "Grocery_and_Gourmet_Food", "Handmade_Products", "Health_and_Household"),
    *("Health_and_Personal_Care", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store"),
    *("Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products"),
    *("Patio_Lawn_and_Garden", "Pet_Supplies", "Software", "Sports_and_Outdoors"),
    *("Subscription_Boxes", "Tools_and_Home_Improvement", "Toys_and_Games", "Unknown"),
    "Video_Games",
)


def find_category(name: str) -> str:
    """The category that a name means: its own, or the paper's short one; case does not count.

    Raises:
        BadConfig: there is no such category.
    """
    names = {category.lower(): category for category in CATEGORIES}
    names |= {preset.short.lower(): preset.category for preset in PRESETS}
    wanted = name.strip().lower().replace(" ", "_").replace("-", "_")
    if wanted in names:
        return names[wanted]
    close = [found for found in names if wanted and wanted in found]
    close += difflib.get_close_matches(wanted, names, 3, 0.6)
    meant = list(dict.fromkeys(names[found] for found in close))[:3]
    raise BadConfig(
        f"{name!r} is no category of Amazon Reviews 2023"
        + (f"; did you mean {' or '.join(meant)}?" if meant else ".")
        + f" The paper's nine: {', '.join(preset.category for preset in PRESETS)}"
    )


def find_preset(category: str) -> Preset | None:
    """What the paper says about a category; None if it does not use it."""
    return next((preset for preset in PRESETS if preset.category == category), None)
