"""Coverage data: no prompt is in two splits, and a prompt's place depends on itself and the seed alone.

Duplicates are refused with both places; a split that the run needs and that is empty is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamaduo.config import Data, DataSource, Experiment, GateSplit
from llamaduo.data import coverage
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import CoverageDataset
from llamaduo.data.splits import SPLITS
from llamaduo.errors import InputError, ServiceError
from llamaduo.pocket.tasks import make_pairs

Load = Callable[..., CoverageDataset]


def write(rows: Iterable[dict[str, Any]], name: str = "pairs.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"prompt": f"prompt number {n}", "response": f"response {n}"} for n in range(start, start + count)]


@pytest.fixture
def load(experiment: Experiment) -> Load:
    """Return a function that loads the file `pairs.jsonl`, split as the fields of `Data` say."""

    def loaded(gate: GateSplit = GateSplit.dev, **data: Any) -> CoverageDataset:
        experiment.data = Data(**{"source": DataSource.file, "path": "pairs.jsonl"} | data)
        experiment.protocol.gate_split = gate
        return load_coverage(experiment)

    return loaded


def prompts(dataset: CoverageDataset) -> dict[str, set[str]]:
    return {name: {row.prompt for row in getattr(dataset, name)} for name in SPLITS}


def sizes(dataset: CoverageDataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.dev), len(dataset.test)


def assert_disjoint(dataset: CoverageDataset, total: int) -> None:
    assert len({row.prompt_id for name in SPLITS for row in getattr(dataset, name)}) == sum(sizes(dataset)) == total


class TestSplitByFraction:
    def test_no_prompt_is_in_two_splits_and_none_is_lost(self, load: Load) -> None:
        write(pairs(400))
        dataset = load()
        assert_disjoint(dataset, 400)
        assert 30 <= len(dataset.dev) <= 90
        assert 30 <= len(dataset.test) <= 90

    def test_rows_added_later_move_no_other_row(self, load: Load) -> None:
        write(pairs(100, start=50))
        before = prompts(load())
        write(reversed(pairs(300)))
        after = prompts(load())
        for name in SPLITS:
            assert before[name] < after[name]

    def test_the_order_of_the_file_does_not_matter(self, load: Load) -> None:
        write(pairs(60))
        before = load()
        write(reversed(pairs(60)))
        after = load()
        assert prompts(before) == prompts(after)
        assert before.train == after.train

    def test_another_seed_is_another_split(self, load: Load) -> None:
        write(pairs(100))
        assert load(seed=1) == load(seed=1)
        assert prompts(load(seed=1)) != prompts(load(seed=2))

    def test_more_training_rows_keep_those_of_fewer(self, load: Load) -> None:
        write(pairs(100))
        few, more = load(train_rows=10), load(train_rows=40)
        assert sizes(few)[0] == 10
        assert more.train[:10] == few.train
        assert (few.dev, few.test) == (more.dev, more.test)

    def test_a_category_keeps_its_rows_alone(self, load: Load) -> None:
        write({**row, "category": "Coding" if n % 2 else "Chat"} for n, row in enumerate(pairs(100)))
        dataset = load(category="Coding")
        assert_disjoint(dataset, 50)
        with pytest.raises(InputError, match=r"pairs\.jsonl: no row has category 'Poetry'"):
            load(category="Poetry")


class TestSplitByCount:
    def test_counts_are_kept(self, load: Load) -> None:
        write(pairs(50))
        dataset = load(dev_rows=7, test_rows=5)
        assert sizes(dataset) == (38, 7, 5)
        assert_disjoint(dataset, 50)
        assert sizes(load(dev_rows=7, test_rows=5, train_rows=9)) == (9, 7, 5)

    @pytest.mark.parametrize(("field", "place"), [("dev_rows", 1), ("test_rows", 2)])
    def test_one_count_alone_is_kept_too(self, field: str, place: int, load: Load) -> None:
        write(pairs(100))
        assert sizes(load(**{field: 7}))[place] == 7
        assert_disjoint(load(**{field: 7}), 100)

    def test_too_few_rows_are_refused(self, load: Load) -> None:
        write(pairs(10))
        with pytest.raises(InputError, match=r"the train split is empty \(train 0, dev 4, test 6\)"):
            load(dev_rows=6, test_rows=6)


ENDS = ("", ".", " please")


def requests_in_variants(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return rows of `count` requests, each with every ending."""
    about = "Ticket {n}: my invoice number {m} is wrong and the amount of week {n} is off, classify it{end}"
    prompts = [about.format(n=n, m=n * 7, end=end) for n in range(start, start + count) for end in ENDS]
    return [{"prompt": prompt, "response": "billing"} for prompt in prompts]


