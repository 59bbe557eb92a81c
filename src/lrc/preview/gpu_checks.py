"""Checks whether a GPU computes correctly what lrc needs, and how fast, with small random models on the device.

Each check is a function that returns its findings in a few words, or raises `CheckFailedError` with what is wrong and
the cure. On a CPU, all of them run in toy sizes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from lrc.config.accelerate_config import Topology
from lrc.models.lora_dropout import DropoutLinear, recompute_dropout
from lrc.packing.attention import attend_by, why_no_flex
from lrc.packing.last_layer import prune_last_layer
from lrc.packing.log_probs import sequence_scores, target_log_probs
from lrc.packing.tree import PackedRow, TokenSequence, pack
from lrc.preview.memory_plan import Planner, gib
from lrc.preview.meta_model import ModelSpec, count_static_memory
from lrc.preview.throughput import operations_a_token
from lrc.runtime.cards import Card, card_of
from lrc.runtime.devices import find_missing_kernels, is_rocm, supported
from lrc.runtime.errors import first_line
from lrc.runtime.translation import _

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Tolerances of relative errors from another order of summation: in float32, and in 16 bits through two layers.
EXACT, ROUNDED = 1e-4, 5e-2
PRODUCT = 2e-2  # likewise, of a product with 4-bit weights that is computed in 16 bits


class CheckFailedError(Exception):
    """A check has failed.

    Args:
        what: what is wrong, in a few words.
        cure: what the user can do.
    """

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.what, self.cure = what, cure


@dataclass
class Probe:
    """The device under test, and what earlier checks have found about it."""

    device: torch.device
    rates: dict[str, float] = field(default_factory=dict)  # TFLOP/s by dtype
    four_bits: bool = False  # whether bitsandbytes' NF4 works
    reached: float | None = None  # TFLOP/s in an optimizer step

    @property
    def gpu(self) -> bool:
        """Whether it is a CUDA GPU, on which checks run in realistic sizes."""
        return self.device.type == "cuda"

    @property
    def half(self) -> str:
        """The 16-bit dtype that the device computes fast; float32 if there is none."""
        formats = (dtype for dtype in ("bfloat16", "float16") if supported(dtype, self.device.type))
        return next(formats, "float32")

    @property
    def card(self) -> Card | None:
        """The device's entry in the table of cards; None if it is not there."""
        return card_of(torch.cuda.get_device_name(self.device)) if self.gpu else None

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], Any], times: int = 3) -> float:
        """The median time of a run in seconds, after a warm-up."""
        run()
        taken = []
        for _time in range(times):
            self.wait()
            begun = time.perf_counter()
            run()
            self.wait()
            taken.append(time.perf_counter() - begun)
        return median(taken)


def check_device(probe: Probe) -> str:
    """The device's name and compute capability, and whether this build of torch has kernels for it."""
    if not probe.gpu:
        text = _("{device}, {threads} threads; torch {version}")
        return text.format(device=probe.device.type, threads=torch.get_num_threads(), version=str(torch.__version__))
    if (missing := find_missing_kernels(probe.device.index)) is not None:
        raise CheckFailedError(missing.what, missing.cure)
    found = torch.cuda.get_device_properties(probe.device)
    if is_rocm():
        chip = found.gcnArchName.partition(":")[0]
        return _("{card}, {chip}, ROCm {version}").format(card=found.name, chip=chip, version=torch.version.hip)
    count = torch.cuda.device_count()
    text = _("{cards}, compute capability {major}.{minor}, CUDA {version}")
    if not probe.card:
        text = _("{cards}, compute capability {major}.{minor}, CUDA {version}; not in lrc's table of cards")
    cards = f"{count} × {found.name}" if count > 1 else found.name
    return text.format(cards=cards, major=found.major, minor=found.minor, version=torch.version.cuda)


def check_memory(probe: Probe) -> str:
    """How much memory is free."""
    if not probe.gpu:
        import psutil

        return _("{free} free").format(free=gib(psutil.virtual_memory().available))
    free, total = torch.cuda.mem_get_info(probe.device)
    if free < 0.8 * total:
        raise CheckFailedError(
            _("only {free} free of {total}").format(free=gib(free), total=gib(total)),
            _("another process holds the rest: end it (nvidia-smi lists them)"),
        )
    return _("{free} free of {total}").format(free=gib(free), total=gib(total))


