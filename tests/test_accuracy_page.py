"""docs/accuracy.md shows the results of its trainings, and its recipes have valid settings."""

from __future__ import annotations

import json

from helpers.corpus import ROOT

from sentiment.config.parser import parse_training, save_config
from studies import ablation, fill
from studies.ablation import PAGE, RESULTS, VARIANTS, draw, table


def test_the_page_holds_the_results():
    page = PAGE.read_text(encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    assert set(results) <= set(VARIANTS)
    assert fill(page, table(results)) == page, "run python -m studies.ablation"


def test_means_and_deviations():
    runs = {
        seed: {
            "accuracy": accuracy, "best_epoch": 2, "num_epochs": 4, "seconds": 60.0 * minutes,
            "revision": "abc", "nll": accuracy - 0.7, "curve": [0.5, accuracy],
            "seconds_before": 120.0 if seed == "1" else 0.0,
        }
        for seed, accuracy, minutes in (("0", 0.90, 5), ("1", 0.92, 6), ("2", 0.91, 7))
    }  # fmt: skip
    last = table({"imdb": runs}).splitlines()[-1]
    assert "0: 90.00, 1: 92.00, 2: 91.00 % | 91.00 ± 1.00 %" in last
    assert "| 0.2100 | 2 of 4, 2 of 4, 2 of 4 | 5, 2 + 6, 7 | abc | imdb |" in last


def test_the_time_of_teachers_and_pretraining_is_added_to_a_run(tmp_path, monkeypatch, capsys):
    def write(name: str, seed: int, units: int = 256, **values: object) -> None:
        folder = tmp_path / name
        folder.mkdir()
        result = {"metrics": {"accuracy": 0.5 + seed / 100, "nll": 0.2}, "seconds": 60.0,
                  "best_epoch": 1, "num_epochs": 1}  # fmt: skip
        described = {"seed": seed, "device": "cpu", "versions": {"torch": "2"}, "result": result}
        (folder / "run.json").write_text(json.dumps(described | values))
        given = [f"--config={ROOT}/configs/imdb_semi.yaml", f"--model.hidden_size={units}"]
        save_config(parse_training(given, "test").config, folder / "config.yaml")
        epochs = {"epochs": [{"validation": {"accuracy": 0.5 + seed / 100}}]}
        (folder / "metrics.json").write_text(json.dumps(epochs))

    write("words-semi", 0, kind="language model")
    words = {"path": str(tmp_path / "words-semi")}
    taught = [{"path": str(tmp_path / f"semi-taught-seed-0-teacher-{n}")} for n in (1, 2)]
    for number in (1, 2):
        write(f"semi-taught-seed-0-teacher-{number}", number, pretraining=words)
    write("semi-taught-seed-0", 0, pretraining=words, teachers=taught)
    write("semi-seed-1", 1, result=None)
    write("semi-seed-3", 3, units=512)
    page = tmp_path / "page.md"
    page.write_text("<!-- figures -->\n<!-- end of figures -->\n")
    monkeypatch.setattr(ablation, "PAGE", page)
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(ablation, "draw", lambda results: draw(results, tmp_path / "a.svg"))
    given = ["ablation", "--data=x", "--vectors=x", f"--runs={tmp_path}", "--seeds"]
    monkeypatch.setattr("sys.argv", given)
    ablation.main()
    results = json.loads((tmp_path / "results.json").read_text())
    seeds = {name: list(runs) for name, runs in results.items()}
    assert seeds == {"semi-taught": ["0"], "semi": ["1", "2"]}
    assert "semi-seed-3 is left out: its model.hidden_size differs" in capsys.readouterr().out
    assert results["semi-taught"]["0"]["seconds_before"] == 180
    assert results["semi"]["2"]["seconds_before"] == 60
    assert "1: 51.00, 2: 52.00 % | 51.50 ± 0.71 %" in page.read_text()
    assert ">semi-taught</text>" in (tmp_path / "a.svg").read_text()


def test_every_variant_has_valid_settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    for variant in VARIANTS.values():
        config = parse_training(
            [f"--config=configs/{variant.config}.yaml", *variant.options], "test"
        ).config
        assert config.model.embedding_size == variant.dimension
