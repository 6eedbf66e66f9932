"""Memory: the estimate is what models, autograd and a process really take; what is too large is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamaduo.config import Backend, Experiment, LocalModel, Quantization, Runtime, Train
from llamaduo.errors import ConfigError, InputError
from llamaduo.local import memory
from llamaduo.local.memory import (
    GIB,
    Estimate,
    answering,
    estimate,
    is_out_of_memory,
    refuse_if_too_large,
    training,
)
from llamaduo.local.shape import Shape, shape_of
from llamaduo.local.slots import PREFILL_TOKENS

Compose = Callable[..., Experiment]

PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "llama": (8_030_261_248, {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}),
    "mistral": (7_248_023_552, {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768}),
    "gemma": (2_506_172_416, {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000}),
    "gemma3_text": (999_885_952, {"hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144}),
    "qwen3": (4_022_468_096, {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": True}),
}  # fmt: skip
"""Parameters of Llama 3 8B, Mistral 7B v0.3, Gemma 2B, Gemma 3 1B and Qwen 3 4B, as the Hub has them."""
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000}  # fmt: skip
QWEN25_7B = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064}  # fmt: skip
TINY = {"hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 8, "num_key_value_heads": 2,
    "head_dim": 16, "vocab_size": 1000, "max_position_embeddings": 2048}  # fmt: skip
KINDS = sorted(PUBLISHED)


def model(folder: Path, kind: str, config: dict[str, Any]) -> LocalModel:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **config}))
    (folder / "model.safetensors").touch()  # is never read
    return LocalModel(name="m", path=str(folder), context=2048)


def changed(experiment: Experiment, values: dict[str, Any]) -> Experiment:
    """Change fields of an experiment, in place."""
    for path, value in values.items():
        group, _, name = path.partition(".")
        owner = getattr(experiment, group)
        assert hasattr(owner, name)
        setattr(owner, name, value)
    return experiment


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_that_are_published(kind: str, tmp_path: Path) -> None:
    parameters, config = PUBLISHED[kind]
    shape = shape_of(model(tmp_path / "m", kind, config))
    assert shape.parameters == parameters
    assert len(shape.linear) == 7 * config["num_hidden_layers"]


@pytest.mark.parametrize("targets", [["all-linear"], [], ["q_proj", "down_proj"], ["mlp.up_proj"]])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_has_the_parameters_that_peft_gives_it(kind: str, targets: list[str], tmp_path: Path) -> None:
    """At its largest: every token that a chat may have is new."""
    from peft import LoraConfig, get_peft_model

    from llamaduo.local.embedding import rows_to_train
    from llamaduo.local.model import skeleton

    known = model(tmp_path / "m", kind, TINY | {"num_hidden_layers": 2})
    wanted: Any = "all-linear" if targets == ["all-linear"] else targets or None
    base, new = skeleton(known), list(range(memory._NEW_ROWS))
    base.untrained_rows = new
    lora = LoraConfig(
        r=4, target_modules=wanted, task_type="CAUSAL_LM", trainable_token_indices=rows_to_train(base, new)
    )
    network = get_peft_model(base, lora, low_cpu_mem_usage=True)
    counted = sum(p.numel() for p in network.parameters() if p.requires_grad)
    train = Train(learning_rate=1.0, max_length=8, lora_r=4, target_modules=targets)
    assert memory._adapter(train, shape_of(known)) == 4 * counted


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_holds_the_keys_and_values_that_are_counted(kind: str, tmp_path: Path, experiment: Experiment) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

    known = model(tmp_path / "m", kind, TINY | {"num_hidden_layers": 3})
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(known.path))
    cache = DynamicCache()
    with torch.no_grad():
        network(input_ids=torch.zeros((4, 32), dtype=torch.long), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    changed(experiment, {"local_model.context": 32, "infer.batch_size": 4})
    a_token = held // (4 * 32)
    assert answering(experiment, shape_of(known), "cpu").kv_cache == held + PREFILL_TOKENS * a_token


def test_a_model_that_transformers_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"local_model\.path=.* can't be loaded"):
        shape_of(model(tmp_path / "m", "no-such-kind", {}))


# ---------------------------------------------------------------- what autograd keeps

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "short type": {"runtime.dtype": "bfloat16"},
    "query and value alone": {"train.target_modules": []},
    "dropout": {"train.lora_dropout": 0.1},
    "dropout, short type": {"train.lora_dropout": 0.1, "runtime.dtype": "bfloat16"},
    "packed": {"train.packing": True, "train.tokens_per_batch": 512},
    "eager": {"runtime.attention": "eager"},
    "eager, short type": {"runtime.attention": "eager", "runtime.dtype": "bfloat16"},
}
CASES = [(kind, way) for kind in KINDS for way in WAYS if kind == "llama" or way in ("plain", "short type")]
ROWS, LENGTH, LAYERS = 4, 128, 3


def kept_by_autograd(experiment: Experiment, known: LocalModel) -> int:
    """Return the bytes that a forward pass of all layers keeps for backward, parameters left out."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    train, runtime = experiment.train, experiment.runtime
    dtype = torch.bfloat16 if runtime.dtype == "bfloat16" else torch.float32
    chosen = {"attn_implementation": runtime.attention} if runtime.attention else {}
    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(known.path), dtype=dtype, **chosen)
    targets = "all-linear" if train.target_modules else None
    lora = LoraConfig(r=train.lora_r, lora_dropout=train.lora_dropout, target_modules=targets, task_type="CAUSAL_LM")
    network = get_peft_model(base, lora).train()
    ours = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    seen: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            seen[storage.data_ptr()] = storage
        return tensor

    rows = torch.zeros((ROWS, LENGTH), dtype=torch.long)
    where: dict[str, Any] = {}
    if train.packing:
        where = {"position_ids": torch.arange(LENGTH).repeat(ROWS)[None]}
        rows = rows.reshape(1, -1)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=dtype, enabled=dtype is torch.bfloat16),
    ):
        network.get_decoder()(input_ids=rows, use_cache=False, **where)
    return sum(storage.nbytes() for storage in seen.values())


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_activations_are_what_autograd_keeps(kind: str, way: str, tmp_path: Path, experiment: Experiment) -> None:
    changed(experiment, {"train.batch_size": ROWS, "train.max_length": LENGTH, "train.lora_r": 8} | WAYS[way])
    known = model(tmp_path / "m", kind, TINY | {"num_hidden_layers": LAYERS})
    kept = kept_by_autograd(experiment, known)
    assert training(experiment, shape_of(known), "cpu").activations == pytest.approx(kept, rel=0.1)


