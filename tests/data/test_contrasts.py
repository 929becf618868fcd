"""Contrast texts: clauses of reviews, negated and set against one another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.review_files import write
from helpers.trainings import arguments, read_epochs, refusal, stop_after, train

from sentiment.cli import main as cli
from sentiment.config.config import Config
from sentiment.data.batches import add_excerpts, encode
from sentiment.data.contrasts import add_contrasts
from sentiment.data.pipeline import TrainingData
from sentiment.data.tokenizer import Tokenizer
from sentiment.data.vocabulary import build_vocabulary, count_tokens, number_lexicon
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.training.context import TrainingContext
from sentiment.training.distillation import SoftLabels
from sentiment.training.objectives import MicroBatches

# "story", "was" and "is" are in both.
PRAISE = "Yes, the story is charming. We saw the story."
BLAME = "I think the dialogue was boring, and we left the story! The music is not catchy."
USELESS = {
    "negated": ("The acting is never boring.", 0),
    "of both classes": ("The acting is charming to the boring.", 1),
    "of the other class": ("The acting is boring.", 1),
    "genitive": ("The author's charming wife came.", 1),
    "too far": ("The acting is what you would call charming.", 1),
    "too short": ("It charming.", 1),
    "too long": ("The acting is charming " + "then the acting " * 6, 1),
    "without a subject": ("Is charming today.", 1),
    "question": ("The acting is charming?", 1),
    "condition": ("If the acting is charming, go.", 1),
    "unfinished": ("The acting is charming of the", 1),
}


def make(
    texts, labels, *, per_review=3, max_length=100, seed=0, lower_case=True, keep="head",
    knows=True, leaves_out=None,
):  # fmt: skip
    """The rows beyond the reviews as (words, label, review), and the corpus with them."""
    tokenized = Tokenizer(lower_case=lower_case)(texts)
    counts = count_tokens(tokenized)
    counts.update(["but", "although", "n't", "never"] if knows else [])
    del counts[leaves_out]
    vocabulary = build_vocabulary(counts)
    ids = number_lexicon(vocabulary, tokenized.lexicon)
    corpus = encode(tokenized, ids, np.array(labels), max_length=100, keep=keep)
    corpus = add_excerpts(corpus, tokenized, per_review=1, max_length=100, seed=0)
    num_rows = len(corpus)
    corpus = add_contrasts(
        corpus, tokenized, vocabulary, per_review=per_review, max_length=max_length, seed=seed
    )
    rows = []
    for row in range(num_rows, len(corpus)):
        batch = corpus.batch(torch.tensor([row]))
        words = " ".join(vocabulary.itos[token] for token in batch.tokens[0].tolist())
        rows.append((words, batch.labels.item(), corpus.reviews_of(batch.indices).item()))
    return rows, corpus


def test_clauses_alone_negated_and_set_against_one_another():
    rows, corpus = make([PRAISE, BLAME] * 25, [1, 0] * 25, knows=False)
    assert len(rows) == 150 and {review for _, _, review in rows} == {-1}
    good, bad = "the story is charming", "i think the dialogue was boring"
    texts = {}
    for words, label, _ in rows:
        texts.setdefault(label, set()).add(words)
    turns = ["{} , <unk> {} .", "{} . <unk> {} .", "<unk> {} , {} ."]
    assert texts[1] == {
        f"{good} .", "i think the dialogue was not boring .",
        "i think the dialogue was <unk> boring .",
        *(turn.format(bad, good) for turn in turns), f"{good} , <unk> {bad} .",
    }  # fmt: skip
    assert texts[0] == {
        f"{bad} .", "the story is not charming .", "the story is <unk> charming .",
        *(turn.format(good, bad) for turn in turns), f"{bad} , <unk> {good} .",
    }  # fmt: skip
    assert sum(label for _, label, _ in rows) == 75
    assert corpus.num_reviews == 50
    by_clause = [[label for _, label, _ in rows[first : first + 3]] for first in range(0, 150, 3)]
    assert all(labels in ([1, 0, 1], [0, 1, 0]) for labels in by_clause)


@pytest.mark.parametrize("name", USELESS)
def test_clauses_without_a_clear_opinion_are_left_out(name):
    text, label = USELESS[name]
    usual = make([PRAISE, BLAME] * 25, [1, 0] * 25, per_review=6)[0]
    rows = make([*[PRAISE, BLAME] * 25, text], [*[1, 0] * 25, label], per_review=6)[0]
    assert {words for words, _, _ in rows} == {words for words, _, _ in usual}


def test_words_of_the_vocabulary_are_written_in_full():
    short = "It's charming, the story. I left, yes, and we saw the story."
    rows, _ = make([PRAISE, BLAME, short] * 100, [1, 0, 1] * 100)
    texts = {words: label for words, label, _ in rows}
    assert texts["it 's charming ."] == 1
    assert texts["it 's not charming ."] == texts["it 's never charming ."] == 0
    assert "it 's n't charming ." not in texts
    assert texts["the story is n't charming ."] == 0
    assert texts["although it 's charming , i think the dialogue was boring ."] == 0
    assert texts["it 's charming , but i think the dialogue was boring ."] == 0
    assert texts["it 's charming . but i think the dialogue was boring ."] == 0
    assert texts["it 's charming , although i think the dialogue was boring ."] == 1


@pytest.mark.parametrize(
    ("num_own", "num_other", "num_reviews", "is_opinion"),
    [
        (95, 50, 200, True),  # 1.9 times as frequent
        (94, 50, 200, False),
        (42, 15, 100, True),
        (40, 15, 100, False),  # by less than four standard errors
        (20, 0, 200, True),
    ],
)
def test_opinion_words_are_far_more_frequent_in_a_class(
    num_own, num_other, num_reviews, is_opinion
):
    usual, praise, blame = "We left the story.", "The story is charming.", "The story was boring."
    of_class = [f"{usual} {praise}"] * num_own + [usual] * (num_reviews - num_own)
    others = [f"{usual} {blame} Charming."] * num_other
    others += [f"{usual} {blame}"] * (num_reviews - num_other)
    rows, _ = make([*of_class, *others], [1] * num_reviews + [0] * num_reviews)
    assert any(words == "the story is charming ." for words, _, _ in rows) == is_opinion
    assert bool(rows) == is_opinion  # no clause without one of the other class


def test_texts_are_not_longer_than_reviews():
    rows, corpus = make([PRAISE, BLAME] * 25, [1, 0] * 25, max_length=7)
    assert {len(words.split()) for words, _, _ in rows} == {5, 6, 7}
    assert int(corpus.lengths[-len(rows) :].max()) == 7


def test_a_word_out_of_the_vocabulary_is_no_opinion():
    rows, _ = make([PRAISE, BLAME] * 25, [1, 0] * 25, leaves_out="boring")
    assert rows == []


def test_both_classes_have_equally_many():
    rows, _ = make([PRAISE] * 60 + [BLAME] * 20, [1] * 60 + [0] * 20)
    assert len(rows) == 120 and sum(label for _, label, _ in rows) == 60


def test_rows_before_them_stay_and_seeds_choose():
    texts, labels = [PRAISE, BLAME] * 25, [1, 0] * 25
    few, corpus = make(texts, labels, per_review=1, seed=1, keep="head+tail")
    assert len(few) == 48  # in threes
    assert few == make(texts, labels, per_review=1, seed=1, keep="head+tail")[0]
    assert few != make(texts, labels, per_review=1, seed=2)[0]
    alone = make(texts, labels, per_review=0, keep="head+tail")[1]
    for row in range(len(alone)):
        before, after = (each.batch(torch.tensor([row])) for each in (alone, corpus))
        assert torch.equal(before.tokens, after.tokens) and before.labels == after.labels
    assert torch.equal(alone.reviews, corpus.reviews[: len(alone)])


def test_capitals_do_not_matter():
    rows, _ = make([PRAISE.upper(), BLAME.upper()] * 25, [1, 0] * 25, lower_case=False)
    assert ("THE STORY IS CHARMING .", 1, -1) in rows


def test_they_learn_their_own_labels_where_reviews_learn_soft_ones():
    _, corpus = make([PRAISE, BLAME] * 25, [1, 0] * 25)
    known = SoftLabels(unlabelled=None, labelled=torch.rand(50, 2))
    data = TrainingData(corpus, corpus, None, None, None, None, soft_labels=known)
    context = TrainingContext(Config(), Path("unused"), torch.device("cpu"), torch.float32)
    [micro_batch], _ = MicroBatches(data, context).of_update(0, [torch.arange(len(corpus))])
    num_with_reviews = len(corpus) - 150
    reviews = corpus.reviews[:num_with_reviews]
    assert torch.equal(micro_batch.soft_labels[:num_with_reviews], known.labelled[reviews])
    own = torch.nn.functional.one_hot(corpus.labels[num_with_reviews:], 2).float()
    assert torch.equal(micro_batch.soft_labels[num_with_reviews:], own)


def write_reviews(folder: Path, num_classes: int = 2) -> Path:
    """Reviews with a clause each, of which no two are the same."""
    for split, num_reviews in (("train", 60), ("validation", 12)):
        numbers = range(num_reviews)
        texts = [f"{(BLAME, PRAISE)[n % 2]} {split} {n}." for n in numbers]
        labels = [("neg", "pos", "mixed")[n % num_classes] for n in numbers]
        write(folder / f"{split}.csv", {"text": texts, "label": labels})
    return folder


def test_a_training_with_them_resumes_exactly(tmp_path):
    folder = write_reviews(tmp_path / "reviews")
    more = ["--training.contrasts=2", "--distillation.labelled=0.5", "--training.pieces=1"]
    whole = train(folder, tmp_path / "whole", *more)
    assert "contrast texts: 120" in (whole / "train.log").read_text(encoding="utf-8")
    broken = tmp_path / "broken"
    stop_after(arguments(folder, broken, *more), 7)
    assert cli.train([f"--resume={broken}"]) == 0
    difference = compare_runs(whole, broken)
    assert difference.is_equal and difference.num_points > 5, difference
    without = train(folder, tmp_path / "without", *more[1:])
    losses = [read_epochs(run)[-1]["validation"]["nll"] for run in (whole, without)]
    assert losses[0] != losses[1]


def test_three_classes_have_no_opposites(tmp_path, capsys):
    folder = write_reviews(tmp_path / "reviews", num_classes=3)
    command = arguments(folder, tmp_path / "run", "--training.contrasts=1")
    message = refusal(command, capsys)
    assert "training.contrasts is 1, which needs two opposite classes, but there are 3" in message
    assert cli.train([*command, "--training.contrasts=0"]) == 0


def test_few_clauses_are_warned_of(tmp_path):
    folder = tmp_path / "reviews"
    for split, num_reviews in (("train", 40), ("validation", 10)):
        texts = [f"{('Boring', 'Charming')[n % 2]} story, {split} {n}." for n in range(num_reviews)]
        write(
            folder / f"{split}.csv", {"text": texts, "label": ["neg", "pos"] * (num_reviews // 2)}
        )
    run = train(folder, tmp_path / "run", "--training.contrasts=1")
    log = (run / "train.log").read_text(encoding="utf-8")
    assert "contrast texts: 0" in log and "asks for 40 contrast texts, but too few" in log