def asked(dataset: CoverageDataset) -> dict[str, list[str]]:
    """Return which request each row of each split is a variant of."""
    return {name: [row.prompt.split(":")[0] for row in getattr(dataset, name)] for name in SPLITS}


def twins(dataset: CoverageDataset) -> int:
    """Return how many dev and test rows have a variant of the same request in another split."""
    found = asked(dataset)
    return sum(
        request in {other for name in SPLITS if name != here for other in found[name]}
        for here in ("dev", "test")
        for request in found[here]
    )


class TestNearDuplicates:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("how", [{}, {"dev_rows": 40, "test_rows": 20}, {"dev_rows": 40}])
    def test_none_has_a_twin_in_another_split(self, seed: int, how: dict[str, int], load: Load) -> None:
        write(requests_in_variants(40))
        dataset = load(seed=seed, **how)
        assert twins(dataset) == 0
        assert_disjoint(dataset, 120)

    def test_forty_dev_prompts_of_forty_requests_have_none(self, load: Load) -> None:
        write(requests_in_variants(40))
        dataset = load(dev_rows=40, test_rows=20)
        assert sizes(dataset) == (57, 42, 21)  # whole requests, and no fewer rows than were asked for
        assert twins(dataset) == 0

    def test_a_cluster_has_one_name_that_is_one_of_its_prompts(self, load: Load) -> None:
        write([*requests_in_variants(20), *pairs(20)])
        dataset = load()
        rows = [row for name in SPLITS for row in getattr(dataset, name)]
        names: dict[str, set[str | None]] = {}
        for row in rows:
            names.setdefault(row.prompt.split(":")[0], set()).add(row.cluster)
        alike = {request: found for request, found in names.items() if request.startswith("Ticket")}
        assert len(alike) == len({name for found in alike.values() for name in found}) == 20
        assert all(found == {min(r.prompt_id for r in rows if r.cluster in found)} for found in alike.values())
        assert all(found == {None} for request, found in names.items() if request not in alike)

    def test_they_are_counted(self, load: Load) -> None:
        write([*requests_in_variants(20), *pairs(20)])
        (note,) = load().notes
        assert note.startswith("60 of 80 coverage rows are near-duplicates of others: together they are 40 requests")
        write(pairs(80))
        assert load().notes == ()

    def test_rows_that_are_added_move_only_what_they_are_alike_to(self, load: Load) -> None:
        write([*requests_in_variants(30), *pairs(60)])
        before = {row.prompt: name for name in SPLITS for row in getattr(load(), name)}
        write([*requests_in_variants(60), *pairs(120)])
        after = {row.prompt: name for name in SPLITS for row in getattr(load(), name)}
        assert before.items() <= after.items()
        write([*requests_in_variants(30), *pairs(60), {"prompt": "prompt number 5 please", "response": "r"}])
        joined = {row.prompt: name for name in SPLITS for row in getattr(load(), name)}
        assert joined["prompt number 5 please"] == joined["prompt number 5"]
        assert all(joined[prompt] == name for prompt, name in before.items() if prompt != "prompt number 5")

    def test_a_cluster_larger_than_what_is_missing_is_passed_over(self, load: Load) -> None:
        many = [
            {"prompt": f"Where is the parcel {'x' * n} that I sent on the first of May?", "response": "r"}
            for n in range(1, 9)
        ]
        write([*many, *pairs(40)])
        for seed in range(5):
            dataset = load(dev_rows=5, test_rows=5, seed=seed)
            assert sizes(dataset) == (38, 5, 5)
            assert sum("parcel" in row.prompt for row in dataset.train) == 8

    def test_where_all_are_too_large_a_whole_one_is_taken(self, load: Load) -> None:
        write(requests_in_variants(20))
        assert sizes(load(dev_rows=4, test_rows=1)) == (51, 6, 3)

    def test_an_instruction_that_all_prompts_have_makes_no_twins(self, load: Load) -> None:
        instruction = " ".join(f"rule{n}" for n in range(200))
        write({"prompt": f"{instruction} {row['prompt']}", "response": "r"} for row in pairs(80))
        dataset = load()
        assert dataset.notes == ()
        assert all(row.cluster is None for name in SPLITS for row in getattr(dataset, name))

    def test_rows_with_a_split_of_their_own_stay_and_are_counted(self, load: Load) -> None:
        rows = [
            {**row, "split": "dev" if n % 3 == 0 and n < 15 else "test" if n > 104 else "train"}
            for n, row in enumerate(requests_in_variants(40))
        ]
        write(rows)
        dataset = load()
        assert sizes(dataset) == (100, 5, 15)
        assert twins(dataset) == 5
        assert dataset.notes[1].startswith("5 of 20 dev and test rows have a near-duplicate in another split")

    @pytest.mark.parametrize("task", ["classification", "closed_qa", "summarization", "coding"])
    def test_pocket_tickets_are_all_different(self, task: str, experiment: Experiment) -> None:
        experiment.data = Data(DataSource.pocket, train_rows=64, dev_rows=64, test_rows=64)
        experiment.task.name = task
        dataset = load_coverage(experiment)
        assert sizes(dataset) == (64, 64, 64)
        assert dataset.notes == ()