def check_products(probe: Probe) -> str:
    """The rate of matrix products in each supported dtype, compared with the vendor's figure."""
    for dtype in ("bfloat16", "float16", "float32"):
        if not supported(dtype, probe.device.type):
            continue
        size = 4096 if probe.gpu and dtype != "float32" else 2048 if probe.gpu else 256
        a, b = (torch.randn(size, size, device=probe.device, dtype=getattr(torch, dtype)) for _ in range(2))
        probe.rates[dtype] = 2 * size**3 / probe.seconds(lambda: a @ b, 5) / 1e12  # noqa: B023
    measured = tuple(f"{dtype} {rate:.3g} TFLOP/s" for dtype, rate in probe.rates.items())
    card = probe.card
    if card is None:
        return _("{list}").format(list=measured)
    share = probe.rates[probe.half] / card.rate
    text = _("{list}: {share:.0%} of the {rate:g} that its maker states")
    found = text.format(list=measured, share=share, rate=card.rate)
    if share < 0.3:
        raise CheckFailedError(found, _("look for another process, heat, or a power limit with nvidia-smi"))
    return found


def check_trees(probe: Probe, form: str) -> str:
    """Loss and gradients of a packed tree, in float32 and in 16 bits, against those of separate samples."""
    if form == "flex" and (reason := why_no_flex(_small(probe), probe.device)):
        return _("not here: {reason}").format(reason=reason)
    measured = []
    for dtype in dict.fromkeys(["float32", probe.half]):
        error = _tree_error(probe, form, getattr(torch, dtype))
        if not error <= (EXACT if dtype == "float32" else ROUNDED):
            other = "block" if form != "block" else "dense"
            text = _("in {dtype} loss or gradients differ by {error:.1e} from those of separate samples")
            raise CheckFailedError(
                text.format(dtype=dtype, error=error),
                _("set attention: {other} in the recipe, and report this").format(other=other),
            )
        measured.append(f"{dtype} {error:.0e}")
    return _("as separate samples, relative error {errors}").format(errors=tuple(measured))


