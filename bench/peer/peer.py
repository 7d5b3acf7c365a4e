"""The same measurements in PyTorch: options and output as `esvit-bench --help` describes them.

    python bench/peer/peer.py all --device gpu --precision mixed --mode eager,compile --json

Needs torch. Steps and inference need timm too, `--mode onnxruntime` needs onnx, onnxscript and onnxruntime: without them the figures are null and
the reason is printed.
"""

import argparse
import json
import sys
from dataclasses import replace

import torch

from cases import CASES
from measurement import MODES, Settings, description, measure, peak_gflops
from model import SWINS, Missing

BATCHES = {"inference": [1, 8, 32], "step": [2], "loss": [2]}


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="what esvit-bench measures, in PyTorch", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("subject", choices=["all", "attention", *CASES])
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "mixed"], default="f32", help="mixed is autocast: bf16 on the CPU, f16 on a GPU")
    parser.add_argument("--mode", default="eager", help="eager, fused (PyTorch's fused attention), compile, onnxruntime; several with commas")
    parser.add_argument("--threads", type=int, default=0, help="0 for as many as PyTorch takes")
    parser.add_argument("--batch-size", type=numbers, help="images, several with commas")
    parser.add_argument("--arch", choices=SWINS, default="swin_tiny")
    parser.add_argument("--window", type=int, default=7)
    parser.add_argument("--prototypes", type=int, default=65536)
    parser.add_argument("--global-size", type=int, default=224)
    parser.add_argument("--local-size", type=int, default=96)
    parser.add_argument("--local-count", type=int, default=8)
    parser.add_argument("--region", choices=["on", "off"], default="on")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--paced", action="store_true", help="one run for each line on standard input")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    unknown = [mode for mode in args.mode.split(",") if mode not in MODES]
    if unknown:
        print(f"peer: --mode takes {', '.join(MODES)}, got {unknown[0]}", file=sys.stderr)
        return 2
    if args.device == "gpu" and not torch.cuda.is_available():
        print("peer: PyTorch sees no GPU", file=sys.stderr)
        return 1
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.device == "gpu":
        # What a user who asks for speed in single precision has on a GPU.
        torch.backends.cuda.matmul.allow_tf32 = args.precision == "mixed"
    names = list(CASES) if args.subject == "all" else [name for name in CASES if name == args.subject or (args.subject == "attention" and "attention" in name)]
    modes = args.mode.split(",")
    settings = Settings(
        device=torch.device("cuda" if args.device == "gpu" else "cpu"), precision=args.precision, mode=modes[0], arch=args.arch, window=args.window,
        prototypes=args.prototypes, region=args.region == "on", global_size=args.global_size, local_size=args.local_size,
        local_count=args.local_count, batch=1, runs=args.runs, warm_up=args.warm_up, paced=args.paced,
    )
    peaks = [] if args.paced else [{"threads": torch.get_num_threads(), "gflops": peak_gflops(settings)}]
    results = []
    for name in names:
        for batch in args.batch_size or BATCHES.get(name, [8]):
            for mode in modes:
                settings = replace(settings, batch=batch, mode=mode)
                try:
                    results.append(measure(settings, name, lambda: CASES[name](settings)))
                except Missing as missing:
                    print(f"peer: {name} ({mode}) is not measured: {missing}", file=sys.stderr)
                    results.append(description(settings, name) | {"reason": str(missing)})
                except torch.OutOfMemoryError as error:
                    print(f"peer: {name} ({mode}, {batch} images) does not fit: {error}", file=sys.stderr)
                    results.append(description(settings, name) | {"reason": "it does not fit into the GPU's memory"})
    if args.json:
        device = "cpu" if args.device == "cpu" else torch.cuda.get_device_name()
        print(json.dumps({"tool": "pytorch", "version": torch.__version__, "device": device, "peaks": peaks, "cases": results}))
        return 0
    for peak in peaks:
        print(f"peak: {peak['gflops']:.0f} GFLOP/s in a large matrix product\n")
    print(f"{'case':30}  {'tool':16}  precision  threads  images        ms       min       max  images/s   MiB peak")
    for r in results:
        if r["medianMs"] is None:
            print(f"{r['case']:30}  {r['tool']:16}  {r['precision']:9}  {r['threads']:7}  {r['batch']:6}  {r['reason']}")
            continue
        figures = "  ".join(f"{r[key]:8.1f}" for key in ("medianMs", "minMs", "maxMs", "imagesPerSecond"))
        memory = (r["deviceBytes"] or r["peakBytes"]) >> 20
        print(f"{r['case']:30}  {r['tool']:16}  {r['precision']:9}  {r['threads']:7}  {r['batch']:6}  {figures}  {memory:9}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
