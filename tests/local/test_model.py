"""Loading: from where and at which commit; what can't be loaded is refused in a line that says why and what to do.

The Hub is a program on this machine that answers as the real one does, so the exceptions are the libraries' own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny import RUNTIME, tiny

from llamaduo.config import LocalModel, Quantization, model_location
from llamaduo.errors import ConfigError, InputError
from llamaduo.local.model import load_base, load_chat

LOADERS = {"tokenizer": load_chat, "model": lambda model: load_base(model, RUNTIME, Quantization.none)}
GATED = "google/gemma-2b"
REFUSALS = {
    GATED: (403, "GatedRepo"),
    "meta-llama/Llama-3.2-1B": (401, "GatedRepo"),
    "someone/gated": (401, "GatedRepo"),
    "no/such": (401, "RepoNotFound"),
    "some/model": (404, "RevisionNotFound"),
}


class Hub(BaseHTTPRequestHandler):
    """Refuses every file as the Hub does, by a status and a header."""

    def refuse(self) -> None:
        name = next((name for name in REFUSALS if self.path.lstrip("/").startswith(f"{name}/")), "no/such")
        status, code = REFUSALS[name]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET = refuse  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the Hub that refuses everything in the place of the real one, before an empty cache."""
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = "HUGGINGFACE_CO_URL_TEMPLATE"
    monkeypatch.setattr(constants, template, f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield
    server.shutdown()
    server.server_close()


def refusal(path: str, what: str, **fields: Any) -> str:
    """Return what loading says, which is one line."""
    with pytest.raises(InputError) as found:
        LOADERS[what](LocalModel(name="m", path=path, context=256, **fields))
    assert found.value.exit_code == 2
    assert len(str(found.value).splitlines()) == 1
    return str(found.value)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("what", LOADERS)
@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            GATED,
            [f"local_model.path={GATED} is gated", "accept the Gemma Terms of Use on https://huggingface.co/" + GATED],
        ),
        ("meta-llama/Llama-3.2-1B", ["is gated", "Meta's Llama Community License"]),
        ("someone/gated", ["is gated", "accept its licence on https://huggingface.co/someone/gated"]),
        ("no/such", ["neither a folder here nor a model on the Hub", "spelling"]),
        ("some/model", ["the Hub has no such revision", "local_model.revision"]),
        ("a/path/too/long", ["no such folder"]),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_way_out(path: str, words: list[str], what: str) -> None:
    said = refusal(path, what)
    assert all(word in said for word in words), said
    assert said.startswith(f"local_model.path={path}")
    assert ("HF_TOKEN" in said) == (words[0] != "no such folder" and "revision" not in words[0])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("generation_config.json", {"eos_token_id": 1}),
        ("generation_config.json", {"eos_token_id": [1, 3]}),
        ("generation_config.json", {}),
        ("config.json", {"eos_token_id": 1}),
        (None, {}),
    ],
)
def test_the_ends_of_the_models_generation_settings_are_ends(
    file: str | None, content: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(tiny("qwen3").path, tmp_path / "m")
    (tmp_path / "m" / "generation_config.json").unlink()
    known = json.loads((tmp_path / "m" / "config.json").read_text()) | {"eos_token_id": None}
    (tmp_path / "m" / "config.json").write_text(json.dumps(known))
    if file is not None:
        before = known if file == "config.json" else {}
        (tmp_path / "m" / file).write_text(json.dumps(before | content))
    chat = load_chat(LocalModel(name="m", path=str(tmp_path / "m"), context=256))
    told = content.get("eos_token_id", [])
    marks = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    assert chat.tokenizer.convert_tokens_to_ids(list(marks)) == list(marks.values())
    assert chat.end_ids == {2} | ({1} if told else set())  # 3 is a byte


def test_where_the_model_can_not_be_had_its_tokenizer_can() -> None:
    model = tiny("qwen3")
    chat = load_chat(LocalModel(name="m", path="/no/such/folder", tokenizer=model.path, context=256))
    assert chat.end_ids == load_chat(model).end_ids


@pytest.mark.usefixtures("hub")
def test_a_tokenizer_of_its_own_is_named_as_what_it_is() -> None:
    said = refusal(tiny("llama").path, "tokenizer", tokenizer=GATED)
    assert said.startswith(f"local_model.tokenizer={GATED} is gated")


@pytest.mark.parametrize("what", LOADERS)
def test_without_network_and_cache_it_says_how_to_get_the_model(what: str) -> None:
    said = refusal(GATED, what)
    assert f"local_model.path={GATED} is not in the Hub's cache on this machine" in said
    assert f"hf download {GATED}" in said


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("what", LOADERS)
def test_a_network_that_is_down_is_no_other_case(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from huggingface_hub.errors import LocalEntryNotFoundError
    from transformers.utils import hub as transformers_hub

    def down(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("An error happened while trying to locate the file") from httpx.ConnectError(
            "111"
        )

    monkeypatch.setattr(transformers_hub, "hf_hub_download", down)
    assert "the Hub can't be reached: run once with a network" in refusal(GATED, what)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the tiny Llama's folder, to be damaged at will."""
    return Path(shutil.copytree(tiny("llama").path, tmp_path / "model"))


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "cut weights": (lambda f: cut(f / "model.safetensors", -9), "model", "cut off or damaged"),
    "empty weights": (lambda f: cut(f / "model.safetensors", 0), "model", "cut off or damaged"),
    "too few layers": (lambda f: change_config(f, num_hidden_layers=3), "model", "9 are missing (model.layers.2."),
    "too many layers": (lambda f: change_config(f, num_hidden_layers=1), "model", "9 belong to layers that it has not"),
    "other shapes": (
        lambda f: change_config(f, intermediate_size=80),
        "model",
        "6 have another shape (model.layers.0.",
    ),
    "unknown type": (lambda f: change_config(f, model_type="unheard_of"), "model", "unheard_of"),
    "cut config": (lambda f: cut(f / "config.json", 10), "model", "not a valid JSON file"),
    "pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "model",
        "has no safetensors weights: pickle can run code",
    ),
    "no template": (lambda f: (f / "chat_template.jinja").unlink(), "tokenizer", "local_model.chat_template=chatml"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer", "name one by local_model.tokenizer"),
    "cut tokenizer": (lambda f: cut(f / "tokenizer.json", 500), "tokenizer", "can't be loaded"),
}


@pytest.mark.parametrize(("damage", "what", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_refused(damage: Callable[[Path], object], what: str, words: str, folder: Path) -> None:
    damage(folder)
    said = refusal(str(folder), what)
    assert words in said, said


def test_the_fallback_template_mends_a_tokenizer_without_one(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    load_chat(LocalModel(name="m", path=str(folder), context=256, chat_template="chatml"))


def test_weights_that_were_stored_in_four_bits_load(tmp_path: Path) -> None:
    import torch

    pytest.importorskip("bitsandbytes")
    model = LocalModel(name="m", path=str(tmp_path), context=256)
    stored = load_base(tiny("llama"), RUNTIME, Quantization.nf4)
    stored.save_pretrained(tmp_path)
    ids = torch.arange(32)[None]
    with torch.no_grad():
        loaded = load_base(model, RUNTIME, Quantization.none)
        assert torch.equal(loaded(input_ids=ids).logits, stored(input_ids=ids).logits)


def test_four_bit_answers_are_those_of_the_model_that_was_trained() -> None:
    import torch

    pytest.importorskip("bitsandbytes")
    model = LocalModel(name="m", path="pocket:llama", context=512)  # 160 wide, which is no multiple of 64
    base = load_base(model, RUNTIME, Quantization.nf4)
    ids = torch.arange(32)[None]
    with torch.no_grad():
        assert torch.equal(base.eval()(input_ids=ids).logits, base.train()(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"revision": "1" * 40}, ("owner/model", "1" * 40)),
        ({"revision": "1" * 40, "tokenizer": "other/tokenizer"}, ("other/tokenizer", None)),
        (
            {"revision": "1" * 40, "tokenizer": "other/tokenizer", "tokenizer_revision": "2" * 40},
            ("other/tokenizer", "2" * 40),
        ),
    ],
)
def test_a_tokenizer_is_asked_for_at_the_commit_of_its_own_repository(
    fields: dict[str, Any], asked: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    shipped = AutoTokenizer.from_pretrained(model_location("pocket:mistral"))
    seen = []

    def from_pretrained(path: str, *, revision: str | None, **_: Any) -> Any:
        seen.append((path, revision))
        return shipped

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    load_chat(LocalModel(name="m", path="owner/model", context=512, **fields))
    assert seen == [asked]


def test_a_file_named_as_a_template_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"chat_template=mine/chat_template\.jinja: is no template"):
        load_chat(LocalModel(name="m", path="pocket:llama", context=256, chat_template="mine/chat_template.jinja"))


def test_that_a_model_can_not_be_had_is_told_before_transformers_is_imported() -> None:
    code = (
        "import sys; from llamaduo.config import LocalModel; from llamaduo.errors import InputError\n"
        "from llamaduo.local.model import refuse_if_absent\n"
        f"try: refuse_if_absent(LocalModel(name='m', path={GATED!r}))\n"
        "except InputError as error: print(error)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    said, loaded = done.stdout.splitlines()
    assert said.startswith(f"local_model.path={GATED} is not in the Hub's cache on this machine")
    assert loaded == "set()"