def check_lora(probe: Probe) -> str:
    """Dropout before a LoRA factor: its share, and that forward and backward drop the same elements."""
    p, width = 0.25, 256
    cure = _("set lora_dropout: 0 in the recipe, and report this")
    states = torch.randn(64, width, device=probe.device).add(8).requires_grad_()  # none is zero
    weight = torch.randn(width, width, device=probe.device)

    def run(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        factor = torch.nn.Linear(width, width, bias=False, device=probe.device)
        factor.weight.data = weight
        torch.manual_seed(0)
        with torch.autocast(probe.device.type, dtype, enabled=dtype != torch.float32):
            output = DropoutLinear(factor, p)(states)
        return output.detach(), *torch.autograd.grad(output.float().sum(), (states, factor.weight))

    kept = run(torch.eye(width, device=probe.device), torch.float32)[0] != 0
    dropped = 1 - float(kept.float().mean())
    if abs(dropped - p) > 0.02:  # six standard deviations
        text = _("{dropped:.1%} of the elements are dropped, not {p:.0%}").format(dropped=dropped, p=p)
        raise CheckFailedError(text, cure)
    left = torch.where(kept, states.detach() / (1 - p), 0.0)
    exact = left @ weight.T, torch.where(kept, weight.sum(0) / (1 - p), 0.0), left.sum(0).expand(width, width)
    measured = []
    for dtype in dict.fromkeys(["float32", probe.half]):
        error = max(map(_relative, run(weight, getattr(torch, dtype)), exact))
        if not error <= (EXACT if dtype == "float32" else ROUNDED):
            text = _("products or gradients after dropout differ by {error:.1e} in {dtype}")
            raise CheckFailedError(text.format(dtype=dtype, error=error), cure)
        measured.append(f"{dtype} {error:.0e}")
    return _("products and gradients after dropout, relative error {errors}").format(errors=tuple(measured))


def check_four_bits(probe: Probe) -> str:
    """A product with NF4 weights, against one with the dequantized weights."""
    cure = _("pip install -U bitsandbytes; `python -m bitsandbytes` says what it lacks")
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
        from bitsandbytes.nn import Linear4bit, Params4bit
    except Exception as cause:  # the import looks for CUDA's libraries, and may raise anything
        text = _("bitsandbytes cannot be imported ({reason})").format(reason=first_line(cause))
        raise CheckFailedError(text, cure) from cause
    dtype = getattr(torch, probe.half)
    wide = torch.randn(512, 256, device=probe.device, dtype=dtype) * 0.02
    layer = Linear4bit(256, 512, bias=False, compute_dtype=dtype, quant_type="nf4")
    layer.weight = Params4bit(wide.clone(), requires_grad=False, quant_type="nf4").to(probe.device)
    states = torch.randn(64, 256, device=probe.device, dtype=dtype)
    exact = states.float() @ dequantize_4bit(*quantize_4bit(wide, quant_type="nf4")).float().T
    error = _relative(layer(states).float(), exact)
    if not error <= PRODUCT:
        text = _("its products differ by {error:.1e} from those of the dequantized weights").format(error=error)
        raise CheckFailedError(text, cure)
    probe.four_bits = True
    return _("bitsandbytes NF4, relative error {error:.0e}").format(error=error)


def check_training(probe: Probe) -> str:
    """Optimizer steps on layers of a 7B model, in 4 bits if possible: speed, and memory compared with the plan."""
    spec, row, sequences = _spec(probe), _row(probe), _sequences(probe)
    if probe.gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(probe.device)
        before = torch.cuda.memory_allocated(probe.device)
    model = _build_model(probe, spec)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    losses: list[float] = []

    def step() -> None:
        with torch.autocast(probe.device.type, getattr(torch, probe.half), enabled=probe.half != "float32"):
            loss = -target_log_probs(model, row, probe.device).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        losses.append(loss.item())

    taken = probe.seconds(step)
    if not np.isfinite(losses).all() or losses[-1] >= losses[0]:
        raise CheckFailedError(
            _("the loss goes {losses}: it has to fall").format(losses=tuple(f"{loss:.3g}" for loss in losses)),
            _("update the driver and torch, and try fp16: false, bf16: false"),
        )
    rate, operations = len(row) / taken, operations_a_token(spec, count_static_memory(spec)) or 0
    probe.reached = rate * operations / 1e12
    text = _(
        "{rate:,.0f} unique tokens a second in {layers} layers, {reached:.3g} TFLOP/s; answering {answered:,.0f} "
        "questions a second"
    )
    memory: dict[str, str] = {}
    if probe.gpu:
        memory = _plan(probe, spec, row, torch.cuda.max_memory_allocated(probe.device) - before)
        text = _(
            "{rate:,.0f} unique tokens a second in {layers} layers, {reached:.3g} TFLOP/s; peak {peak}, planned "
            "{planned}; answering {answered:,.0f} questions a second"
        )
    model.eval()
    asked = probe.seconds(lambda: sequence_scores(model, sequences, probe.device, 4096), 1)
    answered = len(sequences) / asked
    return text.format(rate=rate, layers=spec.depth, reached=probe.reached, answered=answered, **memory)


def check_cards(probe: Probe) -> str:
    """Whether data arrives unchanged when it is copied from one GPU to another."""
    if not probe.gpu or torch.cuda.device_count() < 2:
        return _("one device")
    sent = torch.arange(2**20, device=probe.device)
    for other in range(1, torch.cuda.device_count()):
        there = sent.to(f"cuda:{other}")
        if not torch.equal(there.cpu(), sent.cpu()) or not torch.equal(there.to(probe.device), sent):
            raise CheckFailedError(
                _("what is sent from card 0 to card {other} arrives changed").format(other=other),
                _("set NCCL_P2P_DISABLE=1, and switch IOMMU off in the firmware"),
            )
    if not torch.distributed.is_nccl_available():
        raise CheckFailedError(
            _("torch was built without NCCL"), _("train on one card: --accelerate-config single_gpu")
        )
    return _("{count} cards reach each other").format(count=torch.cuda.device_count())


CHECKS: dict[str, Callable[[Probe], str]] = {
    _("device"): check_device,
    _("memory"): check_memory,
    _("products"): check_products,
    _("attention: dense"): lambda probe: check_trees(probe, "dense"),
    _("attention: block"): lambda probe: check_trees(probe, "block"),
    _("attention: flex"): lambda probe: check_trees(probe, "flex"),
    _("LoRA"): check_lora,
    _("4 bits"): check_four_bits,
    _("training"): check_training,
    _("several cards"): check_cards,
}


@dataclass(frozen=True)
class CheckResult:
    """What a check found; `cure` is empty if nothing is wrong."""

    name: str
    found: str
    cure: str = ""


def run_checks(probe: Probe) -> Iterator[CheckResult]:
    """Run all checks in order; an unexpected exception counts as a failure."""
    for name, check in CHECKS.items():
        try:
            yield CheckResult(name, check(probe))
        except CheckFailedError as failure:
            yield CheckResult(name, failure.what, failure.cure)
        except Exception as error:
            cure = _("attention: block in the recipe does without it") if name.endswith("flex") else _("report this")
            yield CheckResult(name, f"{type(error).__name__}: {first_line(error)}", cure)


def _relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def _sequences(probe: Probe, count: int = 24) -> list[TokenSequence]:
    """Random sequences, three to a passage, with lengths like those of AI.xlsx; much shorter ones on a CPU."""
    random = np.random.default_rng(0)
    scale = 1 if probe.gpu else 8
    found = []
    for _passage in range(count // 3):
        passage = random.integers(5, 900, 400 // scale)
        for _question in range(3):
            tokens = np.concatenate([passage, random.integers(5, 900, int(random.integers(50, 110)) // scale + 2)])
            found.append(TokenSequence(tokens, len(tokens) - 2))
    return found


def _row(probe: Probe) -> PackedRow:
    return max(pack(_sequences(probe), 4096), key=len)


def _small(probe: Probe) -> Any:
    width = 64 if probe.gpu else 16
    config = LlamaConfig(
        vocab_size=1000, hidden_size=4 * width, intermediate_size=8 * width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def _tree_error(probe: Probe, form: str, dtype: torch.dtype) -> float:
    """The largest relative error of the loss and of any gradient, compared with separate samples in float32."""
    model, sequences = _small(probe).to(probe.device), _sequences(probe, 9)
    exact = _separate(copy.deepcopy(model), sequences, probe.device)
    prune_last_layer(model)
    attend_by(model, form)
    found = []
    for row in pack(sequences, 4096):
        with torch.autocast(probe.device.type, dtype, enabled=dtype != torch.float32):
            log_probs = target_log_probs(model, row, probe.device)
        (-log_probs.sum()).backward()
        found.append(log_probs.detach())
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    total = torch.cat(found).sum()
    pairs = [(total, exact[0]), *zip(gradients, exact[1], strict=True)]
    return max(_relative(one.float(), other) for one, other in pairs)


def _separate(model: Any, sequences: list[TokenSequence], device: torch.device) -> tuple[torch.Tensor, list[Any]]:
    total = torch.zeros((), device=device)
    for one in sequences:
        tokens = torch.from_numpy(one.tokens).to(device)
        logits = model(input_ids=tokens[None], use_cache=False).logits[0, one.prompt_length - 1 : -1].float()
        log_probs = logits.log_softmax(-1).gather(1, tokens[one.prompt_length :, None])
        (-log_probs.sum()).backward()
        total += log_probs.detach().sum()
    return total, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def _spec(probe: Probe) -> ModelSpec:
    """The spec of four layers of Llama 7B with an adapter and gradient checkpointing; a toy model on a CPU."""
    from peft import LoraConfig

    shape = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 4}
    toy = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=1000, attn_implementation="sdpa", **(shape if probe.gpu else toy))
    dtype: torch.dtype = getattr(torch, probe.half)
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
    quantization = BitsAndBytesConfig(load_in_4bit=True, **nf4) if probe.four_bits and probe.gpu else None
    adapter = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    capability = torch.cuda.get_device_capability(probe.device) if probe.gpu else (8, 0)
    autocast = dtype if dtype != torch.float32 else None
    return ModelSpec(
        config, dtype, adapter, quantization, None, True, autocast, probe.device.type, capability=capability
    )


def _build_model(probe: Probe, spec: ModelSpec) -> Any:
    """Build the model of a spec with random weights, layer by layer on the device."""
    from peft import get_peft_model
    from transformers.integrations import replace_with_bnb_linear

    with torch.device("meta"):
        model = LlamaForCausalLM(spec.config).to(spec.dtype)
        if spec.quantization is not None:
            model = replace_with_bnb_linear(
                model, modules_to_not_convert=["lm_head"], quantization_config=spec.quantization
            )
    torch.manual_seed(0)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, _make_parameter(probe, module, parameter, spec))
    with torch.device(probe.device):
        model.model.rotary_emb = type(model.model.rotary_emb)(spec.config)
    model.is_loaded_in_4bit = spec.quantization is not None
    model.requires_grad_(False)
    adapted = get_peft_model(model, copy.deepcopy(spec.adapter))
    recompute_dropout(adapted)
    prune_last_layer(adapted)
    adapted.gradient_checkpointing_enable({"use_reentrant": False})
    adapted.enable_input_require_grads()
    return adapted.train()


def _make_parameter(probe: Probe, module: Any, parameter: Any, spec: ModelSpec) -> Any:
    shape = (module.out_features, module.in_features) if type(module).__name__ == "Linear4bit" else parameter.shape
    wide = torch.randn(shape, device=probe.device, dtype=spec.dtype) * 0.02
    if type(module).__name__ == "Linear4bit":
        from bitsandbytes.nn import Params4bit

        module.compute_dtype = spec.dtype
        settings = {"quant_type": "nf4", "compress_statistics": True, "module": module}
        return Params4bit(wide, requires_grad=False, **settings).to(probe.device)
    return torch.nn.Parameter(torch.ones_like(wide) if wide.dim() == 1 else wide)


def _plan(probe: Probe, spec: ModelSpec, row: PackedRow, peak: int) -> dict[str, str]:
    """The peak memory and the planned one.

    Raises:
        CheckFailedError: the peak is much larger.
    """
    plan = Planner().plan(spec, row, Topology("single_gpu", device=probe.device.type), "adamw_torch")
    planned = plan.total - plan.overhead
    if peak > 1.15 * planned:
        raise CheckFailedError(
            _("it took {peak}, and {planned} were planned").format(peak=gib(peak), planned=gib(planned)),
            _("leave a sixth of the card free in what `lrc preview` plans, and report this"),
        )
    return {"peak": gib(peak), "planned": gib(planned)}
