"""Whether a run's reviews, vectors, teachers and pre-training are still what they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sentiment.config import Config
from sentiment.distilling.teachers import (
    check_named_teachers,
    check_same_teachers,
    describe_teachers,
)
from sentiment.pretraining.folder import describe_pretraining
from sentiment.text.fingerprints import file_fingerprint, reviews_fingerprint
from sentiment.text.pipeline import cache_dir, reads_unlabelled, vectors_path
from sentiment.text.reviews import load_training_splits
from sentiment.text.unlabelled import load_unlabelled


def check_reviews_here(then: dict[str, dict[str, Any]], config: Config, run: Path) -> None:
    """Refuse other reviews.

    Args:
        then: fingerprints of those of the run, by split.
        config: where they lie now.
        run: for the message.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are others.
    """
    data = config.data
    if data.shared_reviews == "report":  # the training will, and it changes no review
        data = replace(data, shared_reviews="ignore")
    train, validation = load_training_splits(data)
    now = {"train": reviews_fingerprint(train), "validation": reviews_fingerprint(validation)}
    if reads_unlabelled(config):
        now["unsupervised"] = reviews_fingerprint(load_unlabelled(data, validation))
    check_reviews(then, now, run)


def check_reviews(
    then: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]], run: Path
) -> None:
    """Refuse reviews whose fingerprints are others; arguments and errors as above."""
    for split, wanted in then.items():
        found = now[split]
        if found != wanted:
            raise ValueError(
                f"the {split} reviews are {found['rows']} with digest {found['sha256'][:12]}, but "
                f"{run} was trained with {wanted['rows']} with {wanted['sha256'][:12]}: give the "
                "reviews of then by --data.path"
            )


def check_vectors(then: dict[str, Any] | None, config: Config, run: Path) -> None:
    """Refuse another file of vectors, whatever its name is.

    Args:
        then: fingerprint of the run's, None without one.
        config: where it lies now; one that is chosen by name is downloaded where need be.
        run: for the message.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is another.
    """
    if then is None:
        return
    path = vectors_path(config.vectors, cache_dir(config.data))
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"no file {path} with the vectors of {run} ({then.get('name')}): give it by "
            "--vectors.path"
        )
    found = file_fingerprint(path)
    if found["sha256"] != then["sha256"]:
        raise ValueError(
            f"{path} has digest {found['sha256'][:12]}, but the vectors of {run} had "
            f"{then['sha256'][:12]}: give those of then by --vectors.path"
        )


def check_teachers_here(then: list[dict[str, str]], config: Config, run: Path) -> None:
    """Refuse to learn from others than the run did.

    Args:
        then: who its teachers were.
        config: where they lie now.
        run: for the message.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: one is another.
    """
    check_named_teachers(config)
    check_same_teachers(then, describe_teachers(config), run)


def check_pretraining_here(then: dict[str, str] | None, run: Path) -> None:
    """Refuse to start from another pre-training than the run did.

    Args:
        then: which it was, None without one.
        run: for the message.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is another.
    """
    if then is None:
        return
    try:
        now = describe_pretraining(Path(then["path"]).expanduser())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the pre-training {then['path']} that {run} started from is gone ({error}): put it "
            "back there"
        ) from error
    for name, what in (("identity", "identity"), ("sha256", "weights with digest")):
        if now[name] != then[name]:
            raise ValueError(
                f"the pre-training {then['path']} has {what} {now[name][:12]}, but {run} started "
                f"from one with {then[name][:12]}: put that of then there"
            )
