"""Explanations against oracles that are computed otherwise, views of bad texts, the command."""

import io
import json
import re
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import untrained_run
from helpers.review_files import write
from helpers.trainings import refusal
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sentiment import load
from sentiment.cli import main as cli
from sentiment.config.config import DataConfig
from sentiment.data.batches import TextEncoder
from sentiment.data.vocabulary import build_vocabulary
from sentiment.display.console import width
from sentiment.display.plots import save_figure
from sentiment.explain.attribution import NO_WORDS, frozen, integrated_gradients, read_words, shown
from sentiment.explain.explain import (
    Explanation,
    attention_weights,
    explain,
    explain_words,
    predict_prefixes,
    trace_gates,
)
from sentiment.explain.page import draw, write_explanation
from sentiment.explain.terminal import render, wants_colors
from sentiment.model import SentimentClassifier
from sentiment.model.reference_lstm import ReferenceLSTM

KNOWN = ["the", "a", "film", "was", "great", "dull", "and", "not", ".", ",", "do", "i", "$", "x"]
VOCABULARY = build_vocabulary(Counter({word: 99 - place for place, word in enumerate(KNOWN)}))
IDS = np.array([4, 3, 9, 2, 7, 7, 5, 11])

HOSTILE = {
    "empty": "",
    "white space": " \n\t ",
    "emoji": "🎬🎬 👨‍👩‍👧",
    "html": "<script>alert(1)</script> <b onmouseover='x()'>great</b> </span> {{ 7*7 }} {% x %}",
    "ansi": "a \x1b[31mred\x1b[0m film \x07 \x1b]0;title\x07 \x9b31m great\x00",
    "right to left": "فيلم رائع جدا \u202e\u2066 טוב",
    "chinese": "这部电影很好看。" * 20,
    "mathtext": "$x_2$ costs $5 \\frac{ great ^ _",
    "one long word": "x" * 500 + " great",
    "surrogate": "\ud83d great",
    "many words": "the film was not great , " * 400,
    "line separators": "a\u2028film\u0085was\x1cgreat",
}


def make_model(num_classes=2, *, seed=0, gain=1.0, **settings) -> SentimentClassifier:
    torch.manual_seed(seed)
    values = {"embedding_size": 6, "hidden_size": 5, "bidirectional": True, "pooling": "last"}
    model = SentimentClassifier(
        vocabulary_size=len(VOCABULARY), num_classes=num_classes, **{**values, **settings}
    )
    with torch.no_grad():
        model.embedding.weight.mul_(gain / 0.3)
        model.embedding.weight[0] = 0
    return model.eval()


def make_words(text: str, **data):
    settings = DataConfig(**data)
    encode = TextEncoder(VOCABULARY, settings)
    return read_words(encode([text]), 0, text, language=settings.language)


def make_explanation(text: str, names=("neg", "pos"), **settings) -> Explanation:
    model = make_model(len(names), **settings)
    return explain_words(model, make_words(text, max_length=300), names, steps=10, most_steps=10)


def classify(model, ids) -> torch.Tensor:
    tokens = torch.from_numpy(np.asarray(ids)).unsqueeze(0)
    with torch.no_grad():
        return model(tokens, torch.tensor([tokens.shape[1]]))[0].double()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(("lower_case", "language"), [(True, "en"), (False, "en"), (True, "zh")])
def test_words_put_together_are_the_text(text, lower_case, language):
    words = make_words(text, max_length=10_000, lower_case=lower_case, language=language)
    pieces = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").split()
    together = "".join(
        " " * spaced + word
        for word, spaced in zip(words.written, words.is_spaced.tolist(), strict=True)
    )
    assert together.strip() == (" ".join(pieces) or NO_WORDS)
    for word, number in zip(words.written, words.ids.tolist(), strict=True):
        key = word.lower() if lower_case else word
        assert VOCABULARY.itos[number] == (key if key in VOCABULARY.itos else "<unk>")


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("head", [0, 1, 2, 3, 4]), ("tail", [7, 8, 9, 10, 11]), ("head+tail", [0, 1, 2, 10, 11])],
)
def test_what_was_cut_is_known(keep, expected):
    written = [f"w{place}" for place in range(12)]
    words = make_words(" ".join(written), max_length=5, keep=keep)
    assert words.positions.tolist() == expected
    assert list(words.written) == [written[place] for place in expected]
    assert (words.num_total, words.num_cut) == (12, 7)
    assert int(words.num_skipped.sum()) + words.num_cut_off == 7
    text = render(
        explain_words(make_model(), words, ("neg", "pos"), steps=5, most_steps=5), colors=False
    )
    assert "5 words read of 12: 7 cut off" in text
    assert "[… 7 words cut" in text


