"""An endless stream over a fixed set: epoch after epoch, each a new seeded permutation.

Position `p` always holds the same item, so a resumed run needs no cursor but its step.
"""

import numpy as np

from vertigym.core.seeds import Key, generator


class Shuffled:
    """Indices `0 … size-1`, shuffled anew each epoch with the seed path `path`."""

    def __init__(self, size: int, *path: Key) -> None:
        self._size = size
        self._path = path
        self._epoch = -1
        self._order = np.arange(0)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = generator(*self._path, epoch).permutation(self._size)
        return int(self._order[place])