def test_with_checkpointing_a_layer_keeps_its_input_alone(tmp_path: Path, experiment: Experiment) -> None:
    shape = shape_of(model(tmp_path / "m", "llama", TINY | {"num_hidden_layers": 4}))
    changed(experiment, {"train.batch_size": 4, "train.max_length": 128})
    plain = training(experiment, shape, "cpu")
    checkpointed = training(changed(experiment, {"train.gradient_checkpointing": True}), shape, "cpu")
    inputs = 4 * 4 * 128 * 128 * 4
    assert checkpointed.activations == inputs + max(plain.activations / 4 - plain.logits, 0)
    alike = {"activations": 0, "overhead": 0}
    assert dataclasses.replace(checkpointed, **alike) == dataclasses.replace(plain, **alike)


# ---------------------------------------------------------------- what a process takes

REAL = """
import dataclasses, json, sys, tempfile
from pathlib import Path
from llamaduo.compose import compose
from llamaduo.local.model import load_chat
from llamaduo.local.memory import training
from llamaduo.records import Example
from llamaduo.local.shape import shape_of
from llamaduo.training.fit import train
from llamaduo.training.job import TrainJob

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def highest():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

def peak_of(experiment, rows):
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what there is now
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        job = TrainJob(Path(folder), experiment.local_model, experiment.train, experiment.runtime)
        train(job, rows, progress=lambda done, total: None)
    return highest() - before

def row(chat, length):
    ask = ({"role": "user", "content": "a"},)
    words = length
    while len(chat.prompt_ids(ask)) + len(chat.response_ids(ask, "ba " * words)) > length:
        words -= 1
    return Example("p", ask, "ba " * words)

known = ["runtime.device=cpu", "runtime.threads=1", "train.epochs=1", "train.min_steps=1", "train.max_length=256"]
small = compose(known).experiments[0]
chat = load_chat(small.local_model)
peak_of(small, [row(chat, 64)])  # brings in all libraries
for overrides in json.loads(sys.argv[2]):
    experiment = compose([*known, f"local_model.path={sys.argv[1]}", *overrides]).experiments[0]
    found = training(experiment, shape_of(experiment.local_model), "cpu")
    told = found.total - found.overhead
    measured = peak_of(experiment, [row(chat, 256)] * experiment.train.batch_size)
    print(json.dumps([told, measured]), flush=True)
"""


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Llama of 27 million parameters with a pocket tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from llamaduo.config import model_location

    folder = tmp_path_factory.mktemp("random")
    config = LlamaConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=8192, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_location("pocket:llama")).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel's own peak is read from /proc")
