"""Recommend for one person, and for many at once.

    python examples/recommend.py runs/shop A12 B7

`recommend_batch` decodes many histories together, which is much faster than one after the other.
"""

import argparse

import utgrec


def main() -> None:
    parser = argparse.ArgumentParser(description="Recommend for one person, and for many at once.")
    parser.add_argument("run", help="a finished run folder")
    parser.add_argument("history", nargs="+", help="item ids, oldest first")
    parser.add_argument("--domain", help="domain of the run, if it has several")
    given = parser.parse_args()

    shop = utgrec.load(given.run, given.domain)

    print("After", ", ".join(given.history))
    for item, score in shop.recommend(given.history, k=5):
        print(f"  {score:8.3f}  {item.item_id}  {item.title}")

    # One history for each person; here: what would follow each item alone.
    histories = [[item_id] for item_id in given.history]
    for history, found in zip(histories, shop.recommend_batch(histories, k=3), strict=True):
        print(f"After {history[0]} alone:", ", ".join(each.item.item_id for each in found))


if __name__ == "__main__":
    main()