@given(st.text(max_size=12))
def test_shown_words_do_nothing_to_a_terminal(text):
    kept = [each for each in shown(text) if each != "\N{ZERO WIDTH JOINER}"]
    assert not [each for each in kept if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl")]
    assert bool(shown(text)) == bool(text)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_opinion_is_the_model_on_each_beginning(num_classes):
    model = make_model(num_classes, pooling="max")
    opinion = predict_prefixes(model, IDS, temperature=1.7)
    assert opinion.num_read.tolist() == list(range(1, 9))
    for count in opinion.num_read:
        expected = (classify(model, IDS[:count]) / 1.7).softmax(0).numpy()
        np.testing.assert_allclose(opinion.probabilities[count - 1], expected, atol=1e-6)
    np.testing.assert_array_equal(opinion.at_words(), opinion.probabilities)


def test_a_long_text_is_asked_now_and_then_and_at_its_end():
    model = make_model()
    ids = np.tile(IDS, 13)[:100]
    opinion = predict_prefixes(model, ids, most_tokens=500)
    assert opinion.stride == 10
    assert opinion.num_read.tolist() == list(range(10, 101, 10))
    expected = classify(model, ids[:30]).softmax(0).numpy()
    np.testing.assert_allclose(opinion.probabilities[2], expected, atol=1e-6)
    assert opinion.at_words().shape == (100, 2)
    np.testing.assert_array_equal(opinion.at_words()[20:30], opinion.probabilities[[2] * 10])
    assert predict_prefixes(model, ids[:7], most_tokens=10).num_read.tolist() == [1, 4, 7]


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_an_lstm_attributes_what_a_plain_sum_finds(num_classes, pooling):
    model = make_model(num_classes, pooling=pooling, gain=2.0)
    found = integrated_gradients(model, IDS)
    logits = classify(model, IDS)
    target = 1 if num_classes == 2 else int(logits.argmax())
    lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    lstm.load_state_dict(model.recurrence.state_dict())
    x = model.embedding.weight[torch.from_numpy(IDS)].detach()
    steps = 2_000
    points = (torch.arange(steps) + 0.5) / steps
    line = (points.view(-1, 1, 1) * x).requires_grad_()
    output, (h, _) = lstm(line)
    pooled = output.mean(dim=1) if pooling == "mean" else torch.cat((h[0], h[1]), dim=1)
    scores = model.output(pooled)
    score = scores[:, 1] - scores[:, 0] if num_classes == 2 else scores[:, target]
    (gradients,) = torch.autograd.grad(score.sum(), line)
    expected = (gradients.mean(dim=0) * x).sum(dim=1).numpy()
    np.testing.assert_allclose(found.values, expected, atol=0.01 * np.abs(expected).max())
    assert found.target == target
    assert abs(found.error) <= 0.01 * abs(found.difference)
    whole = float(logits[1] - logits[0]) if num_classes == 2 else float(logits[target])
    assert found.score == pytest.approx(whole, abs=1e-5)


def test_kinks_are_found_by_taking_more_steps():
    model = make_model(pooling="max", gain=3.0, hidden_size=40)
    ids = np.random.default_rng(0).integers(1, len(VOCABULARY), 120)
    rough = integrated_gradients(model, ids, steps=10, most_steps=10)
    fine = integrated_gradients(model, ids, steps=10, most_steps=2_000)
    assert rough.num_steps == 10
    assert rough.relative_error > 0.01 > fine.relative_error
    assert fine.num_steps > 10
    assert integrated_gradients(model, ids, steps=10).num_steps <= 160


def test_what_is_no_difference_has_no_relative_error():
    model = make_model()
    with torch.no_grad():
        model.output.weight.zero_()
    found = integrated_gradients(model, IDS)
    assert found.relative_error is None
    assert not found.values.any()
    assert found.num_steps == 50


def test_a_model_is_left_as_it_was():
    model = make_model(embedding_dropout=0.5, freeze_embedding=True).train()
    model.recurrence.eval()
    expected = integrated_gradients(make_model(embedding_dropout=0.5), IDS).values
    np.testing.assert_allclose(integrated_gradients(model, IDS).values, expected, atol=1e-6)
    with pytest.raises(ZeroDivisionError), frozen(model):
        assert not model.training
        _ = 1 / 0
    assert model.training and not model.recurrence.training
    assert not model.embedding.weight.requires_grad and model.output.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    explain_words(model, make_words("a great film"), ("neg", "pos"), steps=5)
    assert model.training and not model.recurrence.training


@pytest.mark.parametrize("learned", [False, True])
def test_gates_are_those_of_the_reference(learned):
    """Which tests/model holds to the equations."""
    model = make_model(learned_initial_state=learned)
    reference = ReferenceLSTM(6, 5, bidirectional=True)
    reference.load_state_dict(model.recurrence.state_dict())
    initial = None
    with torch.no_grad():
        if learned:
            for state in (model.initial_states.h, model.initial_states.c):
                state.normal_()
            initial = model.initial_states(1)
        x = model.embedding.weight[torch.from_numpy(IDS)].unsqueeze(0)
        (directions,) = reference.trace(x, torch.tensor([len(IDS)]), initial)
    found = trace_gates(model, IDS)
    for direction, gates in enumerate(directions):
        for name in ("forget", "input", "output"):
            expected = getattr(gates, name)[0].mean(dim=1)
            np.testing.assert_allclose(getattr(found, name)[0, direction], expected, atol=1e-6)
    cell = torch.cat([gates.cell[0] for gates in directions], dim=1).numpy()
    np.testing.assert_allclose(found.cell, cell[:, found.units].T, atol=1e-6)
    np.testing.assert_allclose(
        np.abs(found.strongest_cell), -np.sort(-np.abs(cell), axis=1)[:, :3], atol=1e-6
    )
    sizes = np.abs(cell).max(axis=0)
    assert sizes[found.units].tolist() == sorted(sizes.tolist(), reverse=True)
    assert [found.unit_name(4), found.unit_name(5)] == ["→4", "←0"]


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_other_cells_have_no_gates_and_say_so(cell):
    explanation = make_explanation("a great film", cell=cell)
    assert explanation.gates is None
    assert f"kind {cell.upper()}, without an LSTM's gates" in render(explanation, colors=False)
    assert "gates" in explanation.no_gates
    draw(explanation)


def test_attention_is_shown():
    model = make_model(pooling="attention")
    weights = attention_weights(model, IDS)
    tokens = torch.from_numpy(IDS).unsqueeze(0)
    with torch.no_grad():
        output = model.recurrence(model.embed(tokens), torch.tensor([8]))[0][0]
        scores = model.attention.projection(output).tanh() @ model.attention.context
    np.testing.assert_allclose(weights, scores.softmax(0).numpy(), atol=1e-6)
    assert attention_weights(make_model(), IDS) is None
    explanation = make_explanation("a great film", pooling="attention")
    assert "attention" in render(explanation, colors=False)
    assert len(draw(explanation).axes) == len(draw(make_explanation("a great film")).axes) + 1


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_views_of_hostile_texts(text, tmp_path):
    # As hostile class names, every second time.
    names = ("b\x1b[1mad", "so so", "<i>good</i>" * 9) if len(text) % 2 else ("neg", "pos")
    explanation = make_explanation(text, names)
    plain, colored = render(explanation, colors=False), render(explanation, colors=True)
    assert "\x1b" not in plain
    for shown_text in (plain, re.sub(r"\x1b\[[\d;]*m", "", colored)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]", shown_text)
        assert max(map(width, shown_text.split("\n"))) <= 80
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(draw(explanation), tmp_path / "explain.png")
    assert (tmp_path / "explain.png").read_bytes().startswith(b"\x89PNG")
    write_explanation(tmp_path / "explain.html", explanation, origin="runs/<x>")
    page = (tmp_path / "explain.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2 and "<b onmouseover" not in page and "runs/<x>" not in page
    assert "http" not in page  # nothing from elsewhere
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    num_words = len(explanation.words)
    assert page.count('class="word') == num_words == len(data["ids"])
    assert len(data["gates"]) == 2 and len(data["gates"][1]["forget"]) == num_words
    np.testing.assert_allclose(data["attribution"], explanation.attribution.values, atol=1e-4)
    curves = [1] if len(names) == 2 else np.argsort(-explanation.probabilities)
    for place, curve in zip(curves, data["opinion"], strict=True):
        expected = explanation.prefixes.at_words()[:, place]
        np.testing.assert_allclose(curve["values"], expected, atol=1e-4)


def test_the_terminal_marks_the_strongest_words():
    explanation = make_explanation("the film was not great, was it? Zzz")
    strongest = int(np.abs(explanation.attribution.values).argmax())
    mark = "++" if explanation.attribution.values[strongest] > 0 else "--"
    text = render(explanation, colors=False)
    assert f"{mark}{explanation.words.written[strongest]}{mark}" in text
    assert "10 words\n3 unknown: it, ?, Zzz" in text
    colored = render(explanation, colors=True)
    assert re.search(r"\x1b\[4(;38;5;16;48;5;\d+)?mZzz\x1b\[0m", colored)
    assert mark not in colored.split("\n\n")[1]


def test_colors_are_for_terminals_that_want_them(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colors(Terminal()) and not wants_colors(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colors(Terminal())


def test_a_long_text_shows_its_strongest_part():
    explanation = make_explanation("the film was a dull " * 50 + "great")
    part = explanation.strongest_part(50)
    sizes = np.abs(explanation.attribution.values)
    best = max(sizes[start : start + 50].sum() for start in range(len(sizes) - 49))
    assert sizes[part].sum() == pytest.approx(best)
    assert explanation.strongest_part(251) == slice(0, 251)
    titles = [axes.get_title(loc="left") for axes in draw(explanation).axes]
    assert titles[0].startswith("prediction over the whole text")


TEXT = "A great film, but not a moving one."


COMMAND_WORDS = Counter({"great": 4, "film": 3, "a": 3, ",": 2, "not": 2})


def make_run(path: Path, names=("neg", "pos"), **model) -> Path:
    data = DataConfig(max_length=50)
    return untrained_run.make_run(path, names, words=COMMAND_WORDS, data=data, **model).path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("explain") / "run")


def explain_by_command(*arguments) -> int:
    return cli.main(["explain", *map(str, arguments)])


def test_a_text_is_explained(run, capsys):
    assert explain_by_command(run, TEXT) == 0
    printed = capsys.readouterr().out
    prediction = load(run).predict([TEXT])[0]
    assert printed.startswith(f"{prediction.label} {prediction.probability:.1%}   (")
    assert "10 words\n4 unknown: but, moving, one, ." in printed
    assert "\x1b" not in printed  # no terminal here
    (folder,) = (run / "explanations").iterdir()
    assert folder.name.startswith("a-great-film-but-not-a-moving-one-")
    assert sorted(path.name for path in folder.iterdir()) == ["explain.html", "explain.png"]
    for name in ("explain.html", "explain.png"):
        assert str(folder / name) in printed


def test_the_library_says_what_the_predictor_says(run):
    predictor = load(run)
    explanation = explain(predictor, TEXT)
    assert explanation.probabilities == pytest.approx(
        predictor.predict([TEXT])[0].probabilities, abs=1e-6
    )
    with pytest.raises(TypeError, match="text is list, but must be a string"):
        explain(predictor, [TEXT])  # type: ignore[arg-type]


def test_texts_of_different_ends_have_folders_of_their_own(run):
    for end in ("one", "two"):
        assert explain_by_command(run, "So it goes. " * 9 + end, "--steps", 5) == 0
    assert len(list((run / "explanations").glob("so-it-goes*"))) == 2
    for text in ("fine film", "FINE film", "fine  film", "fine-film"):
        assert explain_by_command(run, text, "--steps", 5) == 0
    assert len(list((run / "explanations").glob("fine-film*"))) == 4


@pytest.mark.parametrize("text", ["", "🎬", "../../x", "a\x1b[31m\x00b", "great " * 100_000])
def test_odd_texts_are_explained(run, text, tmp_path, capsys):
    assert explain_by_command(run, text, "--steps", 5) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x00" not in printed
    if len(text) > 100:
        assert "50 words read of 100,000: 99,950 cut off" in printed
    assert all(path.parent.name == "explanations" for path in (run / "explanations").glob("*"))


@pytest.mark.parametrize(
    "settings",
    [{"cell": "gru"}, {"pooling": "attention"}, {"learned_initial_state": True}, {"num_layers": 2}],
)
def test_runs_of_other_settings_and_classes_are_explained(settings, tmp_path, capsys):
    path = make_run(tmp_path / "run", ("one", "two", "three"), **settings)
    assert explain_by_command(path, TEXT, "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert all(f"P({name})" in printed for name in ("one", "two", "three"))
    label = printed.split()[0]
    assert f"for not {label}" in printed and f"score, logit of {label}:" in printed
    assert (tmp_path / "out" / "explain.html").is_file()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_row_of_a_file_is_explained(run, ending, tmp_path, capsys):
    texts = ["first film", 'second\nfilm, "great"', "third"]
    path = write(tmp_path / f"reviews.{ending}", {"text": texts})
    assert explain_by_command(run, "--file", path, "--row", 2, "--steps", 2) == 0
    assert '6 words\n3 unknown: second, "' in capsys.readouterr().out
    assert (run / "explanations" / "reviews-2" / "explain.html").is_file()
    message = refusal([run, "--file", path, "--row", 4], capsys, "explain")
    assert f"{path} has 3 rows, but --row asks for 4" in message


def test_bad_files_and_places_are_told_in_one_line(run, tmp_path, capsys):
    (tmp_path / "column.csv").write_text("id,rezension\n1,a great film\n")
    (tmp_path / "file").write_text("x")
    for options, message in {
        ("--file", tmp_path / "none.csv", "--row", 1): "there is no file",
        ("--file", tmp_path / "column.csv", "--row", 1): "set --text-column rezension",
        (TEXT, "--output", tmp_path / "file"): "is a file: choose another folder",
        (TEXT, "--checkpoint", "last"): "last",
    }.items():
        assert message in refusal([run, *options], capsys, "explain")
