"""Makes the fixtures of this folder: ResNeXt as torchvision computes it, in the format of the golden fixtures.

    python make.py            (torch and torchvision; the ones here come from torchvision 0.29)

Weights and inputs are functions of their names (crates/testkit/src/fill.rs). Everything is computed in float32, and again in float64
for the noise of the former.
"""
import json
import pathlib

import numpy as np
import safetensors.numpy
import torch
import torchvision

SAMPLES = 64
HERE = pathlib.Path(__file__).parent


def fill(name, shape, kind=None):
    leaf = name.rsplit(".", 1)[-1]
    n = int(np.prod(shape, dtype=np.int64))
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    v = (2 * (z >> np.uint64(40)).astype(np.float64) * 2.0**-24 - 1).astype(np.float32)
    one = np.float32
    if kind == "input":
        v = v * one(np.sqrt(3.0))
    elif leaf == "num_batches_tracked":
        v = v * one(0)
    elif leaf in ("running_mean", "bias"):
        v = v * one(0.1)
    elif leaf == "running_var":
        v = one(1) + one(0.5) * np.abs(v)
    elif len(shape) >= 2:
        v = v * one(np.sqrt(3.0 / np.prod(shape[1:])))
    else:
        v = one(1) + one(0.1) * v
    return torch.from_numpy(v.reshape(shape))


class Net(torch.nn.Module):
    """The original's names: its wrapper calls the network `backbone`, and that one is an attribute of the same name."""

    def __init__(self, network):
        super().__init__()
        self.backbone = torch.nn.Module()
        self.backbone.backbone = network

    def forward(self, x):
        n = self.backbone.backbone
        x = n.maxpool(n.relu(n.bn1(n.conv1(x))))
        x = n.layer4(n.layer3(n.layer2(n.layer1(x))))
        return x.mean((2, 3)), x.flatten(2).transpose(1, 2)


def build(make):
    network = make()
    network.fc = torch.nn.Identity()
    return Net(network)


def entries(net):
    state = [[name, list(t.shape), str(t.dtype).split(".")[-1]] for name, t in net.state_dict().items()]
    return {"state_dict": state, "parameters": [[name, list(p.shape)] for name, p in net.named_parameters()]}


def run(make, inputs, dtype, train):
    net = build(make)
    net.load_state_dict({name: fill(name, t.shape).to(t.dtype) for name, t in net.state_dict().items()})
    net.to(dtype).train(train)
    crops = [fill(i["name"], i["shape"], "input").to(dtype).requires_grad_() for i in inputs]
    # One pass for each crop size; the features one after the other.
    views, regions = zip(*[net(crop) for crop in crops])
    c = views[0].shape[1]
    view, region = torch.cat(views), torch.cat([r.reshape(-1, c) for r in regions])
    cotangent = lambda name, t: fill(name, list(t.shape), "input").to(dtype)
    loss = (view * cotangent("cotangent.view", view)).sum() + (region * cotangent("cotangent.region", region)).sum()
    loss.backward()
    result = {"view": view.detach(), "region": region.detach()}
    buffers = {name: b for name, b in net.named_buffers() if b.dtype.is_floating_point}
    params = {name: p.grad for name, p in net.named_parameters()}
    grads = {i["name"]: crop.grad for i, crop in zip(inputs, crops)}
    return loss.item(), result, buffers, params, grads


def samples(t):
    flat = t.detach().double().flatten().numpy()
    at = np.floor(np.arange(SAMPLES) * (flat.size - 1) / (SAMPLES - 1)).astype(np.int64)
    return flat[at].astype(np.float32)


def stats(t):
    flat = t.detach().double().flatten()
    return [flat.sum().item(), flat.norm().item(), flat.abs().max().item()]


def noise(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-300)).item()


def fixture(name, kwargs, inputs):
    make = lambda: torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, **kwargs)
    out = {"fixture": name, "prefix": "", "model": {"family": "resnet", "kwargs": kwargs}, "inputs": inputs, "tensors": {}, "groups": {}}
    out |= entries(build(make)) | {"n_last_blocks": []}
    arrays = {}
    for part in ["eval", "train"]:
        loss, result, buffers, params, grads = run(make, inputs, torch.float32, part == "train")
        loss64, result64, buffers64, params64, grads64 = run(make, inputs, torch.float64, part == "train")
        out[f"{part}.loss"], out[f"{part}.loss_f64"] = loss, loss64
        for key, t in result.items():
            total, l2, absmax = stats(t)
            about = {"max_abs": (t - result64[key]).abs().max().item(), "rel_l2": noise(t, result64[key])}
            out["tensors"][f"{part}.{key}"] = {
                "shape": list(t.shape), "dtype": "F32", "sum": total, "l2": l2, "absmax": absmax, "stored": "digest", "noise": about}
            arrays[f"{part}.{key}#samples"] = samples(t)
        groups = {"grad.params": (params, params64), "grad.inputs": (grads, grads64)}
        if part == "train":
            groups["buffers_after"] = (buffers, buffers64)
        for group, (rows, rows64) in groups.items():
            key = f"{part}.{group}"
            out["groups"][key] = [[row, list(t.shape)] for row, t in rows.items()]
            arrays[f"{key}#stats"] = np.array([stats(t) for t in rows.values()])
            arrays[f"{key}#samples"] = np.stack([samples(t) for t in rows.values()])
            arrays[f"{key}#noise"] = np.array([noise(t, rows64[row]) for row, t in rows.items()])
    (HERE / f"{name}.json").write_text(json.dumps(out) + "\n")
    safetensors.numpy.save_file(arrays, HERE / f"{name}.safetensors")


if __name__ == "__main__":
    crops = lambda *shapes: [{"name": f"input.{i}", "shape": list(shape)} for i, shape in enumerate(shapes)]
    fixture("micro_resnext", {"layers": [1, 2, 1, 1], "groups": 8, "width_per_group": 2}, crops((2, 3, 96, 96), (3, 3, 64, 64)))
    arch = "resnext50_32x4d"
    about = {"fixture": arch, "model": {"family": "resnet", "arch": arch}} | entries(build(getattr(torchvision.models, arch)))
    (HERE / f"names_{arch}.json").write_text(json.dumps(about) + "\n")