def test_a_training_takes_what_is_estimated_within_a_fifth(random_model: Path) -> None:
    """glibc gives small blocks back late; told to map every block by itself, it shows what tensors take."""
    ways = [["train.batch_size=2"], ["train.batch_size=2", "train.gradient_checkpointing=true"]]
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(random_model), json.dumps(ways)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    pairs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(pairs) == 2
    for told, measured in pairs:
        assert told == pytest.approx(measured, rel=0.2), pairs
    assert pairs[1][1] < 0.75 * pairs[0][1]


# ---------------------------------------------------------------- known figures


def shape_for(tmp_path: Path, name: str, config: dict[str, Any]) -> Shape:
    return shape_of(model(tmp_path / name, "llama" if name == "llama" else "qwen2", config))


def on_a_gpu(experiment: Experiment, **train: Any) -> Experiment:
    """Return the experiment of a usual QLoRA: batches of one row of 512 tokens, r = 64, checkpointed."""
    known = {"batch_size": 1, "max_length": 512, "lora_r": 64, "gradient_checkpointing": True} | train
    return changed(experiment, {f"train.{name}": value for name, value in known.items()})


def test_bfloat16_weights_take_two_bytes_a_parameter(tmp_path: Path, experiment: Experiment) -> None:
    """The files of Llama 3 8B hold 16,060,522,496 bytes."""
    parameters, config = PUBLISHED["llama"]
    found = training(on_a_gpu(experiment), shape_for(tmp_path, "llama", config), "cuda")
    assert found.weights == 2 * parameters == 16_060_522_496


def test_four_bits_take_what_has_been_measured(tmp_path: Path, experiment: Experiment) -> None:
    """Qwen 2.5 7B in nf4 is reported to take 5.44 GB without the constants, which are 3% of its linear layers."""
    shape = shape_for(tmp_path, "qwen2", QWEN25_7B)
    found = training(on_a_gpu(experiment, quantization=Quantization.nf4), shape, "cuda")
    assert found.weights == pytest.approx(5.44e9, rel=0.03)
    assert found.weights - 5.44e9 == pytest.approx(0.016 * sum(i * o for _, i, o in shape.linear), rel=0.1)


def test_qlora_of_seven_billion_takes_what_its_paper_says(tmp_path: Path, experiment: Experiment) -> None:
    """The QLoRA paper gives 5 GB for LLaMA 7B's 4-bit model, and about 7 GB for a training with r = 64."""
    shape = shape_for(tmp_path, "llama", LLAMA_7B)
    found = training(on_a_gpu(experiment, quantization=Quantization.nf4), shape, "cuda")
    assert 4.7e9 < found.weights + found.overhead < 6e9
    assert 6e9 < found.total < 9e9


# ---------------------------------------------------------------- refusing


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float | None], None]:
    """Return a function that gives this machine a device with so many GiB, or with nobody to tell."""

    def given(kind: str, gibibytes: float | None) -> None:
        room = None if gibibytes is None else int(gibibytes * GIB)
        monkeypatch.setattr(memory, "pick_device", lambda runtime: SimpleNamespace(type=kind, index=None))
        monkeypatch.setattr(memory, "gpu_memory", lambda number: room)
        monkeypatch.setattr(memory, "available_memory", lambda: room)

    return given


@pytest.fixture
def llama3(tmp_path: Path, compose_experiment: Compose) -> Callable[..., Experiment]:
    """Return a function that composes an experiment with a model of Llama 3 8B's shape."""
    folder = model(tmp_path / "llama3", "llama", PUBLISHED["llama"][1]).path

    def composed(*overrides: str) -> Experiment:
        return compose_experiment(
            "local_model=llama3_8b", f"local_model.path={folder}", "local_model.revision=null",
            "local_model.tokenizer=null", "local_model.tokenizer_revision=null", *overrides,
        )  # fmt: skip

    return composed