class TestSplitByName:
    def test_a_split_column_decides(self, load: Load) -> None:
        names = ["train", "dev", "test", "train", "test", "train"]
        write({**row, "split": name} for row, name in zip(pairs(6), names, strict=True))
        dataset = load()
        assert [row.prompt for row in dataset.train] == ["prompt number 0", "prompt number 3", "prompt number 5"]
        assert [row.prompt for row in dataset.dev] == ["prompt number 1"]
        assert [row.prompt for row in dataset.test] == ["prompt number 2", "prompt number 4"]

    @pytest.mark.parametrize("name", ["validation", "Train", "", None, 1])
    def test_a_row_with_another_name_or_none_is_left_out(self, name: Any, load: Load) -> None:
        rows = [{**row, "split": split} for row, split in zip(pairs(3), ("train", "dev", "test"), strict=True)]
        write([*rows, {**pairs(1, 3)[0], "split": name}])
        with pytest.raises(InputError, match=r"pairs\.jsonl:4: `split` is none of train, dev and test"):
            load(strict=True)
        dataset = load()
        assert sizes(dataset) == (1, 1, 1)
        assert [one.place for one in dataset.unused] == ["pairs.jsonl:4"]

    def test_rows_that_all_have_another_name_are_refused(self, load: Load) -> None:
        write({**row, "split": "other"} for row in pairs(2))
        with pytest.raises(InputError, match=r"pairs\.jsonl:1: `split` is 'other'; every row needs train, dev or test"):
            load()

    def test_one_row_with_a_name_among_rows_without_is_left_out(self, load: Load) -> None:
        write([*pairs(60), {**pairs(1, 60)[0], "split": ["other"]}])
        dataset = load()
        assert_disjoint(dataset, 60)
        assert [one.place for one in dataset.unused] == ["pairs.jsonl:61"]

    def test_a_number_of_training_rows_is_kept_here_too(self, load: Load) -> None:
        write({**row, "split": ("train", "dev", "test")[n % 3]} for n, row in enumerate(pairs(30)))
        assert sizes(load(train_rows=4)) == (4, 10, 10)

    def test_the_same_prompt_in_two_named_splits_is_refused(self, load: Load) -> None:
        write([{**pairs(1)[0], "split": "train"}, {**pairs(1)[0], "split": "test"}])
        with pytest.raises(InputError, match="the same prompt as"):
            load()

    @pytest.mark.parametrize("odd", [{}, {"split": None}, {"split": "TRAIN"}, {"split": ["other"]}])
    def test_the_same_prompt_again_without_a_split_is_left_out(self, load: Load, odd: dict[str, Any]) -> None:
        named = [{**row, "split": ("train", "dev", "test")[n % 3]} for n, row in enumerate(pairs(30))]
        write([*named, {**pairs(1)[0], **odd}])
        dataset = load()
        assert_disjoint(dataset, 30)
        assert [one.reason for one in dataset.unused] == [coverage.AGAIN]


