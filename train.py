"""Train a classifier: python train.py --config configs/imdb.yaml [--section.key value ...]"""

from sentiment.cli import train

if __name__ == "__main__":
    raise SystemExit(train())
