"""What tells one set of reviews, or one file, from another."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sentiment.text.reviews import Reviews


def reviews_fingerprint(reviews: Reviews) -> dict[str, Any]:
    """Number of reviews, bytes of their texts in UTF-8, and a digest of texts and labels."""
    digest = hashlib.sha256(reviews.labels.astype("<i8").tobytes())
    num_bytes = 0
    for text in reviews.texts:
        data = text.encode("utf-8", "surrogatepass")
        num_bytes += len(data)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return {"rows": len(reviews), "bytes": num_bytes, "sha256": digest.hexdigest()}


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Name, bytes and digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else None
        if digest is None:  # Python 3.10
            digest = hashlib.sha256()
            while part := file.read(1 << 20):
                digest.update(part)
        size = file.tell()
    return {"name": path.name, "bytes": size, "sha256": digest.hexdigest()}