class TestDuplicates:
    def test_the_first_is_kept_and_strictly_both_places_are_named(self, load: Load) -> None:
        write([*pairs(60), {"prompt": "prompt  number\n3 ", "response": "another"}])
        with pytest.raises(InputError, match=r"^pairs\.jsonl:61: the same prompt as pairs\.jsonl:4; keep one"):
            load(strict=True)
        dataset = load()
        assert_disjoint(dataset, 60)
        assert {row.response for name in SPLITS for row in getattr(dataset, name)} == {
            f"response {n}" for n in range(60)
        }
        assert [one.reason for one in dataset.unused] == [coverage.AGAIN]

    def test_duplicates_of_another_category_do_not_matter(self, load: Load) -> None:
        rows = [{**row, "category": "a"} for row in pairs(40)]
        write([*rows, {**rows[0], "category": "b"}])
        assert_disjoint(load(category="a"), 40)


class TestEmptySplits:
    def test_an_empty_dev_split_is_refused_under_clean(self, load: Load) -> None:
        write([{**pairs(1)[0], "split": "train"}, {**pairs(1, 1)[0], "split": "test"}])
        with pytest.raises(InputError, match=r"the dev split is empty \(train 1, dev 0, test 1\): add rows, or change"):
            load(GateSplit.dev)

    def test_an_empty_dev_split_is_fine_where_test_is_the_gate(self, load: Load) -> None:
        write([{**pairs(1)[0], "split": "train"}, {**pairs(1, 1)[0], "split": "test"}])
        assert sizes(load(GateSplit.test)) == (1, 0, 1)

    def test_an_empty_test_split_is_refused_always(self, load: Load) -> None:
        write({**row, "split": ("train", "dev")[n % 2]} for n, row in enumerate(pairs(6)))
        for split in GateSplit:
            with pytest.raises(InputError, match="the test split is empty"):
                load(split)

    def test_a_few_rows_that_all_fall_into_one_split_are_refused(self, load: Load) -> None:
        write(pairs(1))
        with pytest.raises(InputError, match=r"the \w+ split is empty"):
            load()


