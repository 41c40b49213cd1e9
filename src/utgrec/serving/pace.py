"""How long searches take, learnt while serving: so much for each, and so much for each history."""

import math

FORGETS = 0.9  # weight of what was seen one search ago, so that about ten of them count


class Pace:
    """A straight line through the sizes and times of recent batches."""

    def __init__(self) -> None:
        self._weight = self._size = self._time = self._square = self._product = 0.0

    def note(self, size: int, seconds: float) -> None:
        """Learn from one batch."""
        self._weight = FORGETS * self._weight + 1
        self._size = FORGETS * self._size + size
        self._time = FORGETS * self._time + seconds
        self._square = FORGETS * self._square + size * size
        self._product = FORGETS * self._product + size * seconds

    def batch(self, size: int) -> float:
        """How long a batch of some size will take (s); 0 before anything is known."""
        if not self._weight or size < 1:
            return 0.0
        size_mean, time_mean = self._size / self._weight, self._time / self._weight
        spread = self._square / self._weight - size_mean**2
        slope = 0.0
        if spread > 1e-6:
            slope = (self._product / self._weight - size_mean * time_mean) / spread
        # More histories never take less time, and none takes more than its share of the mean.
        slope = min(max(slope, 0.0), time_mean / size_mean)
        return max(time_mean + slope * (size - size_mean), time_mean / size_mean)

    def line(self, waiting: int, most_together: int) -> float:
        """How long a line of histories takes that are searched `most_together` at a time (s)."""
        full, rest = divmod(waiting, most_together)
        return full * self.batch(most_together) + (self.batch(rest) if rest else 0.0)

    @staticmethod
    def retry_after(seconds: float, most: int) -> int:
        """Whole seconds after which to try again."""
        return min(max(math.ceil(seconds), 1), most)
