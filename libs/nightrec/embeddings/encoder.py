"""BERT in one process: texts in, unit vectors out. Loaded once per process, from files alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightrec import gpu
from nightrec.errors import NightrecError, UsageError
from nightrec.weights import tensors_of

Vectors = npt.NDArray[np.float32]
WEIGHTS = "model.safetensors"


def verify(folder: Path, revision: str) -> None:
    """Raise UsageError unless the weights in `folder` have a SHA-256 that begins with `revision`. 0.1 s for 90 MB."""
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise UsageError(
            f"encoder: {weights} does not exist; `make install` puts the default encoder into the user's cache, "
            "encoder.folder in the config names any other, on every worker"
        )
    try:
        tensors_of(weights)
    except NightrecError as error:
        raise UsageError(f"encoder: {error}") from None
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(revision):
        raise UsageError(
            f"encoder: {weights} has revision {found[:12]}, encoder.revision in the config says {revision}; "
            f'put the weights of {revision} there, or set encoder.revision = "{found[:12]}": '
            "every text is then encoded anew"
        )


class Encoder:
    """A BERT with mean pooling. Letters: B texts in a batch, T tokens of each of them, D width of a vector.

    On a GPU where torch sees one. In bfloat16 there and on CPUs with instructions for it (585 texts/s against 183 at
    best in float32 on one such core, cosine to float32 at least 0.9995); vectors are float32 either way.
    A batch holds texts of one length: nothing is padded, no mask is needed, and no text sees its companions. Only the
    last bits of a vector may depend on their number, where the processor's library picks another kernel for it.
    Not compiled: torch.compile took 20 s of a core per process and saved 3 % of a text's time, 17 % with the weights
    frozen into the graph, which begins to pay at 60,000 new texts per process.
    """

    def __init__(self, folder: Path, max_tokens: int, threads: int) -> None:
        # The tokenizer's own threads, read at its first text: they would take the cores of neighbouring tasks.
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        quiet: Any = logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        torch.set_num_threads(threads)
        # Unless Spark deals them out, processes spread over the GPUs of their host by chance.
        own = gpu.own(os.getpid() % max(torch.cuda.device_count(), 1))
        self.device = torch.device("cpu" if own is None else f"cuda:{own}")
        half = own is not None or torch.cpu._is_avx512_bf16_supported()
        offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        model = AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.bfloat16 if half else torch.float32, **offline
        )
        self.model = model.eval().to(self.device)
        self.max_tokens = min(max_tokens, int(model.config.max_position_embeddings))
        self.width = int(model.config.hidden_size)

    def encode(self, texts: list[str], batch_tokens: int) -> Vectors:
        """One unit vector per text, in the order of the texts; at most `batch_tokens` tokens are computed together.

        Raises ValueError for a vector that is none.
        """
        import torch

        tokens = self.tokenizer(
            texts, truncation=True, max_length=self.max_tokens, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        unit = torch.empty(len(texts), self.width, device=self.device)
        with torch.inference_mode():
            for chosen in batches(np.fromiter(map(len, tokens), np.int64, len(tokens)), batch_tokens):
                ids = torch.tensor([tokens[text] for text in chosen], device=self.device)  # [B, T]
                states = self.model(input_ids=ids).last_hidden_state  # [B, T, D]
                # Every token counts, for none is padding; every text has its two marker tokens.
                unit[chosen] = torch.nn.functional.normalize(states.float().mean(1), dim=1)
        vectors: Vectors = unit.cpu().numpy()
        broken = ~np.isclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)  # NaN and infinity too
        if broken.any():
            raise ValueError(f"the encoder gave {broken.sum()} of {len(texts)} vectors without unit length")
        return vectors


def batches(lengths: npt.NDArray[np.int64], batch_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of texts that are computed together: of one length in tokens, `batch_tokens` of them in all or one text.

    Shortest first, in their given order within a length; each text once.
    """
    order = np.argsort(lengths, kind="stable")
    of_one_length = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1) if len(order) else []
    for texts in of_one_length:
        most = max(1, batch_tokens // int(lengths[texts[0]]))
        for start in range(0, len(texts), most):
            yield texts[start : start + most]


@lru_cache(maxsize=1)
def loaded(folder: Path, revision: str, max_tokens: int, threads: int) -> Encoder:
    """The encoder of this process: verified and loaded at the first call, kept from then on."""
    verify(folder, revision)
    return Encoder(folder, max_tokens, threads)