class TestAccount:
    """What was read is used, or left out for a reason: the numbers come to the sum."""

    def lines(self, dataset: CoverageDataset) -> list[str]:
        assert dataset.account is not None
        left = sum(one.rows for one in dataset.account.left_out)
        assert dataset.account.read == sum(dataset.account.used.values()) + left
        return dataset.account.lines()

    def test_all_rows_used_is_one_line(self, load: Load) -> None:
        write(pairs(60))
        assert self.lines(load()) == ["data: 60 rows of pairs.jsonl, all used."]

    def test_categories_and_numbers_of_rows_and_columns(self, load: Load) -> None:
        write({**row, "category": "a" if n < 50 else "b", "id": n, "note": None} for n, row in enumerate(pairs(60)))
        assert self.lines(load(category="a", train_rows=20, dev_rows=5, test_rows=5)) == [
            "data: 60 rows of pairs.jsonl, 30 used, 30 left out:",
            "  10: another category than 'a'; first pairs.jsonl:51",
            "  20: more than data.train_rows, dev_rows and test_rows ask for; first pairs.jsonl:3",
            "  columns that are not read: id (50).",
        ]

    def test_a_csv_header_that_comes_again_is_no_row(self, load: Load) -> None:
        text = "".join(f"{row['prompt']},{row['response']}\n" for row in pairs(40))
        Path("pairs.csv").write_text(f"prompt,response\n{text}\ufeffprompt,response\nlast one,r\n")
        assert self.lines(load(path="pairs.csv")) == [
            "data: 42 rows of pairs.csv, 41 used, 1 left out:",
            "  1: the header of a CSV file, again; first pairs.csv:42",
        ]

    def test_every_prompt_has_its_place(self, load: Load) -> None:
        write(pairs(30))
        dataset = load()
        rows = {row.prompt: dataset.places[row.prompt_id] for name in SPLITS for row in getattr(dataset, name)}
        assert rows == {f"prompt number {n}": f"pairs.jsonl:{n + 1}" for n in range(30)}


def test_a_file_of_which_no_row_can_be_used_is_refused(load: Load) -> None:
    Path("pairs.jsonl").write_text('{"prompt": "p"}\n')
    with pytest.raises(InputError, match=r"^pairs\.jsonl: no row can be used \(1: no shape .*; first pairs\.jsonl:1"):
        load()
    with pytest.raises(InputError, match=r"^pairs\.jsonl:1: no shape of rows that is known: has prompt; needs"):
        load(strict=True)


def test_what_can_not_be_used_is_listed_and_the_others_are_read(load: Load) -> None:
    lines: list[bytes] = [json.dumps(row).encode() for row in pairs(60)]
    bad = {
        b'{"prompt": "p", "resp': "not JSON",
        b'{"prompt": "caf\xe9", "response": "r"}': "not UTF-8",
        b"[" * 100_000: "not JSON",
        b"[1, 2]": "a row must be an object with named fields",
        b'{"prompt": null, "response": 5}': "`prompt` and `response` must be text",
        b'{"text": "x", "sk-proj-0123456789abcdefABCDEF0123456789": 1}': "no shape of rows that is known",
        b'{"prompt": "p", "response": "r", "finish_reason": "length"}': "the answer is cut off (finish_reason: length)",
    }
    for at, line in enumerate(bad):
        lines.insert(8 * at, line)
    Path("pairs.jsonl").write_bytes(b"\n".join(lines))
    dataset = load()
    assert_disjoint(dataset, 60)
    assert [(one.place, one.reason) for one in dataset.unused] == [
        (f"pairs.jsonl:{8 * at + 1}", reason) for at, reason in enumerate(bad.values())
    ]
    excerpts = [one.excerpt for one in dataset.unused]
    assert excerpts[0] == '{"prompt": "p", "resp'
    assert len(excerpts[2]) < 70
    assert excerpts[4:6] == ["prompt, response", "text, [key]"]
    assert json.loads(dataset.unused[1].line())["line"] == 9


def test_the_pocket_tasks_are_split_by_the_counts(experiment: Experiment) -> None:
    experiment.data = Data(DataSource.pocket, train_rows=8, dev_rows=5, test_rows=4)
    made = make_pairs("classification", 17, experiment.data.seed)
    dataset = load_coverage(experiment)
    assert sizes(dataset) == (8, 5, 4)
    assert_disjoint(dataset, 17)
    assert {(row.prompt, row.response) for name in SPLITS for row in getattr(dataset, name)} == set(made)


