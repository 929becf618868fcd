"""Train a classifier: python train.py --config configs/imdb.yaml [--section.key value ...]"""

from sentiment.cli.main import train

if __name__ == "__main__":
    raise SystemExit(train())
