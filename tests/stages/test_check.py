"""Rows as the model will see them: what a template can't show whole is named before anything is bought or trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import quick_stages, quiet

from llamaduo.config import Experiment, Infer, LocalModel, TooLong, Train, model_location
from llamaduo.data.dataset import Account, CoverageDataset
from llamaduo.errors import InputError
from llamaduo.local.model import load_chat
from llamaduo.loop import run
from llamaduo.records import Example, prompt_id
from llamaduo.runs.finished import run_folder
from llamaduo.stages.check import check

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
NO_THOUGHTS = CHATML.replace("{{ turn.content }}", "{{ turn.content.split('</think>')[-1] }}")
TWICE = CHATML.replace(
    "{{ turn.content }}",
    "{{ turn.content }}{% if turn.role == 'assistant' and '!' in turn.content %}{{ turn.content }}{% endif %}",
)


def model(template: str | None = None, **fields: Any) -> LocalModel:
    return LocalModel(**{"name": "m", "path": "pocket:llama", "context": 512, "chat_template": template} | fields)


def row(text: str, response: str = "billing", *before: dict[str, str]) -> Example:
    messages = (*before, {"role": "user", "content": text})
    return Example(prompt_id(messages), messages, response)


def dataset(**splits: Sequence[Example]) -> CoverageDataset:
    """Return data whose rows are in a file `rows.jsonl`, those of train first."""
    made = {name: tuple(splits.get(name, [row(f"Which {name}?")])) for name in ("train", "dev", "test")}
    rows = [example for rows in made.values() for example in rows]
    places = {example.prompt_id: f"rows.jsonl:{number}" for number, example in enumerate(rows, 1)}
    account = Account("rows.jsonl", len(rows), {name: len(rows) for name, rows in made.items()})
    return CoverageDataset(**made, account=account, places=places)


def checked(data: CoverageDataset, local_model: LocalModel, *, most_missing: float = 1.0, **fields: Any) -> Account:
    train, infer = Train(learning_rate=1e-4, max_length=64), Infer(max_new_tokens=64)
    assert data.account is not None
    for name, value in fields.items():
        setattr(train if hasattr(train, name) else infer, name, value)
    most = {"dev": most_missing}
    return check(data, data.account, model=local_model, train=train, infer=infer, learned=True, most_missing=most)


def test_rows_that_fit_change_nothing() -> None:
    data = dataset(train=[row(f"Question {n}?") for n in range(300)])
    assert checked(data, model()) is data.account


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_turns_that_the_template_refuses_are_named_in_every_split(split: str) -> None:
    rows = [row(f"Question {n}?", "billing", *([SYSTEM] if n in (3, 200) else [])) for n in range(201)]
    data = dataset(**{split: rows})
    first = {"train": 0, "dev": 1, "test": 2}[split]
    with pytest.raises(InputError) as refusal:
        checked(data, model(NO_SYSTEM))
    assert str(refusal.value) == (
        "2 of 203 rows can't be shown to the model (the chat template refuses these turns (System role not supported): "
        f"rows.jsonl:{first + 4}, rows.jsonl:{first + 201}). Change these rows, or take "
        "local_model.chat_template=chatml."
    )


def test_many_are_counted_and_five_are_named() -> None:
    with pytest.raises(InputError, match=r"^30 of 32 rows .*rows\.jsonl:5 and 25 more\)"):
        checked(dataset(train=[row(f"Question {n}?", "x", SYSTEM) for n in range(30)]), model(NO_SYSTEM))


@pytest.mark.parametrize(
    ("template", "response", "told"),
    [
        (NO_THOUGHTS, "<think>Hm.</think> billing", "the chat template changes the response: rows.jsonl:2"),
        (TWICE, "It was billed twice!", "the chat template writes the response twice: rows.jsonl:2"),
        (TWICE, "No!", "the chat template writes the response twice: rows.jsonl:2"),
    ],
)
def test_a_response_comes_out_whole_and_once(template: str, response: str, told: str) -> None:
    data = dataset(train=[row("One?"), row("Two?", response)])
    with pytest.raises(InputError) as refusal:
        checked(data, model(template))
    assert told in str(refusal.value)
    checked(data, model(template), enabled=False)  # prompts alone are shown to a model that learns nothing
    checked(dataset(train=[row("One?", " im_end \n")]), model(template))


def test_short_responses_that_come_out_twice_each_are_noticed() -> None:
    always = TWICE.replace(" and '!' in turn.content", "")
    with pytest.raises(InputError, match=r"4 of 4 rows .* writes the response twice"):
        checked(dataset(train=[row("One?", "spam"), row("Two?", "ham")]), model(always))


def test_a_turn_that_the_template_leaves_out_is_told() -> None:
    drops = CHATML.replace("in messages", "in messages if turn.role != 'system'")
    data = dataset(train=[row("One?"), row("Two?", "billing", SYSTEM)], dev=[row("Three?", "billing", SYSTEM)])
    told = "prompts of which the chat template leaves a turn's text out: 2 (rows.jsonl:2, rows.jsonl:3)."
    assert checked(data, model(drops)).notes == (told,)
    assert checked(data, model(drops), enabled=False).notes == (told.replace("2 (rows.jsonl:2, ", "1 ("),)
    assert checked(data, model(CHATML)).notes == ()


def test_what_training_leaves_out_is_counted_and_moved() -> None:
    rows = [row("One?"), row("Two? " * 64), row("Three?", "a<|im_end|>b"), row("Four? " * 64)]
    account = checked(dataset(train=rows), model())
    assert account.used == {"train": 1, "dev": 1, "test": 1}
    assert account.lines() == [
        "data: 6 rows of rows.jsonl, 3 used, 3 left out:",
        "  2: longer than train.max_length=64 tokens; first rows.jsonl:2",
        "  1: an end mark of the chat inside the response; first rows.jsonl:3",
    ]
    with pytest.raises(
        InputError, match=r"refuse: 2 of 4 training rows exceed 64 tokens: rows\.jsonl:2, rows\.jsonl:4\."
    ):
        checked(dataset(train=rows), model(), too_long=TooLong.refuse)
    with pytest.raises(InputError, match=r"all 3 training rows exceed 64 tokens or hold an end mark \(rows\.jsonl:1\)"):
        checked(dataset(train=rows[1:]), model())


def test_prompts_leave_room_for_an_answer() -> None:
    account = checked(dataset(dev=[row("One?"), row("Two? " * 400)]), model())
    assert account.notes == (
        "dev: 1 of 2 prompts exceed the 448 tokens that the context leaves for them, and get no answer: rows.jsonl:3.",
    )
    with pytest.raises(InputError, match=r"1 of 2 dev prompts exceed .*rows\.jsonl:3\), so it can't pass the gate"):
        checked(dataset(dev=[row("One?"), row("Two? " * 400)]), model(), most_missing=0.1)
    with pytest.raises(
        InputError, match=r"no test prompt can be answered: all 1 exceed the 448 tokens .*rows\.jsonl:3"
    ):
        checked(dataset(test=[row("Two? " * 400)]), model())


@pytest.mark.usefixtures("quick_stages")
def test_a_run_ends_before_anything_is_trained(compose_experiment: Compose) -> None:
    folder = Path("gem")
    shutil.copytree(model_location("pocket:llama"), folder)
    (folder / "chat_template.jinja").write_text(NO_SYSTEM)
    rows = [
        {"messages": [*([SYSTEM] if n == 3 else []), *row(f"Ticket {n * 7919} {n}").messages, ANSWER], "split": split}
        for n, split in enumerate(["test"] * 6 + ["dev"] * 6 + ["train"] * 8)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    experiment = compose_experiment(
        "data=file", "data.path=rows.jsonl", "judge=reference", "synthesis=none", "loop.gate.precision=null",
        "loop.gate.similarity=null", "local_model.path=./gem", "local_model.name=gem",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"^1 of 20 rows can't be shown to the model .*rows\.jsonl:4\)"):
        run(experiment, display=quiet())
    assert not run_folder(experiment).exists()


ANSWER = {"role": "assistant", "content": "billing"}


class TestEndMarks:
    """A tokenizer without an end-of-text token: the template's own mark ends a response, or what to do is said."""

    @pytest.fixture
    def without(self) -> Path:
        """Return a model's folder whose tokenizer has neither an end-of-text token nor one for padding."""
        folder = Path("noeos")
        shutil.copytree(model_location("pocket:llama"), folder)
        path = folder / "tokenizer_config.json"
        told = json.loads(path.read_text())
        del told["eos_token"], told["pad_token"]
        path.write_text(json.dumps(told))
        return folder

    @pytest.mark.parametrize("template", [None, "chatml"])
    def test_the_templates_own_mark_ends_a_response(self, without: Path, template: str | None) -> None:
        chat, own = load_chat(model(template, path=str(without))), load_chat(model())
        (mark,) = own.tokenizer("<|im_end|>", add_special_tokens=False)["input_ids"]
        assert chat.end_ids == {mark}
        assert chat.tokenizer.pad_token_id == mark
        asked = [{"role": "user", "content": "Which?"}]
        assert chat.response_ids(asked, "billing") == own.response_ids(asked, "billing")
        assert checked(dataset(), model(template, path=str(without))).lines()

    def test_where_nothing_ends_an_answer_that_is_said(self, without: Path) -> None:
        plain = CHATML.replace("<|im_end|>", "")
        (without / "generation_config.json").unlink()
        config = json.loads((without / "config.json").read_text())
        (without / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
        with pytest.raises(InputError, match=r"no end-of-text token.*nothing would end an answer.*`eos_token`"):
            load_chat(model(plain, path=str(without)))
