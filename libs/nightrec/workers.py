"""Where the Python workers of a whole night are forked from: heavy libraries are loaded once, not by each worker.

Spark ends workers that were idle for a minute and starts new ones; each that encodes, trains or scores would import
torch and transformers again. Named to Spark by `session(..., warm=True)`, which makes it the parent of its workers.
"""

import gc

# Loaded for the workers that are forked from here. Nothing of it starts a thread before it is used: a fork is safe.
import horovod.torch  # noqa: F401
import numba  # noqa: F401
import numpy as np  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow as pa  # noqa: F401
import torch  # noqa: F401
import xgboost  # noqa: F401
from pyspark import daemon
from transformers import AutoTokenizer, BertModel  # noqa: F401

if __name__ == "__main__":
    # A worker collects garbage after each task: looking through these libraries again took 0.26 s of each one's core.
    gc.freeze()
    daemon.manager()
