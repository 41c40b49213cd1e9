"""Which languages texts are in: by script, and for the Latin script by small words.

It needs no model: a text of letters that only one language (or family) uses says which it is, and
articles, prepositions and pronouns tell the languages of the Latin script apart. A title of three
names is in no language; it counts as "unclear".
"""

import polars as pl

# Small words that are frequent in one language. Single letters, and words that names and shop texts
# of other languages are full of (de, en, di, to), are left out.
WORDS = {
    "English": "the and of with for this that you your from are is it its they their",
    "German": "der die das und mit für von ist nicht ein eine auf auch dem den werden zum",
    "French": "le les des du et pour avec dans est une sur au aux qui votre vous plus",
    "Spanish": "el los las para con una del por es su al lo como más sus",
    "Italian": "il gli della delle con una che nel alla dei sono anche questo",
    "Portuguese": "os um uma para com não dos das em que ao pela seu são você",
    "Dutch": "het een van voor met niet zijn wordt aan ook bij deze naar",
    "Swedish": "och att det som för med är på av ett den till från har",
    "Polish": "jest nie się oraz dla przez od jak może które lub",
    "Turkish": "ve bir bu için ile çok daha olarak olan gibi",
    "Indonesian": "dan yang untuk dengan di dari ini tidak pada anda dapat",
}
SCRIPTS = {
    "Japanese": r"[\p{Hiragana}\p{Katakana}]",
    "Chinese": r"\p{Han}",
    "Korean": r"\p{Hangul}",
    "Cyrillic script": r"\p{Cyrillic}",
    "Arabic script": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Greek": r"\p{Greek}",
    "Thai": r"\p{Thai}",
    "Devanagari script": r"\p{Devanagari}",
}
UNCLEAR = "unclear"
FEWEST_WORDS = 2  # small words, before a language is believed
SAMPLE = 100_000  # texts that are looked at


def count_languages(texts: pl.Series) -> dict[str, int]:
    """Texts (not empty) by language, the most frequent first; of a sample if there are many."""
    told = texts.fill_null("").filter(texts.fill_null("") != "")
    if len(told) > SAMPLE:
        told = told.gather_every(-(-len(told) // SAMPLE))
    if not len(told):
        return {}
    counted = languages(told).value_counts(name="texts").sort(["texts"], descending=True)
    return {row[0]: row[1] for row in counted.rows()}


def languages(texts: pl.Series) -> pl.Series:
    """The language of every text. (N,)"""
    frame = pl.DataFrame({"text": texts.fill_null("")}).lazy()
    text = pl.col("text")
    letters = text.str.count_matches(r"\p{L}")
    script: pl.Expr = pl.lit(None, dtype=pl.String)
    # Japanese mixes kana and Chinese characters; a few kana decide.
    for name, pattern in reversed(SCRIPTS.items()):
        share = 0.1 if name == "Japanese" else 0.3
        script = (
            pl.when(text.str.count_matches(pattern) > share * letters)
            .then(pl.lit(name))
            .otherwise(script)
        )
    lower = text.str.to_lowercase()
    votes = [
        lower.str.count_matches(rf"\b(?:{'|'.join(words.split())})\b").alias(name)
        for name, words in WORDS.items()
    ]
    names = list(WORDS)
    most = pl.max_horizontal(names)
    best: pl.Expr = pl.lit(UNCLEAR)
    for name in reversed(names):
        best = pl.when(pl.col(name) == most).then(pl.lit(name)).otherwise(best)
    # Two languages with equally many of their words: nobody can say.
    tied = pl.sum_horizontal([pl.col(name) == most for name in names]) > 1
    latin = pl.when((most < FEWEST_WORDS) | tied).then(pl.lit(UNCLEAR)).otherwise(best)
    return (
        frame.with_columns(script.alias("script"), *votes)
        .select(pl.coalesce(pl.col("script"), latin).alias("language"))
        .collect()["language"]
    )