class TestHub:
    """The Hub's client is replaced: what counts here is what becomes of its tables."""

    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
        tables: dict[str, list[dict[str, Any]]] = {}

        def load_dataset(path: str, *, split: str, revision: str) -> list[dict[str, Any]]:
            assert (path, revision) == ("org/data", "abc")
            return tables[split]

        def names(path: str, *, revision: str) -> list[str]:
            if not tables:
                raise OSError("no\nnetwork")
            return list(tables)

        fake = SimpleNamespace(load_dataset=load_dataset, get_dataset_split_names=names)
        monkeypatch.setitem(sys.modules, "datasets", fake)  # type: ignore[arg-type]
        return tables

    @pytest.fixture
    def load_hub(self, experiment: Experiment) -> Load:
        def loaded(**data: Any) -> CoverageDataset:
            known = {"source": DataSource.hub, "path": "org/data", "revision": "abc", "dev_rows": 3}
            experiment.data = Data(**known | data)
            return load_coverage(experiment)

        return loaded

    def test_the_hubs_test_split_stays_the_test_split(self, hub: dict[str, Any], load_hub: Load) -> None:
        hub |= {"train": pairs(20), "test": pairs(10, start=20)}
        dataset = load_hub(train_rows=8, test_rows=4)
        assert sizes(dataset) == (8, 3, 4)
        assert prompts(dataset)["test"] <= {row["prompt"] for row in pairs(10, start=20)}
        assert_disjoint(dataset, 15)
        assert sizes(load_hub()) == (17, 3, 10)

    def test_near_duplicates_of_the_hubs_test_rows_are_counted_and_stay(
        self, hub: dict[str, Any], load_hub: Load
    ) -> None:
        rows = requests_in_variants(20)
        hub |= {"train": [*rows[3:], *pairs(60)], "test": rows[:3] + pairs(5, start=60)}
        dataset = load_hub()
        assert sizes(dataset) == (114, 3, 8)
        assert twins(dataset) == 0
        hub["train"], hub["test"] = rows[2:], rows[:2]
        dataset = load_hub(dev_rows=6)
        assert {row.prompt for row in dataset.test} == {row["prompt"] for row in rows[:2]}
        assert dataset.notes[1].startswith(f"{twins(dataset)} of 8 dev and test rows have a near-duplicate in another")

    def test_without_a_test_split_one_is_taken_from_the_training_rows(
        self, hub: dict[str, Any], load_hub: Load
    ) -> None:
        hub["train_sft"] = pairs(60)
        assert sizes(load_hub(test_rows=5)) == (52, 3, 5)
        assert_disjoint(load_hub(dev_rows=None), 60)

    def test_a_prompt_in_two_splits_is_refused(self, hub: dict[str, Any], load_hub: Load) -> None:
        hub |= {"train": pairs(20), "test": pairs(3, start=19)}
        with pytest.raises(InputError, match=r"org/data test\[0\]: its prompt is in the split train too"):
            load_hub()

    def test_a_prompt_that_is_twice_in_a_split_is_not_in_train_and_dev(
        self, hub: dict[str, Any], load_hub: Load
    ) -> None:
        hub |= {"train": pairs(10) + pairs(10), "test": pairs(3, start=10)}
        for dev_rows in range(1, 6):
            try:
                dataset = load_hub(dev_rows=dev_rows)
            except InputError:
                continue
            assert not {row.prompt_id for row in dataset.train} & {row.prompt_id for row in dataset.dev}, dev_rows

    def test_splits_and_repeats_that_are_not_used_are_counted(self, hub: dict[str, Any], load_hub: Load) -> None:
        hub |= {
            "train": pairs(20) + pairs(2),
            "test": pairs(5, start=20),
            "validation": pairs(4, start=30),
            "test_prefs": pairs(3, start=40),
        }
        account = load_hub().account
        assert account is not None
        assert account.lines() == [
            "data: 34 rows of org/data@abc, 25 used, 9 left out:",
            "  2: the prompt of another row of the split: the first one is kept; first org/data train[20]",
            "  4: the split validation, which is neither train nor the first test split; first org/data validation[0]",
            "  3: the split test_prefs, which is neither train nor the first test split; first org/data test_prefs[0]",
        ]

    def test_a_split_column_of_one_table_decides(self, hub: dict[str, Any], load_hub: Load) -> None:
        names = ["train", "validation", "test", "train", "test", "Train"]
        hub["train"] = [{**row, "split": name} for row, name in zip(pairs(6), names, strict=True)]
        dataset = load_hub(dev_rows=None)
        assert {name: [row.prompt[-1] for row in getattr(dataset, name)] for name in SPLITS} == {
            "train": ["0", "3", "5"],
            "dev": ["1"],
            "test": ["2", "4"],
        }
        hub["train"] = [{**row, "split": "test" if n < 5 else "train"} for n, row in enumerate(pairs(40))]
        dataset = load_hub(test_least=0)
        assert {row.prompt for row in dataset.test} == {row["prompt"] for row in pairs(5)}
        assert len(dataset.dev) == 3
        hub["train"][7]["split"] = "other"
        with pytest.raises(InputError, match=r"org/data train\[7\]: `split` is 'other'"):
            load_hub()

    def test_a_split_column_of_several_tables_is_told(self, hub: dict[str, Any], load_hub: Load) -> None:
        hub |= {"train": [{**row, "split": "test"} for row in pairs(20)], "test": pairs(5, start=20)}
        account = load_hub().account
        assert account is not None
        assert account.used["test"] >= 5
        assert account.notes == ("the column split is not read: the data set's own splits count (train, test).",)

    def test_a_hub_that_can_not_be_reached_is_a_service_error(self, hub: dict[str, Any], load_hub: Load) -> None:
        assert not hub
        with pytest.raises(ServiceError, match=r"data set org/data@abc can't be loaded \(OSError: no network\)"):
            load_hub()

    def test_a_row_that_can_not_be_read_is_named(self, hub: dict[str, Any], load_hub: Load) -> None:
        hub |= {"train": [*pairs(5), {"text": "?"}], "test": pairs(3, start=10)}
        with pytest.raises(InputError, match=r"org/data train\[5\]: no shape of rows that is known: has text; needs"):
            load_hub(strict=True)
        assert [one.place for one in load_hub().unused] == ["org/data train[5]"]


