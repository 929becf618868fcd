"""A range test of the learning rate as picture, JSON, TensorBoard's curves and words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from sentiment.evaluation.board import add_picture
from sentiment.pictures import COLORS, new_figure, save_figure
from sentiment.places import write_json
from sentiment.training.range_curve import RangeTest, Suggestions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = "find-lr"
_ENOUGH = 200  # updates from which on a suggestion stands without a warning
_FAINT = "#9aa0a6"
_MOST_SHOWN = 1.25  # times the loss at the beginning: a diverging one would flatten all others


def draw_range(test: RangeTest, suggestions: Suggestions | None) -> Figure:
    """The loss over the learning rate, with the suggestions marked."""
    figure, axes = new_figure(6.0, 3.8)
    axes.plot(test.learning_rates, test.losses, color=_FAINT, linewidth=0.7, label="of each batch")
    axes.plot(test.learning_rates, test.smoothed, color=COLORS[0], label="smoothed")
    if suggestions is not None:
        marks = (
            (suggestions.steepest, "o", "steepest fall"),
            (suggestions.tenth_of_minimum, "s", "a tenth of the rate of the lowest loss"),
        )
        for color, (rate, marker, name) in zip(COLORS[1:], marks, strict=False):
            place = _nearest(test, rate)
            axes.axvline(rate, color=color, linestyle=":", linewidth=1)
            label = f"{name}: {as_setting(rate)}"
            axes.plot(rate, test.smoothed[place], marker, color=color, label=label)
    top = _MOST_SHOWN * test.smoothed[0]
    lowest = min(min(test.smoothed), sorted(test.losses)[len(test.losses) // 20])
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0.95 * lowest, top))
    axes.set_title("Learning-rate range test")
    axes.legend(loc="lower left")
    return figure


def write_range(folder: Path, test: RangeTest, suggestions: Suggestions | None) -> Path:
    """Write all files of a range test in place of an earlier one's; returns the picture's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(test.learning_rates, test.losses, test.smoothed, strict=True)
    values = {
        "end": test.end,
        "steepest": suggestions and suggestions.steepest,
        "minimum": suggestions and suggestions.minimum,
        "tenth_of_minimum": suggestions and suggestions.tenth_of_minimum,
        "points": [
            {"learning_rate": rate, "loss": loss, "smoothed": smoothed}
            for rate, loss, smoothed in rows
        ],
    }
    write_json(folder / f"{_NAME}.json", values)
    picture = folder / f"{_NAME}.svg"
    save_figure(draw_range(test, suggestions), picture)
    _write_board(folder / "tensorboard", test, draw_range(test, suggestions))
    return picture


def range_text(test: RangeTest, suggestions: Suggestions | None) -> str:
    """What the test found, and what to do with it."""
    first, last = test.learning_rates[0], test.learning_rates[-1]
    found = f"{len(test.losses)} updates, learning rate {first:.2g} to {last:.2g}: {test.end}"
    if suggestions is None:
        return (
            f"{found}\nno suggestion: the loss did not fall. Where it rose at last, there were too "
            "few\nupdates to learn anything by: give more of them with --num_updates. Where it "
            "stayed\nas it was, give a higher --highest."
        )
    steepest, tenth = as_setting(suggestions.steepest), as_setting(suggestions.tenth_of_minimum)
    if len(test.losses) < _ENOUGH:
        found += "\nFew updates: take these rates with care, or give more with --num_updates."
    return (
        f"{found}\n\n"
        f"  a tenth of the rate of the lowest loss   --training.learning_rate {tenth}\n"
        f"  the rate of the steepest fall            --training.learning_rate {steepest}\n\n"
        "Begin with the smaller one; a schedule that falls, or a warm-up, bears the larger one."
    )


def as_setting(rate: float) -> str:
    """A rate in two digits: it is not known better."""
    return f"{rate:.1e}"


def _nearest(test: RangeTest, rate: float) -> int:
    return min(range(len(test.losses)), key=lambda place: abs(test.learning_rates[place] - rate))


def _write_board(path: Path, test: RangeTest, figure: Figure) -> None:
    for earlier in path.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(path)) as writer:
        for update, rate in enumerate(test.learning_rates, 1):
            writer.add_scalar(f"{_NAME}/learning_rate", rate, update)
            writer.add_scalar(f"{_NAME}/loss", test.losses[update - 1], update)
            writer.add_scalar(f"{_NAME}/smoothed_loss", test.smoothed[update - 1], update)
        add_picture(writer, _NAME, figure, 0)
