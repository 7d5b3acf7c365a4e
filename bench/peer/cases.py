"""What is measured: each function builds a case and gives the function that runs it once."""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from attention import WindowAttention
from losses import GLOBAL_CROPS, Output, move_center, view_and_region_loss
from measurement import Settings
from model import SWINS, Missing, Network, require, swin


def images(settings: Settings, count: int, side: int) -> torch.Tensor:
    return torch.randn(count, 3, side, side, device=settings.device)


def step(settings: Settings):
    """Teacher, student, loss, backward, clipping by parameter, AdamW, the teacher's average, the centers."""
    if settings.mode == "onnxruntime":
        raise Missing("a step has no onnxruntime mode")

    def network(drop_path: float) -> Network:
        return Network(settings.arch, settings.window, settings.prototypes, settings.region, drop_path, settings.mode == "fused").to(settings.device)

    student, teacher = network(0.1), network(0.0)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    trained = [p for p in student.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.ndim > 1]}, {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0005 * settings.batch / 256, weight_decay=0.04)
    center, center_grid = (torch.zeros(1, settings.prototypes, device=settings.device) for _ in range(2))
    scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.precision == "mixed" and settings.device.type == "cuda")
    crops = [images(settings, GLOBAL_CROPS * settings.batch, settings.global_size)]
    if settings.local_count > 0:
        crops.append(images(settings, settings.local_count * settings.batch, settings.local_size))
    run_student, run_teacher = settings.compiled(student), settings.compiled(teacher)
    loss_of = settings.compiled(view_and_region_loss)

    def run() -> None:
        with settings.autocast():
            with torch.no_grad():
                targets = run_teacher(crops[:1])
            output = run_student(crops)
            loss = loss_of(output, targets, center, center_grid, 0.04)
        if not torch.isfinite(loss).item():
            raise FloatingPointError("the loss is not finite")
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for parameter in trained:
            # Without asking the GPU whether the norm is too large.
            parameter.grad.mul_((3.0 / (parameter.grad.norm() + 1e-6)).clamp(max=1.0))
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            for average, parameter in zip(teacher.parameters(), student.parameters()):
                average.mul_(0.996).add_(parameter, alpha=1 - 0.996)
        move_center(center, targets.view)
        if targets.region is not None:
            move_center(center_grid, targets.region)

    return run


def inference(settings: Settings):
    """Pooled features of images of the global crops' size."""
    model = swin(settings.arch, settings.window, 0.0, settings.mode == "fused").to(settings.device).eval()

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model.forward_features(x).mean(dim=(1, 2))

    pooled = Pooled().eval()
    batch = images(settings, settings.batch, settings.global_size)
    if settings.mode == "onnxruntime":
        return onnxruntime_of(settings, pooled, batch)
    run_model = settings.compiled(pooled)

    @torch.inference_mode()
    def run():
        with settings.autocast():
            return run_model(batch)

    return run


def onnxruntime_of(settings: Settings, model: torch.nn.Module, batch: torch.Tensor):
    """ONNX Runtime's CPU provider on the exported model."""
    if settings.precision != "f32" or settings.device.type != "cpu":
        raise Missing("ONNX Runtime is measured on the CPU in single precision only")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package)
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(model, (batch,), str(file), input_names=["x"], dynamo=True, external_data=False, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    x = batch.numpy()
    return lambda: session.run(None, {"x": x})


def crop_tokens(settings: Settings) -> list[int]:
    """Regions of an image in each crop: a grid of patches of 4 pixels, halved three times with rounding up."""

    def side(pixels: int) -> int:
        n = pixels // 4
        for _ in range(3):
            n = (n + 1) // 2
        return n * n

    return [side(settings.global_size)] * GLOBAL_CROPS + [side(settings.local_size)] * settings.local_count


def loss(settings: Settings):
    """From unit rows, prototypes and backbone features to the loss, and back to rows and prototypes."""
    if settings.mode not in ("eager", "compile"):
        raise Missing(f"the loss has no {settings.mode} mode")
    tokens = crop_tokens(settings)
    width, bottleneck = 8 * SWINS[settings.arch][0], 256

    def rows(count: int, width: int) -> torch.Tensor:
        return F.normalize(torch.randn(count, width, device=settings.device), dim=-1)

    magnitude = torch.ones(settings.prototypes, 1, device=settings.device)
    terms = {"view": [1] * len(tokens)} | ({"region": tokens} if settings.region else {})
    inputs = {
        name: {
            "z": rows(sum(sizes) * settings.batch, bottleneck).requires_grad_(),
            "v": rows(settings.prototypes, bottleneck).requires_grad_(),
            "teacher_z": rows(sum(sizes[:GLOBAL_CROPS]) * settings.batch, bottleneck),
            "teacher_v": rows(settings.prototypes, bottleneck),
        }
        for name, sizes in terms.items()
    }
    leaves = [tensor for term in inputs.values() for tensor in term.values() if tensor.requires_grad]
    features, teacher_features = (rows(sum(sizes) * settings.batch, width) for sizes in (tokens, tokens[:GLOBAL_CROPS]))
    center = torch.zeros(1, settings.prototypes, device=settings.device)

    def forward() -> torch.Tensor:
        def logits(name: str, z: str, v: str) -> torch.Tensor | None:
            return F.linear(inputs[name][z], torch._weight_norm(inputs[name][v], magnitude, 0)) if name in inputs else None

        with torch.no_grad():
            teacher = Output(logits("view", "teacher_z", "teacher_v"), logits("region", "teacher_z", "teacher_v"), teacher_features, tokens[:GLOBAL_CROPS])
        student = Output(logits("view", "z", "v"), logits("region", "z", "v"), features, tokens)
        return view_and_region_loss(student, teacher, center, center, 0.04)

    forward = settings.compiled(forward)

    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        with settings.autocast():
            value = forward()
        value.backward()

    return run


def window_attention(projections: bool, backward: bool):
    """The first stage's, shifted, on the token grid of the global crops."""

    def build(settings: Settings):
        if settings.mode == "onnxruntime":
            raise Missing("window attention has no onnxruntime mode")
        dim, _, heads = SWINS[settings.arch]
        side = settings.global_size // 4
        if side % settings.window != 0:
            raise Missing(f"{side} tokens a side are not whole windows of {settings.window}")
        layer = WindowAttention(dim, heads[0], settings.window, settings.window // 2, side, projections, settings.mode == "fused").to(settings.device)
        width = dim if projections else 3 * dim
        x = torch.randn(settings.batch, side, side, width, device=settings.device, requires_grad=backward)
        dy = torch.randn(settings.batch, side, side, dim, device=settings.device)
        run_layer = settings.compiled(layer)

        def run() -> None:
            with torch.set_grad_enabled(backward), settings.autocast():
                y = run_layer(x)
            if backward:
                layer.zero_grad(set_to_none=True)
                x.grad = None
                y.backward(dy.to(y.dtype))

        return run

    return build


#: By the names that `esvit-bench` has for them.
CASES = {
    "step": step,
    "inference": inference,
    "loss": loss,
    "window_attention": window_attention(projections=True, backward=True),
    "window_attention_forward": window_attention(projections=True, backward=False),
    "window_attention_core": window_attention(projections=False, backward=True),
    "window_attention_core_forward": window_attention(projections=False, backward=False),
}