def suggested(error: ConfigError) -> list[str]:
    return str(error).splitlines()[1].removeprefix("This would fit: ").split()


@pytest.mark.parametrize(
    ("gibibytes", "overrides", "wanted"),
    [
        (40, ("train.gradient_checkpointing=false",), ["train.gradient_checkpointing=true"]),
        (31, ("infer.batch_size=32",), ["infer.batch_size=8"]),
        (26, ("train.batch_size=16",), ["train.tokens_per_batch=4096", "infer.batch_size=4"]),
        (16, (), ["train.tokens_per_batch=4096", "train.quantization=nf4", "infer.batch_size=4"]),
        (
            14,
            ("train.batch_size=1", "train.max_length=8192", "infer.batch_size=1"),
            ["train.quantization=nf4", "train.max_length=2048"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_first_settings_that_do(
    gibibytes: float,
    overrides: tuple[str, ...],
    wanted: list[str],
    device: Callable[..., None],
    llama3: Callable[..., Experiment],
) -> None:
    device("cuda", gibibytes)
    words = rf"llama3_8b needs about [\d.]+ GiB to .*the GPU has {gibibytes}\.0 GiB"
    with pytest.raises(ConfigError, match=words) as told:
        refuse_if_too_large(llama3(*overrides))
    assert len(str(told.value).splitlines()) == 2
    found = suggested(told.value)
    assert found == wanted
    refuse_if_too_large(llama3(*overrides, *found))
    for override in found:
        without = [other for other in found if other != override]
        with pytest.raises(ConfigError, match="needs about"):
            refuse_if_too_large(llama3(*overrides, *without))


def test_where_nothing_helps_it_says_so(device: Callable[..., None], llama3: Callable[..., Experiment]) -> None:
    device("cuda", 4)
    with pytest.raises(ConfigError, match=r"\nNo setting makes it fit: take a smaller local_model"):
        refuse_if_too_large(llama3())


def test_a_large_model_is_refused_on_a_small_machine(
    device: Callable[..., None], llama3: Callable[..., Experiment]
) -> None:
    device("cpu", 16)
    with pytest.raises(ConfigError, match=r"\(weights 29\.9, .*this machine has 16\.0 GiB"):
        refuse_if_too_large(llama3())


def test_what_fits_is_not_refused(device: Callable[..., None], llama3: Callable[..., Experiment]) -> None:
    device("cuda", 80)
    refuse_if_too_large(llama3())
    device("cuda", None)
    refuse_if_too_large(llama3("train.batch_size=4096"))


def test_only_what_is_loaded_here_counts(
    device: Callable[..., None], llama3: Callable[..., Experiment], tmp_path: Path
) -> None:
    device("cuda", 22)
    answers = ("synthesis=none", "infer=endpoint", "infer.server.base_url=http://h/v1", "infer.server.model=m")
    refuse_if_too_large(llama3("train=none", *answers, "local_model.path=nowhere"))
    with pytest.raises(ConfigError, match="to train"):
        refuse_if_too_large(llama3(*answers, "train.batch_size=16"))
    with pytest.raises(ConfigError, match="to answer"):
        refuse_if_too_large(llama3("train=none", "synthesis=none", "infer.batch_size=64"))
    refuse_if_too_large(llama3("train=none", "synthesis=none", "infer=vllm"))
    sharded = ("runtime.launch=accelerate", "runtime.accelerate=fsdp", "infer.batch_size=1")
    refuse_if_too_large(llama3("train.batch_size=16", *sharded))
    own = tmp_path / "own.yaml"
    own.write_text("distributed_type: FSDP\n")
    refuse_if_too_large(llama3("train.batch_size=16", *sharded, f"runtime.accelerate={own}"))
    whole = llama3("train.batch_size=16", *sharded)
    whole.runtime.accelerate = "deepspeed"  # each device holds the whole base model
    with pytest.raises(ConfigError, match="to train"):
        refuse_if_too_large(whole)


def test_pocket_models_are_not_looked_at(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "pick_device", lambda _: pytest.fail("it was looked at"))
    refuse_if_too_large(experiment)


def test_rows_of_new_tokens_count_whoevers_tokenizer_it_is(
    llama3: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, another = llama3(), llama3("local_model.tokenizer=owner/name", "local_model.tokenizer_revision=abc")
    shape = shape_of(own.local_model)
    whole = training(own, shape, "cuda")
    assert training(another, shape, "cuda") == whole
    monkeypatch.setattr(memory, "_NEW_ROWS", 0)
    rows = 256 * 4096 * 4 * 2  # in float32, in the embedding and in the output layer, which has weights of its own
    assert whole.total - training(own, shape, "cuda").total == 4 * rows  # with gradient and two moments
    tied = dataclasses.replace(shape, matrices=1)
    assert training(own, tied, "cuda") == training(own, shape, "cuda")


def test_peft_keeps_one_copy_of_a_matrix_with_learned_rows(tmp_path: Path, experiment: Experiment) -> None:
    """Another as large is its gradient; answers need no gradient, and vLLM makes no copy."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    known = model(tmp_path / "m", "llama", TINY | {"num_hidden_layers": 1, "vocab_size": 4000})
    kept = []
    for rows in (None, {"model.embed_tokens": [1, 2], "lm_head": [1, 2]}):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(known.path))
        network = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=rows))
        ours = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        seen: dict[int, Any] = {}

        def keep(tensor: Any, ours: set[int] = ours, seen: dict[int, Any] = seen) -> Any:
            if (place := tensor.untyped_storage().data_ptr()) not in ours:
                seen[place] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(input_ids=torch.zeros((1, 4), dtype=torch.long), use_cache=False)
        kept.append(sum(storage.nbytes() for storage in seen.values()))
    matrix = 4000 * 128 * 4
    assert kept[1] - kept[0] == pytest.approx(matrix, rel=0.05)
    shape, bare = shape_of(known), copy.deepcopy(experiment)
    bare.train.enabled = False
    assert answering(experiment, shape, "cpu").overhead - answering(bare, shape, "cpu").overhead == matrix
    experiment.infer.backend = bare.infer.backend = Backend.vllm
    assert answering(experiment, shape, "cpu").overhead == answering(bare, shape, "cpu").overhead


@pytest.mark.parametrize(
    ("settings", "processes"),
    [
        ("num_processes: -1", 2),
        ("num_processes: 3", 3),
        ("{num_processes: 8, num_machines: 2}", 4),
        ("{}", 2),
        ("no mapping", 2),
        ("num_processes: many", 2),
    ],
)
def test_processes_on_a_cpu_share_its_memory(settings: str, processes: int, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(settings)
    assert memory._processes(Runtime(accelerate=str(tmp_path / "mine.yaml"))) == processes


def test_two_processes_on_a_cpu_take_twice_the_memory_and_two_gpus_have_their_own(
    llama3: Callable[..., Experiment],
) -> None:
    one, two = llama3(), llama3("runtime.launch=accelerate")
    shape = shape_of(one.local_model)
    assert dataclasses.astuple(training(two, shape, "cpu")) == tuple(
        2 * part for part in dataclasses.astuple(training(one, shape, "cpu"))
    )
    assert training(two, shape, "cuda") == training(one, shape, "cuda")
    assert answering(two, shape, "cpu") == answering(one, shape, "cpu")


def test_an_estimate_is_that_of_its_larger_stage(llama3: Callable[..., Experiment]) -> None:
    experiment = llama3("infer.batch_size=1")
    shape = shape_of(experiment.local_model)
    assert estimate(experiment, shape, "cuda") == training(experiment, shape, "cuda")
    many = changed(experiment, {"infer.batch_size": 512})
    assert estimate(many, shape, "cuda") == answering(many, shape, "cuda")
    assert Estimate(weights=1, overhead=2).total == 3


def test_no_money_is_spent_for_a_model_that_does_not_fit(
    device: Callable[..., None],
    llama3: Callable[..., Experiment],
    llm: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fakes import quiet

    from llamaduo.loop import run

    asked: list[str] = []
    device("cuda", 4)
    monkeypatch.setattr(
        "llamaduo.steps.opening.check", lambda dataset, account, **_: account
    )  # the folder has no tokenizer
    experiment = llama3("loop.growth.volumes=[8]", "loop.growth.include_coverage=false")
    experiment.service_llm = llm(lambda prompt, parameters: asked.append(prompt) or "")
    with pytest.raises(ConfigError, match="No setting makes it fit"):
        run(experiment, display=quiet())
    assert asked == []


# ---------------------------------------------------------------- running out


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("anything"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_torchs_own_errors_are_recognised() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
