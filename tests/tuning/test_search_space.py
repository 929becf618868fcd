"""A search's file and space: values of each setting's kind, and mistakes that are named."""

import optuna
import pytest
from helpers.corpus import ROOT
from optuna.distributions import FloatDistribution

from sentiment.config.config import Config, flat_settings
from sentiment.config.parser import load_config, setting_keys
from sentiment.runtime.errors import UserError
from sentiment.tuning.search_space import check_space, read_search, read_space

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.hidden_size": {"low": 8, "high": 24, "step": 8},
    "model.pooling": {"choices": ["max", "mean"]},
}


def test_values_are_of_the_settings_kinds_and_within_the_bounds():
    space = read_space({**SPACE, "model.dropout": {"low": 0, "high": 0.5, "step": 0.25}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask(space).params for _ in range(100)]
    seen = {key: {values[key] for values in trials} for key in space}
    assert seen["model.hidden_size"] == {8, 16, 24}
    assert seen["model.pooling"] == {"max", "mean"}
    assert seen["model.dropout"] == {0.0, 0.25, 0.5}
    rates = sorted(seen["training.learning_rate"])
    assert rates[0] >= 1e-4 and rates[-1] <= 1e-1
    assert 1e-3 < rates[50] < 1e-2, "half of them below the middle of the logarithms"


@pytest.mark.parametrize(("high", "step"), [(0.3, 0.1), (0.5, 0.1), (0.6, 0.2)])
def test_steps_of_decimal_fractions_lead_to_the_end(high, step):
    space = read_space({"model.dropout": {"low": 0, "high": high, "step": step}})
    assert space["model.dropout"] == FloatDistribution(0, high, step=step)


def test_every_setting_that_can_be_searched_takes_its_own_default():
    """The default is accepted as a choice; only the bytes beside it are refused."""
    defaults = flat_settings(Config())
    for key in setting_keys():
        with pytest.raises(UserError) as raised:
            read_space({key: {"choices": [defaults[key], b"?"]}})
        message = str(raised.value)
        excluded = ("does not change what is learned", "must be the same for all trials")
        assert "has the choice b'?'" in message or any(part in message for part in excluded), key


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.hiden_size", {"low": 1, "high": 2}, "did you mean model.hidden_size?"),
        ("device", {"choices": ["cpu", "auto"]}, "does not change what is learned"),
        ("training.monitor", {"choices": ["f1", "nll"]}, "must be the same for all trials"),
        ("data.validation_share", {"low": 0.1, "high": 0.2}, "must be the same for all trials"),
        ("model.hidden_size", 64, "is 64, but must be {low"),
        ("model.hidden_size", {"low": 8}, "needs both low and high"),
        ("model.hidden_size", {"low": 8, "hihg": 9}, "has hihg, but expected are low, high"),
        ("model.hidden_size", {"low": 8.5, "high": 9}, "low 8.5, but it must be an integer"),
        ("model.hidden_size", {"low": 9, "high": 8}, "must hold, but got (low=9, high=8)"),
        ("model.hidden_size", {"low": 8, "high": 20, "step": 8}, "lead from 8 to 20"),
        ("model.hidden_size", {"choices": [8, "many"]}, "choice 'many', which is not an integer"),
        ("model.hidden_size", {"choices": [8]}, "a list of two or more"),
        ("model.hidden_size", {"choices": [8, 8]}, "the same choice twice"),
        ("model.hidden_size", {"choices": [8, 9], "low": 1}, "which excludes low"),
        ("model.dropout", {"low": 0, "high": 0.5, "log": True}, "`low > 0` must hold for"),
        ("model.dropout", {"low": 0.1, "high": 0.5, "log": "yes"}, "log 'yes'"),
        ("model.cell", {"low": 1, "high": 2}, "is not a number but one of lstm, gru"),
        ("model.cell", {"choices": ["lstm", "lsmt"]}, "choice 'lsmt', which is not one of lstm"),
        ("model.bidirectional", {"choices": [True, 1]}, "choice 1, which is not true or false"),
        ("vocabulary.max_size", {"choices": [None, "all"]}, "'all', which is not an integer or"),
    ],
)
def test_mistakes_in_the_space_are_named(key, value, message):
    with pytest.raises(ValueError) as raised:
        read_space({key: value})
    assert message in str(raised.value) and str(raised.value).startswith("space: ")


def test_values_out_of_range_are_refused_by_the_settings_own_checks():
    with pytest.raises(ValueError, match="model.dropout is 1.0, but must be from 0 to below 1"):
        check_space(read_space({"model.dropout": {"low": 0.0, "high": 1.0}}), Config())
    decay = {"training.weight_decay": {"choices": [0.0, 0.1]}}
    with pytest.raises(ValueError, match="training.optimizer is 'adam'"):
        check_space(read_space(decay), Config())
    # Searched together, some trials bring together what fits.
    optimizers = {"training.optimizer": {"choices": ["adam", "adamw"]}}
    check_space(read_space({**decay, **optimizers}), Config())


def test_numbers_may_be_written_as_in_settings_files(tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text("space: {training.learning_rate: {low: 1e-4, high: 1E-1, log: true}}\n")
    search = read_search(path)
    assert search.space == {"training.learning_rate": FloatDistribution(1e-4, 0.1, log=True)}
    assert (search.trials, search.metric, search.pruning, search.config) == (20, None, True, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must contain config, trials and space"),
        ("seed: 1\n", "seed is a setting of train.py: a search contains config"),
        ("trials: 3\n", "space must list settings"),
        ("trails: 3\n", "unknown key 'trails' (did you mean trials?)"),
        ("trials: 0\n", "trials is 0, but must be an integer of at least 1"),
        ("metric: loss\n", "metric is 'loss', but must be one of accuracy, f1, macro_f1, auroc"),
        ("pruning: 3\n", "pruning is 3, but must be true or false"),
        ("config: [a]\n", "config is ['a'], but must be the path of a settings file"),
    ],
)
def test_mistakes_in_the_file_are_named(text, message, tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        read_search(path)
    assert str(raised.value).startswith(str(path)) and message in str(raised.value)


def test_the_example_in_configs_is_valid():
    search = read_search(ROOT / "configs" / "sweep.yaml")
    check_space(search.space, load_config(ROOT / search.config))
