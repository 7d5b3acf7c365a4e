"""Reads a checkpoint without this project's code and prints what it finds as JSON.

`read_checkpoint.py FILE torch`: torch.load, and the optimizer's state goes through a real AdamW for one step.
`read_checkpoint.py FILE plain`: zipfile (which checks every CRC-32) and a pickle.Unpickler that knows four names.
"""
import argparse
import collections
import hashlib
import json
import pickle
import sys
import zipfile

path = sys.argv[1]


def with_torch(torch):
    try:
        root = torch.load(path, map_location="cpu", weights_only=False)
    except TypeError:  # before 1.13
        root = torch.load(path, map_location="cpu")

    def describe(value):
        return [list(value.shape), hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()]

    return root, torch.Tensor, describe


def adamw_steps(torch, root):
    """Counters of a real AdamW that has loaded the state and made one step."""
    student = {name[len("module."):]: tensor for name, tensor in root["student"].items()}
    names = root["esvit"]["optimizer_parameters"]
    groups = [
        {"params": [torch.nn.Parameter(student[names[i]].clone()) for i in group["params"]]}
        for group in root["optimizer"]["param_groups"]
    ]
    adamw = torch.optim.AdamW(groups, lr=0.1)
    adamw.load_state_dict(root["optimizer"])
    parameters = [p for group in adamw.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    adamw.step()
    assert all(bool(torch.isfinite(p).all()) for p in parameters)
    return [int(adamw.state[p]["step"]) for p in parameters]


def without_torch():
    archive = zipfile.ZipFile(path)
    assert archive.testzip() is None
    folder = archive.namelist()[0].split("/")[0]
    assert archive.read(folder + "/version") == b"3\n" and archive.read(folder + "/byteorder") == b"little"

    class Tensor:
        def __init__(self, storage, offset, shape, strides, requires_grad, hooks):
            expected, count = [], 1
            for side in reversed(shape):
                expected.insert(0, count)
                count *= side
            assert offset == 0 and list(strides) == expected and len(storage) > 0 and not requires_grad
            self.shape, self.data = shape, storage

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            known = {
                ("torch._utils", "_rebuild_tensor_v2"): Tensor,
                ("collections", "OrderedDict"): collections.OrderedDict,
                ("argparse", "Namespace"): argparse.Namespace,
            }
            sizes = {"FloatStorage": 4, "LongStorage": 8}
            return sizes[name] if module == "torch" else known[module, name]

        def persistent_load(self, key):
            tag, size, number, device, count = key
            data = archive.read(folder + "/data/" + number)
            assert tag == "storage" and device == "cpu" and len(data) == count * size
            return data

    root = Reader(archive.open(folder + "/data.pkl")).load()
    return root, Tensor, lambda value: [list(value.shape), hashlib.sha256(value.data).hexdigest()]


if sys.argv[2] == "torch":
    import torch
else:
    torch = None
root, tensor_type, describe = with_torch(torch) if torch else without_torch()
tensors = {}


def walk(value, place):
    if isinstance(value, tensor_type):
        tensors["/".join(place)] = describe(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            walk(item, place + [str(key)])


walk(root, [])
print(json.dumps({
    # After the walk: the step changes the tensors in place.
    "steps": adamw_steps(torch, root) if torch else None,
    "epoch": root["epoch"],
    "args": vars(root["args"]),
    "groups": root["optimizer"]["param_groups"],
    "types": {name: type(value).__name__ for name, value in root["optimizer"]["param_groups"][1].items()},
    "tensors": tensors,
}))
