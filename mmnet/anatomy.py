"""What a network costs: shapes, parameters and FLOPs of its parts, and memory by batch size."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmnet.compose import make
from mmnet.config import Run
from mmnet.data.batch import read
from mmnet.errors import UserError, first_line
from mmnet.hardware import DTYPES
from mmnet.interfaces import Features, Fused, Inputs, Sample
from mmnet.model import Multimodal


class Row(NamedTuple):
    """One module of the tree."""

    depth: int
    name: str
    kind: str  # its class, or "4 x Block"
    output: str  # shape of what it returned, B standing for the batch
    parameters: int
    trainable: int
    flops: int  # of one sample's forward pass; a multiply-add counts as two


class Memory(NamedTuple):
    """Bytes of a training step, about: `fixed` + `per_sample` for each at once.

    What a kernel needs while it runs is not counted, nor is what one block keeps while its
    activations are computed again (activation checkpointing).
    """

    fixed: int  # weights, their gradients, the optimizer's state, an average
    per_sample: int  # activations kept for backward

    def at(self, samples: int) -> int:
        return self.fixed + samples * self.per_sample

    def fits(self, capacity: int) -> int:
        """The most samples at once; 0: not even one. A tenth is left for what is not counted."""
        return max(0, int((0.9 * capacity - self.fixed) // max(1, self.per_sample)))


def longest(network: Multimodal, samples: int) -> dict[str, Inputs]:
    """A batch whose texts and pictures are as long and as large as the encoders read."""
    prepare = network.prepare()
    sample: Sample = {}
    if "image" in prepare:
        sample["image"] = Image.new("RGB", (2048, 2048))  # shrunk to what is read
    if "text" in prepare:
        sample["text"] = "a " * 5000
    return read(prepare, [sample] * samples)


def check_widths(network: Multimodal) -> None:
    """Run two samples through, part by part. Raises UserError where two parts do not fit."""
    inputs = longest(network, 2)
    network = network.eval()
    features = {}
    with torch.no_grad():
        for name, encoder in network.encoders.items():
            features[name] = _run(f"encoder.{name}", encoder, inputs[name], "its input")
        gave = ", ".join(f"{name} {list(f.tokens.shape)}" for name, f in features.items())
        fused = _run("fusion", network.fusion, features, f"tokens of {gave}")
        joint = None if fused.joint is None else list(fused.joint.shape)
        _run("head", network.head, fused, f"the fusion's joint vector {joint}")


def _run(part: str, module: nn.Module, given: Any, what: str) -> Any:
    try:
        return module(given)
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        raise UserError(
            f"{part}: {type(module).__name__} cannot take {what}: {first_line(error)}"
        ) from error


def rows(network: Multimodal, depth: int) -> list[Row]:
    """The tree down to `depth` levels below the network; runs one sample through it."""
    shapes: dict[nn.Module, str] = {}
    hooks = [
        module.register_forward_hook(lambda m, args, out: shapes.update({m: shape_of(out)}))
        for module in network.modules()
    ]
    inputs = longest(network, 2)
    try:
        # Plain attention, which the counter knows on every device. With gradients: the counter
        # cannot follow a learned query through a module without them.
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            network.eval()(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    counts = {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    top = type(network).__name__

    def flops_of(module: nn.Module, path: str) -> int:
        # Of a module that is not called itself, but whose members are: theirs.
        inside = (flops_of(child, f"{path}.{name}") for name, child in module.named_children())
        return counts.get(path) or sum(inside)

    def row(module: nn.Module, name: str, path: str, level: int, kind: str) -> Row:
        parameters = list(module.parameters())
        return Row(
            level,
            name,
            kind,
            shapes.get(module, ""),
            sum(p.numel() for p in parameters),
            sum(p.numel() for p in parameters if p.requires_grad),
            flops_of(module, f"{top}.{path}" if path else top),
        )

    def walk(module: nn.Module, path: str, level: int) -> Iterator[Row]:
        for name, child in module.named_children():
            inner = f"{path}.{name}" if path else name
            if path == "" and name == "encoders":
                yield from walk(child, inner, level)
                continue
            kinds = {type(one).__name__ for one in child.children()}
            listed = isinstance(child, nn.ModuleList | nn.Sequential) and len(kinds) == 1
            kind = f"{len(list(child.children()))} x {kinds.pop()}" if listed else ""
            found = row(child, name, inner, level, kind or type(child).__name__)
            if listed and not found.output:  # a list is not called itself: its last member is
                found = found._replace(output=shapes.get(list(child.children())[-1], ""))
            if found.parameters or found.flops or level == 1:
                yield found
            if level < depth and not listed:
                yield from walk(child, inner, level + 1)

    return [*walk(network, "", 1), row(network, "total", "", 0, "")]


def shape_of(output: Any) -> str:
    """Of what a module returned: its first tensors, the batch of two written as B."""
    if isinstance(output, Tensor):
        sizes = ["B" if i == 0 and size == 2 else str(size) for i, size in enumerate(output.shape)]
        return f"[{', '.join(sizes)}]"
    if isinstance(output, Fused):
        return shape_of(output.joint) if output.joint is not None else "apart"
    if isinstance(output, Features):
        return f"{shape_of(output.tokens)} {shape_of(output.pooled)}"
    if isinstance(output, dict):
        return " ".join(f"{name} {shape_of(one)}" for name, one in output.items())
    if isinstance(output, tuple) and output:
        return shape_of(output[0])
    return ""


def memory(network: Multimodal, run: Run, precision: str) -> Memory:
    """Of a training step, measured by taking two of them with few samples on the CPU."""
    optimizer = make(run.optimizer, model=network)
    kept = {samples: activations(network, samples, precision) for samples in (2, 4)}
    optimizer.step()
    per_sample = max(1, (kept[4] - kept[2]) // 2)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    gradients = sum(p.grad.nbytes for p in network.parameters() if p.grad is not None)
    state = sum(tensor.nbytes for tensor in tensors_in(optimizer.state_dict()))
    average = weights if run.trainer.ema_decay is not None else 0
    return Memory(weights + gradients + state + average, per_sample)


def activations(network: Multimodal, samples: int, precision: str) -> int:
    """Bytes kept between forward and backward of so many samples."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = longest(network, samples)
    network.train()
    mixed = torch.autocast("cpu", DTYPES[precision], enabled=precision != "fp32")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), mixed:
        answers = network(inputs)
    parts = [answers] if isinstance(answers, Tensor) else list(answers.values())
    sum(part.float().sum() for part in parts).backward()  # type: ignore[union-attr]
    return sum(seen.values())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor of a nested state."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)
