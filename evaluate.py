"""Evaluate a trained run: python evaluate.py --run runs/NAME [--split test] [--data.path PATH]"""

from sentiment.cli.main import evaluate

if __name__ == "__main__":
    raise SystemExit(evaluate())
