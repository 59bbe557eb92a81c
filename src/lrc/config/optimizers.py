"""What upstream's optimizers and schedules need and take, by their names in a recipe; without importing any of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Source:
    """A package that optimizers come from, if torch and transformers do not have them.

    Args:
        names: a pattern of their names.
        module: what is imported.
        package: what pip installs; None if PyPI does not have it.
    """

    names: re.Pattern[str]
    module: str
    package: str | None


SOURCES = (
    Source(
        re.compile(r"adamw_(bnb_)?8bit|(paged_)?(ademamix|lion)(_.*)?|paged_adamw_.*|rmsprop_bnb.*"),
        *2 * ("bitsandbytes",),
    ),
    Source(re.compile("galore_.*"), "galore_torch", "galore-torch"),
    Source(re.compile("apollo_.*"), "apollo_torch", "apollo-torch"),
    Source(re.compile("grokadamw"), "grokadamw", "grokadamw"),
    Source(re.compile("schedule_free_.*"), "schedulefree", "schedulefree"),
    Source(re.compile("stable_adamw"), "optimi", "torch-optimi"),
    Source(re.compile("adamw_torch_[48]bit"), "torchao", "torchao"),
    Source(re.compile("adamw_anyprecision"), "torchdistx", None),
    Source(re.compile("adamw_torch_xla"), "torch_xla", "torch-xla"),
    Source(re.compile("adamw_torch_npu_fused"), "torch_npu", "torch-npu"),
)
IN_BACKWARD = ("lomo", "adalomo")  # change the weights in each backward pass, of which a step has several
LOW_RANK = ("galore", "apollo")  # how the names of those begin that need `optim_target_modules`
# Those that read `optim_args`; all others pass over it.
TAKES_ARGUMENTS = re.compile(
    r"(paged_)?ademamix.*|rmsprop.*|adamw_anyprecision|sgd|adagrad|galore_.*|apollo_.*|grokadamw|adamw_torch_[48]bit"
    r"|schedule_free_.*|stable_adamw"
)
# Those that use `adam_beta1` and `adam_beta2`; of these, Lion has no `adam_epsilon`.
TAKES_BETAS = re.compile(r"(paged_)?(adamw|lion|ademamix).*|apollo_.*|schedule_free_(radam|adamw)|stable_adamw")
TAKES_EPSILON = re.compile(rf"(?!.*lion)({TAKES_BETAS.pattern})")
# Those whose state DeepSpeed can keep in the host's memory. In the place of others, accelerate puts Adam, or it fails.
OFFLOADED = re.compile("adamw_torch(_fused)?|paged_adamw_32bit")
# Those that treat a matrix by rows and columns.
SHAPED = re.compile("adafactor|galore_.*|apollo_.*")
WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")  # values of `lr_scheduler_type`
ARGUMENTS = re.compile(r"[^=,]+=[^=,]+(,[^=,]+=[^=,]+)*")  # of `optim_args`, without spaces


def missing_source(optim: str) -> Source | None:
    """The package that an optimizer needs and that is not installed; None if it needs none, or has it."""
    source = next((one for one in SOURCES if one.names.fullmatch(optim)), None)
    return source if source is not None and find_spec(source.module) is None else None
