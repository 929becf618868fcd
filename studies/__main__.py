"""``python -m studies``: see studies/lstm.py."""

from sentiment.environment import prepare_environment

prepare_environment()  # before torch is imported

from studies.lstm import main  # noqa: E402

main()
