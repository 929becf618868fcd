"""The matrix and the coverage that come of files of vectors, and the files that are refused."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict

import pytest
import torch
from helpers.vectors_files import COUNTS, LINES, WORDS, load

from sentiment.data import vectors as archives


class TestMatrix:
    def test_rows_stand_at_their_words(self, write):
        matrix, _ = load(write(LINES))
        assert matrix.dtype == torch.float32
        assert matrix.shape == (6, 3)
        assert matrix[0].tolist() == [0, 0, 0]
        assert matrix[2:5].tolist() == [[1, 2, 3], [4, 5, 6], pytest.approx([-0.1, 0.5, 4])]

    def test_missing_words_have_the_deviation_of_the_found_ones_and_repeat(self, write):
        words = [*WORDS, *(f"missing{number}" for number in range(20_000))]
        counts = [1] * len(words)
        path = write(LINES)
        matrix, _ = load(path, words=words, counts=counts)
        again, _ = load(path, words=words, counts=counts)
        found = matrix[2:5]
        assert torch.equal(matrix, again)
        assert matrix[6:].std().item() == pytest.approx(found.std(correction=0).item(), rel=0.02)
        assert abs(matrix[6:].mean().item()) < 0.05
        assert matrix[1].abs().min() > 0  # <unk> is drawn like the others
        assert len(matrix[5:].unique(dim=0)) == len(matrix[5:])

    def test_special_words_of_the_file(self, write):
        matrix, coverage = load(write([*LINES, "<unk> 7 8 9", "<pad> 7 8 9"]))
        assert matrix[1].tolist() == [7, 8, 9]
        assert matrix[0].tolist() == [0, 0, 0]
        assert coverage.num_types == 4
        assert coverage.types_found == 3

    def test_words_that_are_not_ascii_or_no_text_at_all(self, write):
        words = ["<pad>", "<unk>", "naïve", "\x85", "\ud800"]
        matrix, coverage = load(write(["naïve 1 2 3", "\x85 4 5 6"]), words=words, counts=[1] * 5)
        assert matrix[2:4].tolist() == [[1, 2, 3], [4, 5, 6]]
        assert coverage.most_frequent_missed == ("\ud800",)

    def test_header_is_skipped_and_a_first_word_is_not(self, write):
        with_header, coverage = load(write(["4 3", *LINES]))
        assert coverage.num_malformed == 0
        assert torch.equal(with_header, load(write(LINES, "other.txt"))[0])
        one, coverage = load(write(["400 3", "good 1"]), words=[*WORDS[:5], "400"], dimension=1)
        assert one[2].item() == 1
        assert one[5].item() == 3


class TestCoverage:
    def test_counts_types_and_tokens(self, write):
        _, coverage = load(write(["good 1 2 3", "the 1 2 3", "zzz 1 2 3"]))
        assert (coverage.num_types, coverage.types_found) == (4, 2)
        assert (coverage.num_tokens, coverage.tokens_found) == (100, 50)
        assert coverage.most_frequent_missed == ("bad", "film")
        assert "2 of 4 words (50.0%), 50.0% of the training tokens" in coverage.summary()
        assert "'bad', 'film'" in coverage.summary()

    def test_names_the_twenty_most_frequent_words_missed(self, write):
        words = [*WORDS, *(f"missing{number}" for number in range(30))]
        _, coverage = load(write(LINES), words=words, counts=[*COUNTS, *range(1000, 1030)])
        expected = tuple(f"missing{number}" for number in range(29, 9, -1))
        assert coverage.most_frequent_missed == expected

    def test_is_json(self, write):
        _, coverage = load(write([*LINES, "odd"]))
        stored = json.loads(json.dumps(asdict(coverage)))
        assert stored["malformed_lines"] == [5]

    @pytest.mark.parametrize(
        "line",
        [
            b"good 1 2",
            b"good 1 2 3 4",
            b"good 1 2 nan",
            b"good 1 2 -inf",
            b"good 1 2 1e39",  # infinite in float32
            b"good 1 2 three",
            b"good 1  3",
            b"good",
            b"\xff\xfe 1 2 3",
            b"good " + b"1" * (archives.MAX_LINE_BYTES + 1) + b" 2 3",
            b"\x00",
        ],
    )
    def test_malformed_lines_are_left_out_and_named(self, write, line):
        path = write(b"bad 4 5 6\n" + line + b"\nfilm 7 8 9\n")
        matrix, coverage = load(path)
        assert matrix[3:5].tolist() == [[4, 5, 6], [7, 8, 9]]
        assert coverage.types_found == 2
        assert coverage.num_malformed == 1
        assert coverage.malformed_lines == (2,)
        assert "malformed lines left out: 1 (2)" in coverage.summary()

    def test_many_malformed_lines_are_counted_and_the_first_named(self, write):
        _, coverage = load(write([*LINES, *(f"word{number}" for number in range(2_000))]))
        assert coverage.num_malformed == 2_000
        assert coverage.malformed_lines == tuple(range(5, 15))
        assert coverage.summary().endswith("13, 14, …)")


class TestRefusals:
    def test_another_dimension_is_named_before_all_is_read(self, write, tmp_path):
        # The end of this file cannot be read: the verdict must have come before.
        packed = gzip.compress("".join(f"w{n} 1 2 3\n" for n in range(900_000)).encode())
        with pytest.raises(ValueError, match="holds 3-dimensional"):
            load(write(packed[:-8], "vectors.gz"), dimension=50)

    def test_half_of_another_dimension_is_no_contradiction(self, write):
        _, coverage = load(write(["good 1 2 3", "bad 1 2"]))
        assert coverage.num_malformed == 1

    @pytest.mark.parametrize("content", ["", "\n\n", "400000 3\n"])
    def test_empty_file(self, write, content):
        with pytest.raises(ValueError, match=r"vectors\.txt holds no vectors: it is empty"):
            load(write(content))

    def test_no_word_found(self, write):
        with pytest.raises(ValueError, match=r"none of the 4 words .* 2 lines .* left out: 1"):
            load(write(["GOOD 1 2 3", "<unk> 1 2 3", "odd"][1:]))

    def test_missing_file_and_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no vectors file .*absent.* --vectors\.path"):
            load(tmp_path / "absent.txt")
        with pytest.raises(FileNotFoundError, match="no vectors file"):
            load(tmp_path)
