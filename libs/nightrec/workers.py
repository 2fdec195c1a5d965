"""Where the Python workers of a whole night are forked from: heavy libraries are loaded once, not by each worker.

Spark ends workers that were idle for a minute and starts new ones; each that encodes, trains or scores would import
torch and transformers again. Named to Spark by `session(..., warm=True)`, which makes it the parent of its workers.
"""

import gc
import signal

from nightrec.parent import death_signal

# Eight core seconds of imports follow, in which it does not hear that the JVM has closed its input: one that was killed
# then left it alive for more than 10 s. Only for so long: what Linux looks at is the JVM's thread, which waits for it.
if __name__ == "__main__":
    death_signal(signal.SIGKILL)

# Loaded for the workers that are forked from here. Nothing of it starts a thread before it is used: a fork is safe.
import horovod.torch  # noqa: F401
import numba  # noqa: F401
import numpy as np  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow as pa  # noqa: F401
import torch  # noqa: F401
import xgboost  # noqa: F401
from transformers import AutoTokenizer, BertModel  # noqa: F401

from nightrec.daemon import manager

if __name__ == "__main__":
    # A worker collects garbage after each task: looking through these libraries again took 0.26 s of each one's core.
    gc.freeze()
    death_signal(0)
    manager()
