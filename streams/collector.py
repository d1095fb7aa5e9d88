"""Python's cyclic garbage collector in processes that keep hundreds of thousands of objects for long."""

import gc
from typing import Final

# New objects before the young ones are searched (Python: 700), and how often the older ones are then (10 and 10). A
# batch of decisions makes some thousands, and hardly a cycle.
THRESHOLDS: Final = (20_000, 20, 50)


def spare_the_old() -> None:
    """What is there now is not searched any more, and what comes is searched less often.

    Objects without cycles, which are nearly all, are freed by their counts as before.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
