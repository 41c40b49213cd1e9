"""Few different shapes: what a CPU compiles for one batch serves the next."""


def round_up(length: int, step: int = 8) -> int:
    """The next multiple of `step`.

    On a CPU every new shape of a matrix product is compiled and kept: a few widths instead of
    dozens save seconds at the start and gigabytes over a run.
    """
    return -(-length // step) * step
