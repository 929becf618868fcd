"""Pack what ``benchmarks/gpu.sh`` needs on a machine without the internet.

    python -m benchmarks.gpu.kit --imdb FOLDER --vectors FILE [--output gpu-kit]

FOLDER has IMDB's train.parquet and unsupervised.parquet; FILE has word vectors of 300 dimensions.
The kit holds the reviews as tokens with spaces between them, since spaCy is too large to pack; the
vectors of the recipe's vocabulary; and the packages in pure Python that images for PyTorch lack.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gpu.options import ROOT
from sentiment.data.tokenizer import TokenizedTexts, tokenize
from sentiment.data.vectors import read_blocks, split_lines
from sentiment.data.vocabulary import build_vocabulary, count_tokens

PACKAGES = ("torchtext", "jsonargparse", "docstring-parser", "typeshed-client", "captum")
MAX_BYTES = 64 << 20
_DIMENSION = 300  # of configs/imdb.yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--imdb", type=Path, required=True, help="folder with the Parquet files")
    parser.add_argument("--vectors", type=Path, required=True, help="vectors of 300 dimensions")
    parser.add_argument("--output", type=Path, default=ROOT / "gpu-kit", help="folder to replace")
    arguments = parser.parse_args()
    output = arguments.output
    if output.exists():
        shutil.rmtree(output)
    (output / "reviews").mkdir(parents=True)
    tokens = {}
    for split in ("train", "unsupervised"):
        table = pq.read_table(arguments.imdb / f"{split}.parquet", columns=["text", "label"])
        tokens[split] = pack_reviews(table, output / "reviews" / f"{split}.parquet")
    pack_vectors(arguments.vectors, tokens["train"], output / "vectors.300d.txt.gz")
    pack_wheels(PACKAGES, output / "wheels")
    files = [path for path in output.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    for path in files:
        print(f"{path.stat().st_size / 2**20:6.1f} MiB  {path.relative_to(output)}")
    print(f"{total / 2**20:6.1f} MiB in all: {output}")
    if total > MAX_BYTES:
        raise SystemExit(f"error: the kit is larger than {MAX_BYTES >> 20} MiB")


def pack_reviews(table: pa.Table, path: Path) -> TokenizedTexts:
    """Write the tokens of the reviews of a table (text, label), and return them."""
    # Films are recognized by their capitalized names; the program itself lower-cases the tokens.
    tokenized = tokenize(table.column("text").to_pylist(), lower_case=False, progress=True)
    texts = [" ".join(tokenized.words(index)) for index in range(len(tokenized))]
    packed = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts))
    pq.write_table(packed, path, compression="zstd", compression_level=9, use_dictionary=False)
    return tokenized


def pack_vectors(source: Path, tokenized: TokenizedTexts, path: Path) -> None:
    """Write the vectors of the words that the recipe's vocabulary may have, to three decimals."""
    counts: Counter[str] = Counter()
    for word, count in count_tokens(tokenized).items():
        counts[word.lower()] += count
    wanted = {word.encode() for word in build_vocabulary(counts, max_size=30_000).itos}
    with gzip.open(path, "wb") as file:
        for line in split_lines(read_blocks(source, name_part=f".{_DIMENSION}d.")):
            word, _, values = line.partition(b" ")
            if word in wanted:
                rounded = " ".join(f"{float(value):.3f}" for value in values.split(b" "))
                file.write(word + b" " + rounded.encode() + b"\n")


def pack_wheels(names: Sequence[str], folder: Path) -> None:
    """Fetch packages in pure Python in the versions of requirements.lock."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [next(line for line in lock if line.startswith(f"{name}==")) for name in names]
    command = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *command, *pins], check=True)


if __name__ == "__main__":
    main()
