"""BERT in one process: texts in, unit vectors out. Loaded once per process, from files alone."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightrec.errors import UsageError

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
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(revision):
        raise UsageError(
            f"encoder: {weights} has revision {found[:12]}, encoder.revision in the config says {revision}; "
            f'put the weights of {revision} there, or set encoder.revision = "{found[:12]}": '
            "every text is then encoded anew"
        )


class Encoder:
    """A BERT with mean pooling. Letters: B texts in a batch, T tokens of the longest of them, D width of a vector.

    On a GPU where torch sees one. In bfloat16 there and on CPUs with instructions for it (585 texts/s against 183 at
    best in float32 on one such core, cosine to float32 at least 0.9999); vectors are float32 either way.
    """

    def __init__(self, folder: Path, max_tokens: int, threads: int) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        quiet: Any = logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        torch.set_num_threads(threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        half = self.device == "cuda" or torch.cpu._is_avx512_bf16_supported()
        offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        model = AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=torch.bfloat16 if half else torch.float32, **offline
        )
        self.model = model.eval().to(self.device)
        self.max_tokens = min(max_tokens, int(model.config.max_position_embeddings))
        self.width = int(model.config.hidden_size)

    def encode(self, texts: list[str], batch: int) -> Vectors:
        """One unit vector per text, in the order of the texts. Raises ValueError for a vector that is none."""
        import torch

        vectors = np.empty((len(texts), self.width), dtype=np.float32)
        # Texts of like length share a batch: padding is computed like any token.
        order = np.argsort(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)), kind="stable")
        with torch.inference_mode():
            for start in range(0, len(texts), batch):
                chosen = order[start : start + batch]
                vectors[chosen] = self._batch([texts[i] for i in chosen])
        broken = ~np.isclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)  # NaN and infinity too
        if broken.any():
            raise ValueError(f"the encoder gave {broken.sum()} of {len(texts)} vectors without unit length")
        return vectors

    def _batch(self, texts: list[str]) -> Vectors:
        """[B, D]: the mean of the token vectors under the attention mask, at unit length."""
        import torch

        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        tokens = tokens.to(self.device)
        states = self.model(**tokens).last_hidden_state.float()  # [B, T, D]
        mask = tokens["attention_mask"].unsqueeze(-1).float()  # [B, T, 1]
        means = (states * mask).sum(1) / mask.sum(1)  # every text has its two marker tokens
        unit: Vectors = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
        return unit


@lru_cache(maxsize=1)
def loaded(folder: Path, revision: str, max_tokens: int, threads: int) -> Encoder:
    """The encoder of this process: verified and loaded at the first call, kept from then on."""
    verify(folder, revision)
    return Encoder(folder, max_tokens, threads)