def test_dev_and_test_get_the_rows_that_limits_need_but_at_most_a_quarter_each(load: Load) -> None:
    def split(rows: int, **fields: Any) -> tuple[int, int, int]:
        write({"prompt": f"{n * 7919} {n * 104729} question", "response": "r"} for n in range(rows))
        dataset = load(**{"dev_least": 64, "test_least": 64} | fields)
        assert_disjoint(dataset, rows)
        return sizes(dataset)

    assert split(300) == (172, 64, 64)
    assert split(100) == (50, 25, 25)
    train, dev, test = split(1_000)
    assert (train + dev + test, dev > 100, test > 100) == (1_000, True, True)
    assert split(300, dev_least=0, test_least=0)[1] < 64


def test_a_hubs_small_test_split_is_completed_from_its_training_split() -> None:
    def row(number: int) -> dict[str, str]:
        return {"prompt": f"{number * 7919} {number * 104729} question", "response": "r"}

    tables = {"train": [row(n) for n in range(300)], "test": [row(n) for n in range(300, 316)]}
    data = Data(DataSource.hub, path="org/data", revision="abc", dev_rows=64, test_rows=16, test_least=64)
    dataset = coverage._from_tables(tables, data)
    assert (len(dataset.test), len(dataset.dev)) == (64, 64)
    own = {example.prompt for example in dataset.test} & {line["prompt"] for line in tables["test"]}
    assert len(own) == 16
    assert_disjoint(dataset, 316)
    data.test_least = 0
    assert len(coverage._from_tables(tables, data).test) == 16


def test_programs_load_an_experiments_data_by_the_name_that_they_know() -> None:
    from llamaduo.compose import compose
    from llamaduo.steps import load_data

    composed = compose(["task=coding"])
    assert composed is not None
    assert len(load_data(composed.experiments[0]).train) > 0
