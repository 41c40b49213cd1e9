"""Patches of pictures for the Qwen families: those of their own processor, bit for bit.

That processor turns one picture after the other into floating-point numbers, scales and normalises
them, cuts them into patches, and writes each twice, as a film of two frames. What it makes of each
of the 256 values of a colour is asked once; then bytes are cut into patches and looked up, for all
pictures of a size together, and written once.

Shapes: n pictures of one size · N patches · P = 3·patch².
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

Bytes = npt.NDArray[np.uint8]
FLAGS = ("do_resize", "do_rescale", "do_normalize")


class Patches:
    """What a processor of pictures does."""

    def __init__(self, processor: Any) -> None:
        self.told = processor.to_json_string()  # what it was asked with
        self.patch, self.merge = int(processor.patch_size), int(processor.merge_size)
        self.low, self.high = (
            int(processor.size[edge]) for edge in ("shortest_edge", "longest_edge")
        )
        self.resample = Image.Resampling(int(processor.resample))
        self._fit = sys.modules[type(processor).__module__].smart_resize
        self._values = self._ask(processor)

    @staticmethod
    def known(processor: Any) -> bool:
        """Whether it does what is done here, and nothing else."""
        named = type(processor).__name__ == "Qwen2VLImageProcessorPil"
        return named and all(getattr(processor, flag) for flag in FLAGS)

    def __call__(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Patches of RGB pictures, one picture after the other, and how many each has.

        Raises:
            ValueError: a picture is more than 200 times as long as it is wide.

        Shapes: pictures → pixel_values (N, P), image_grid_thw (pictures, 3).
        """
        sizes = np.array(
            [
                self._fit(one.height, one.width, self.patch * self.merge, self.low, self.high)
                for one in pictures
            ]
        )  # (pictures, 2)
        grids = sizes // self.patch
        counts = grids.prod(axis=1)
        start = np.cumsum(counts) - counts
        out = np.empty((int(counts.sum()), 3, self.patch**2), dtype=np.float32)
        for size in np.unique(sizes, axis=0):
            which: list[int] = np.flatnonzero((sizes == size).all(axis=1)).tolist()
            side = (int(size[1]), int(size[0]))
            shown = [np.asarray(pictures[at].resize(side, self.resample)) for at in which]
            cut = self._cut(np.stack(shown))  # (n·S, 3, patch²)
            rows = (start[which][:, None] + np.arange(counts[which[0]])).reshape(-1)
            # A slice is written faster than rows by their numbers.
            into = slice(None) if len(which) == len(pictures) else rows
            for colour, values in enumerate(self._values):
                out[into, colour] = values[cut[:, colour]]
        thw = np.concatenate([np.ones((len(grids), 1), dtype=np.int64), grids], axis=1)
        return {
            "pixel_values": torch.from_numpy(out).flatten(1),
            "image_grid_thw": torch.from_numpy(thw),
        }

    def _cut(self, pixels: Bytes) -> Bytes:
        """Patches in the order in which the model merges them: (n, H, W, 3) → (n·S, 3, patch²)."""
        count, height, width, _ = pixels.shape
        step = self.patch * self.merge
        shape = (height // step, self.merge, self.patch, width // step, self.merge, self.patch, 3)
        cut = pixels.reshape(count, *shape).transpose(0, 1, 4, 2, 5, 7, 3, 6)
        return np.ascontiguousarray(cut).reshape(-1, 3, self.patch**2)

    def _ask(self, processor: Any) -> npt.NDArray[np.float32]:
        """What the processor makes of each value of each colour: (3, 256)."""
        side = self.patch * self.merge
        picture = np.resize(np.arange(256, dtype=np.uint8), (side, side, 1)).repeat(3, axis=2)
        made = processor(images=[Image.fromarray(picture)], do_resize=False, return_tensors="np")
        frames = made["pixel_values"].reshape(self.merge**2, 3, -1, self.patch**2)
        values = np.empty((3, 256), dtype=np.float32)
        for colour, place in enumerate(self._cut(picture[None]).swapaxes(0, 1)):
            values[colour, place] = frames[:, colour, 0]
        return values
