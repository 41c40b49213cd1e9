"""Codes of items that no catalogue has: what the tokenizer makes of plain sentences.

    python examples/encode_items.py runs/shop/tokenizer "Tea mug. Fired clay." "Toy boat. Wood."

Items that share their first codes are alike to the tokenizer. These are the nearest codes of each
item by itself, so two items may get the same; `utgrec tokenizer assign` keeps a catalogue apart.
"""

import argparse

import utgrec


def main() -> None:
    parser = argparse.ArgumentParser(description="Codes of items that no catalogue has.")
    parser.add_argument("tokenizer", help="a finished tokenizer folder")
    parser.add_argument("texts", nargs="+", help="sentences, one for each item")
    parser.add_argument("--image", help="a picture that shows the last of them")
    given = parser.parse_args()

    tokenizer = utgrec.ItemTokenizer.from_pretrained(given.tokenizer)
    for place, text in enumerate(given.texts, start=1):
        image = given.image if place == len(given.texts) else None
        codes = tokenizer.encode(text=text, image=image)
        print(" · ".join(str(code) for code in codes), " ", text)


if __name__ == "__main__":
    main()
