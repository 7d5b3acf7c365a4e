import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  completeConfig, ConfigError, configSchema, parseConfigText, originalFlags, resolveConfig, toEncoderSpec, toTrainerSpec,
} from "../../ts/src/config/index.js";
import { temporaryFolder } from "../support/temporary.js";

const configs = join(import.meta.dirname, "../../configs");
const scratch = temporaryFolder();

/** A file of the reference: its model part, and a little of the rest. */
const referenceFile = `
OUTPUT_DIR: 'OUTPUT/'
AMP:
  ENABLED: true
MODEL:
  NAME: swin_transformer
  SPEC:
    PATCH_SIZE: 4
    DIM_EMBED: 128
    DEPTHS: [ 2, 2, 18, 2 ]
    NUM_HEADS: [ 4, 8, 16, 32 ]
    WINDOW_SIZE: 14
    MLP_RATIO: 4
    QKV_BIAS: True
    DROP_RATE: 0
    ATTN_DROP_RATE: 0
    DROP_PATH_RATE: 0.2
    USE_APE: False
    PATCH_NORM: True
TRAIN:
  LR: 5e-4
  IMAGE_SIZE: [ 224, 224 ]
`;

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message;
  }
  throw new Error("nothing was thrown");
}

describe("configs/", () => {
  test.each(readdirSync(configs).filter((name) => name.endsWith(".yaml")))("%s parses without notes and names its launch", (name) => {
    const path = join(configs, name);
    const { config, notes } = resolveConfig([], path);
    expect(notes).toEqual([]);
    const text = readFileSync(path, "utf8");
    expect(config.loss.region).toBe(!text.split("\n")[0]!.includes("view loss alone"));
    // The engine's words hold every number; none is missing.
    expect(JSON.stringify(toTrainerSpec(config))).not.toMatch(/null|undefined/);
    expect(text).toContain(`--config configs/${name}`);
  });

  test("every row of the reference's tables and every experiment of its families is there", () => {
    const crossed = (...lists: string[][]): string[] => lists.reduce((all, list) => all.flatMap((name) => list.map((part) => name + part)), [""]);
    const expected = [
      ...crossed(["swin_"], ["tiny", "small", "base"], ["_w7", "_w7_view", "_w14"]), "swin_large_w7",
      // experiments/imagenet/cvt_v4: plain, win_size/ and res_stem/.
      ...crossed(["cvt_s1", "cvt_s3"], ["", "_rpe"], ["", "_shift", "_w14", "_w14_resstem"]), "cvt_s1_view",
      "vil_2262", "vil_2262_view", "vil_1281", "vil_14121", "vil_small", "vil_tiny",
      "resnet50", "resnet50_view", "deit_tiny", "deit_small", "deit_small_view", "deit_small_p8", "vit_base_p16",
      ...crossed(["nano"], ["", "_vit", "_vil", "_cvt", "_resnet"]),
    ];
    expect(readdirSync(configs).sort()).toEqual(expected.map((name) => `${name}.yaml`).sort());
  });

  test("a network is described once: files that share it differ in loss or data alone", () => {
    const networks = new Map<string, string[]>();
    for (const name of readdirSync(configs)) {
      const key = JSON.stringify(resolveConfig([], join(configs, name)).config.backbone);
      networks.set(key, [...(networks.get(key) ?? []), name.replace(/(_view)?\.yaml$/, "")]);
    }
    for (const names of networks.values()) expect(new Set(names).size, names.join()).toBe(1);
  });
});

describe("order of sources", () => {
  test("defaults < arch < file < command line, the last word wins", () => {
    const path = join(scratch, "order.yaml");
    writeFileSync(path, "backbone: { depths: [2, 2, 4, 2] }\noptimizer: { lr: 0.002 }\nepochs: 40\n");
    const { config, notes } = resolveConfig(["--arch", "swin_small", "--epochs", "50", "epochs=60", "--config", path]);
    expect(config.epochs).toBe(60);
    expect(config.optimizer.lr).toBe(0.002);
    expect(config.optimizer.minLr).toBe(completeConfig({}).optimizer.minLr);
    expect(config.backbone).toMatchObject({ depths: [2, 2, 4, 2], dropPath: 0.2 });
    expect(notes.join()).toMatch(/--arch swin_small: backbone.depths is \[2,2,4,2\] in .*order.yaml/);
  });

  test("the defaults are the reference's", () => {
    const { config } = resolveConfig([]);
    expect(config).toMatchObject({
      epochs: 100, batchSize: 64, saveEpochs: 5, seed: 0,
      head: { outDim: 65536, normLastLayer: true }, loss: { region: false, teacherTemperature: { warmup: 0.04, value: 0.04, warmupEpochs: 0 } },
      optimizer: { kind: "adamw", lr: 0.0005, minLr: 1e-6, warmupEpochs: 10, clipGrad: 3 },
      crops: { globalScale: [0.4, 1], localScale: [0.05, 0.4], localCount: 8 },
    });
    expect(completeConfig({})).toEqual(config);
  });

  test("a complete configuration parses to itself", () => {
    const { config } = resolveConfig(["--arch", "swin_base", "--lr", "0.01"]);
    expect(completeConfig(structuredClone(config))).toEqual(config);
  });
});

describe("the reference's command line", () => {
  test("a command of its README runs", () => {
    const cfg = join(scratch, "swin_base_patch4_window14_224.yaml");
    writeFileSync(cfg, referenceFile);
    const words = `--arch swin_base --data_path /images/train --output_dir out --batch_size_per_gpu 32 --epochs 300 --teacher_temp 0.07
      --warmup_epochs 10 --warmup_teacher_temp_epochs 30 --norm_last_layer false --use_dense_prediction True --aug-opt dino_aug
      --local_crops_number 6 --global_crops_scale 0.3 1.0 --out_dim 4096 --num_workers 2 --cfg ${cfg} MODEL.SPEC.WINDOW_SIZE 7 MODEL.NUM_CLASSES 0`;
    const { config, notes, positional } = resolveConfig(words.split(/\s+/));
    expect(config).toMatchObject({
      batchSize: 32, epochs: 300, outputDir: "out",
      backbone: { kind: "swin", dim: 128, depths: [2, 2, 18, 2], heads: [4, 8, 16, 32], window: 7, dropPath: 0.2, imageSize: 224 },
      head: { outDim: 4096, normLastLayer: false },
      loss: { region: true, teacherTemperature: { warmup: 0.04, value: 0.07, warmupEpochs: 30 } },
      crops: { localCount: 6, globalScale: [0.3, 1] },
      data: { path: "/images/train", workers: 2 },
    });
    // TRAIN.LR of the file is not the learning rate.
    expect(config.optimizer.lr).toBe(0.0005);
    expect(positional).toEqual([]);
    expect(notes).toEqual([
      expect.stringMatching(/OUTPUT_DIR, AMP, TRAIN \(but for IMAGE_SIZE\) describe supervised training/),
      expect.stringMatching(/^MODEL.NUM_CLASSES 0: has no effect/),
    ]);
  });

  test("its command line for Vision Longformer is ours", () => {
    const cfg = join(scratch, "vil.yaml");
    writeFileSync(cfg, `MODEL:
  SPEC:
    AVG_POOL: False
    DROP: 0.0
    DROP_PATH: 0.1
    NORM_EMBED: True
    MSVIT:
      ARCH: 'l1,h3,d96,n1,s1,g1,p4,f7_l2,h3,d192,n2,s1,g1,p2,f7_l3,h6,d384,n8,s0,g1,p2,f7_l4,h12,d768,n1,s0,g0,p2,f7'
      LN_EPS: 1e-06
      SHARE_W: True
      ATTN_TYPE: 'longformerhand'
      SHARE_KV: True
      ONLY_GLOBAL: False
      SW_EXACT: 0
      MODE: 0
      VIL_MODE_SWITCH: 0.5
      POOL_METHOD: None
      WITH_SE: None
      SE_MLP_RATIO: 0.0625
      SE_MLP_BALANCE: False
  NAME: vision_longformer
`);
    const arch = "l1,h3,d96,n2,s1,g1,p4,f7,a0_l2,h6,d192,n2,s1,g1,p2,f7,a0";
    const words = ["--arch", "vil_2262", "--cfg", cfg, "MODEL.SPEC.MSVIT.ARCH", arch, "MODEL.SPEC.MSVIT.MODE", "1", "MODEL.SPEC.MSVIT.VIL_MODE_SWITCH", "0.75"];
    const { config, notes } = resolveConfig(words);
    expect(config.backbone).toMatchObject({ kind: "vil", arch, neighbors: "drawn", drawUntil: 0.75, border: "open", gate: "none", attention: "sliding" });
    // The arch's preset lies below the file.
    expect(notes).toEqual([expect.stringMatching(/--arch vil_2262: backbone.arch is .* which counts/)]);
    expect(toTrainerSpec(config).backbone).toMatchObject({
      kind: "vil", neighbors: "drawn", drawUntil: 0.75,
      stages: [
        { heads: 3, dim: 96, depth: 2, sparse: true, globals: 1, patchSize: 4, window: 7, absolutePosition: false, pooled: false },
        { heads: 6, dim: 192, depth: 2, sparse: true, globals: 1, patchSize: 2, window: 7, absolutePosition: false, pooled: false },
      ],
    });
    const refused = (...override: string[]): string => messageOf(() => resolveConfig(["--cfg", cfg, ...override]));
    expect(refused("MODEL.SPEC.MSVIT.ATTN_TYPE", "performer")).toMatch(/MSVIT.ATTN_TYPE must be one of longformerhand, .*"performer"/);
    expect(refused("MODEL.SPEC.MSVIT.MOD", "1")).toMatch(/MSVIT.MOD does not exist for Vision Longformer.*mean MSVIT.MODE\?/);
    expect(refused("MODEL.SPEC.DROP", "0.1")).toMatch(/MODEL.SPEC.DROP must be 0/);
  });

  test("a field's former name is read, in files and in recorded configurations; both names together are refused", () => {
    const text = JSON.stringify({ backbone: { kind: "vil", neighbours: "drawn" } });
    expect(parseConfigText(text, "checkpoint.pth").config.backbone).toMatchObject({ kind: "vil", neighbors: "drawn" });
    expect(parseConfigText(text, "checkpoint.pth", ["--backbone.neighbors", "all"]).config.backbone).toMatchObject({ neighbors: "all" });
    expect(completeConfig({ backbone: { kind: "vil", neighbours: "none" } }).backbone).toMatchObject({ neighbors: "none" });
    expect(completeConfig({ backbone: { kind: "vil", neighbours: "none" } }).backbone).not.toHaveProperty("neighbours");
    const both = "backbone: { kind: vil, neighbours: all, neighbors: all }";
    expect(messageOf(() => parseConfigText(both, "run.yaml"))).toBe("run.yaml: backbone.neighbours is the former name of backbone.neighbors; only one of them can be set");
    expect(messageOf(() => parseConfigText("backbone: { kind: vil, neighbours: some }", "run.yaml"))).toMatch(/^run.yaml: backbone.neighbors must be one of all, drawn, none/);
    expect(messageOf(() => parseConfigText("backbone: { kind: swin, neighbours: all }", "run.yaml"))).toMatch(/unknown field backbone.neighbors/);
  });

  test("a flag's former name is refused and leads to the present one", () => {
    expect(messageOf(() => resolveConfig(["--grey"]))).toBe("unknown flag --grey; did you mean --gray?");
  });

  test("its names for ViT take the flag for the patch", () => {
    expect(resolveConfig(["--arch", "deit_small", "--patch_size", "8"]).config.backbone).toMatchObject({ kind: "vit", dim: 384, heads: 6, patchSize: 8 });
    expect(resolveConfig(["--arch", "vit_base"]).config.backbone).toMatchObject({ kind: "vit", dim: 768, depth: 12, heads: 12, patchSize: 16 });
    expect(resolveConfig(["--arch", "swin_tiny", "--patch_size", "8"]).notes).toEqual([expect.stringMatching(/--patch_size is for ViT/)]);
    expect(messageOf(() => resolveConfig(["--arch", "vit_base", "--patch_size", "x"]))).toMatch(/--patch_size must be a whole number above 0/);
  });

  test("its flags are all known; those without a use here say so, those without a way are refused", () => {
    expect(resolveConfig(["--dist_url", "env://", "--use_fp16", "true", "--aa", "v0", "--resplit"]).notes).toHaveLength(3);
    expect(resolveConfig(["--use_fp16", "false", "--dataset", "imagenet1k", "--sampler", "distributed", "--zip_mode", "false"]).notes).toEqual([]);
    expect(messageOf(() => resolveConfig(["--zip_mode", "True"]))).toMatch(/--zip_mode True: zip archives are not read/);
    expect(messageOf(() => resolveConfig(["--aug-opt", "deit_aug"]))).toMatch(/--aug-opt|--aug_opt/);
    expect(messageOf(() => resolveConfig(["--arch", "vil_2226"]))).toMatch(/--arch must be one of swin, swin_tiny, .* resnext101_64x4d, .* got "vil_2226"/);
    expect(messageOf(() => resolveConfig(["--local_crops_number", "4", "4"]))).toMatch(/one size of local crops/);
    expect(messageOf(() => resolveConfig(["--norm_last_layer", "maybe"]))).toBe('--norm_last_layer must be true or false, got "maybe"');
    expect(messageOf(() => resolveConfig(["--epochs"]))).toBe("--epochs needs a value");
    expect(messageOf(() => resolveConfig(["--tsv_mode", "1"]))).toMatch(/tsv/);
  });

  test("every field a flag names exists", () => {
    for (const [name, flag] of Object.entries(originalFlags)) {
      if (flag.kind !== "field") continue;
      let node: unknown = completeConfig({});
      for (const key of flag.path.split(".")) node = (node as Record<string, unknown>)[key];
      expect(node, `--${name} → ${flag.path}`).not.toBeUndefined();
    }
  });

  test("mixup without CutMix works, with it it is refused", () => {
    const { config } = resolveConfig(["--use_mixup", "true", "--cutmix", "0", "--mixup", "0.5", "--num_mixup_views", "2"]);
    expect(config.mixup).toEqual({ enabled: true, views: 2, alpha: 0.5, probability: 1 });
    expect(messageOf(() => resolveConfig(["--use_mixup", "true"]))).toMatch(/add --cutmix 0/);
    expect(messageOf(() => resolveConfig(["--use_mixup", "true", "--cutmix", "0", "--smoothing", "0.1"]))).toMatch(/smoothing/);
    expect(resolveConfig(["mixup.enabled=true"]).config.mixup.enabled).toBe(true);
    expect(resolveConfig(["--cutmix", "1.0"]).notes).toEqual([expect.stringMatching(/--cutmix has no effect without --use_mixup/)]);
  });

  test("a CvT file and its overrides are understood", () => {
    const yaml = "MODEL:\n  SPEC:\n    INIT: 'trunc_norm'\n    NUM_STAGES: 2\n    DIM_EMBED: [8, 16]\n    NUM_HEADS: [1, 2]\n    RES_STEM: true\n    PADDING_QKV: [1, 1]\n  NAME: cls_cvt_v4\nTRAIN:\n  IMAGE_SIZE: [224, 224]\n";
    const path = join(scratch, "cvt.yaml");
    writeFileSync(path, `${yaml}`);
    const two = ["DEPTH [1,2]", "WINDOW_SIZE [7,7]", "PATCH_SIZE [7,3]", "PATCH_STRIDE [4,2]", "PATCH_PADDING [2,1]", "KERNEL_QKV [3,3]",
      "QKV_BIAS [true,true]", "MLP_RATIO [4,4]", "SHIFT [false,true]"];
    const { config } = resolveConfig(["--cfg", path, ...two.flatMap((pair) => `MODEL.SPEC.${pair}`.split(" "))]);
    expect(config.backbone).toMatchObject({ kind: "cvt", dims: [8, 16], depths: [1, 2], residualStem: true, shift: [false, true], dropPath: 0.1 });
    expect(resolveConfig(["--arch", "resnet50"]).config.backbone).toEqual({ kind: "resnet", depths: [3, 4, 6, 3], bottleneck: true, dim: 64, width: 64, groups: 1 });
    expect(resolveConfig(["--arch", "resnext101_32x8d"]).config.backbone).toMatchObject({ depths: [3, 4, 23, 3], bottleneck: true, width: 8, groups: 32 });
    expect(messageOf(() => resolveConfig(["--cfg", path, ...two.slice(1).flatMap((pair) => `MODEL.SPEC.${pair}`.split(" "))]))).toMatch(/depths must be 2 values/);
    expect(messageOf(() => resolveConfig(["--cfg", path, "MODEL.SPEC.WINDW", "[7,7]"]))).toMatch(/MODEL.SPEC.WINDW does not exist for CvT/);
  });

  test("a file of another backbone, or with a dropout, is refused by name", () => {
    const text = (changes: (yaml: string) => string) => () => parseConfigText(changes(referenceFile), "s1.yaml");
    expect(messageOf(text((yaml) => yaml.replace("swin_transformer", "cls_cut")))).toMatch(/s1.yaml: MODEL.NAME must be one of cls_cvt, .*swin_transformer, .*"cls_cut"/);
    expect(messageOf(text((yaml) => yaml.replace(" DROP_RATE: 0", " DROP_RATE: 0.1")))).toMatch(/s1.yaml: MODEL.SPEC.DROP_RATE must be 0/);
    expect(messageOf(text((yaml) => yaml.replace("WINDOW_SIZE", "WINDOW_SIZ")))).toMatch(/MODEL.SPEC.WINDOW_SIZ does not exist.*mean WINDOW_SIZE\?/);
    expect(messageOf(text((yaml) => yaml.replace("AMP:", "APM:")))).toMatch(/unknown field APM; did you mean AMP\?/);
    expect(messageOf(text((yaml) => yaml.replace("[ 224, 224 ]", "[ 224, 192 ]")))).toMatch(/TRAIN.IMAGE_SIZE must be two equal numbers/);
  });

  test("BASE lays a file over others", () => {
    writeFileSync(join(scratch, "base.yaml"), referenceFile);
    writeFileSync(join(scratch, "over.yaml"), "BASE: ['base.yaml']\nMODEL: { SPEC: { WINDOW_SIZE: 7 } }\n");
    expect(resolveConfig(["--cfg", join(scratch, "over.yaml")]).config.backbone).toMatchObject({ dim: 128, window: 7 });
    writeFileSync(join(scratch, "loop.yaml"), "BASE: ['loop.yaml']\n");
    expect(messageOf(() => resolveConfig(["--cfg", join(scratch, "loop.yaml")]))).toMatch(/BASE is nested/);
  });
});

describe("our command line", () => {
  test("knows every field by its path, in kebab case too, and leaves the folder alone", () => {
    const words = ["./images", "--batch-size", "8", "--loss.teacher-temperature.value=0.06", "--threads", "2", "optimizer.clipGrad", "0",
      "--save-every", "100", "backbone.depths=[2,2]", "backbone.heads", "(3, 6)", "--max-steps", "5", "data.path=None"];
    const { config, positional } = resolveConfig(words);
    expect(positional).toEqual(["./images"]);
    expect(config).toMatchObject({
      batchSize: 8, threads: 2, saveSteps: 100, maxSteps: 5, loss: { teacherTemperature: { value: 0.06 } }, optimizer: { clipGrad: 0 },
      backbone: { depths: [2, 2], heads: [3, 6] }, data: { path: null },
    });
  });

  test.each([
    ["--batchsize", /^unknown flag --batchsize; did you mean --batchSize\?$/],
    ["--windw", /^unknown flag --windw; did you mean --backbone.window\?$/],
    ["--use_dense_predicton", /did you mean --use_dense_prediction\?$/],
    ["optimiser.lr=1", /optimiser.lr=1: unknown field optimiser.lr; did you mean optimizer.lr\?/],
    ["lr=0.1", /lr=0.1: unknown field lr; did you mean optimizer.lr\?/],
    ["backbone.windwo=7", /did you mean backbone.window\?/],
  ])("%s is an error with a suggestion", (word, expected) => {
    expect(messageOf(() => resolveConfig([word, "3"]))).toMatch(expected);
  });
});

describe("a wrong field", () => {
  const problem = (text: string): string => messageOf(() => parseConfigText(text, "run.yaml"));

  test.each([
    ["epochs: 0", "run.yaml: epochs must be above 0, got 0"],
    ["epochs: ten", 'run.yaml: epochs must be a number, got "ten"'],
    ["epochs: 1.5", "run.yaml: epochs must be a whole number, got 1.5"],
    ["backbone: { windwo: 7 }", "run.yaml: unknown field backbone.windwo; did you mean backbone.window?"],
    ["localSize: 96", "run.yaml: unknown field localSize; did you mean crops.localSize?"],
    ["backbone: { kind: vti }", 'run.yaml: backbone.kind must be one of cvt, resnet, swin, vil, vit, got "vti"'],
    ["backbone: { kind: vit, heads: 5 }", "run.yaml: backbone.heads must be a divisor of the 384 channels, got 5"],
    ["backbone: { kind: vit, imageSize: 100 }", "run.yaml: backbone.imageSize must be a multiple of patchSize (16), got 100"],
    [
      "backbone: { kind: vil, arch: 'l1,h3,d96,x2' }",
      'run.yaml: backbone.arch must be stages such as l1,h3,d96,n1,s1,g1,p4,f7,a0, joined by _; "x2" is no attribute, got "l1,h3,d96,x2"',
    ],
    [
      "backbone: { kind: vil, arch: 'l1,h5,d96,p4' }",
      'run.yaml: backbone.arch must be stages whose channels their heads divide; stage 1 has 96 channels and 5 heads, got "l1,h5,d96,p4"',
    ],
    ["backbone: { kind: vil, border: exact, neighbors: drawn }", 'run.yaml: backbone.neighbors must be all where border is exact, got "drawn"'],
    ["{ backbone: { kind: vil }, crops: { localSize: 98 } }", "run.yaml: crops.localSize must be a multiple of backbone.arch's first stage (4), got 98"],
    ["backbone: { kind: resnet, bottleneck: false, groups: 2 }", "run.yaml: backbone.groups must be 1 where bottleneck is false, got 2"],
    ["backbone: { kind: resnet, dim: 16, width: 2 }", "run.yaml: backbone.width must be at least 4 where dim is 16, got 2"],
    ["optimizer: { kind: adam }", 'run.yaml: optimizer.kind must be one of adamw, sgd, lars, got "adam"'],
    ["crops: { globalScale: [0.4] }", "run.yaml: crops.globalScale must be a list of at least 2 items, got [0.4]"],
    ["crops: { globalScale: [1, 0.4] }", "run.yaml: crops.globalScale must be two numbers, the smaller first, got [1,0.4]"],
    ["backbone: { depths: [] }", "run.yaml: backbone.depths must be a list of at least 1 items, got []"],
    ["backbone: { depths: [2, 2] }", "run.yaml: backbone.heads must be 2 numbers, one for each stage of depths, got [3,6,12,24]"],
    ["backbone: { heads: [5, 6, 12, 24] }", "run.yaml: backbone.heads.0 must be a divisor of the stage's 96 channels, got 5"],
    ["crops: { localSize: 97 }", "run.yaml: crops.localSize must be a multiple of backbone.patchSize (4), got 97"],
    ["backbone: { absolutePosition: true }", "run.yaml: backbone.absolutePosition must be false, because localSize (96) differs from imageSize (224), got true"],
    ["{ epochs: 20, optimizer: { warmupEpochs: 21 } }", "run.yaml: optimizer.warmupEpochs must be at most epochs (20), got 21"],
    ["evaluate: { crop: 300 }", "run.yaml: evaluate.crop must be at most evaluate.resize (256), got 300"],
    ["mixup: { enabled: true }\nbatchSize: 3", "run.yaml: batchSize must be even, because mixup pairs images, got 3"],
    ["optimizer: 3", "run.yaml: optimizer must be an object, got 3"],
    ["- 1", "run.yaml: a configuration holds named fields (key: value)"],
    ["__proto__: { polluted: 1 }", "run.yaml: unknown field __proto__"],
  ])("%j is named", (text, expected) => {
    expect(problem(text)).toBe(expected);
  });

  test("several are reported at once, each with its own source", () => {
    const message = messageOf(() => parseConfigText("epochs: 0\nseed: -1\n", "run.yaml", ["--batch-size", "0"]));
    expect(message.split("\n").sort()).toEqual([
      "--batch-size: batchSize must be above 0, got 0", "run.yaml: epochs must be above 0, got 0", "run.yaml: seed must be at least 0, got -1",
    ]);
  });

  test("files that are missing, broken or far too large are named", () => {
    expect(messageOf(() => resolveConfig(["--config", "/no/such.yaml"]))).toBe("/no/such.yaml: the configuration cannot be read: there is no such file");
    expect(problem("a: [1")).toMatch(/^run.yaml: /);
    expect(problem("a: &x 1\nb: *x")).toMatch(/^run.yaml: /);
    const big = join(scratch, "big.yaml");
    writeFileSync(big, "#".repeat(2 ** 20 + 1));
    expect(messageOf(() => resolveConfig(["--config", big]))).toMatch(/at most 1 MiB/);
  });
});

describe("the engine's specification", () => {
  test("carries every setting over", () => {
    const config = completeConfig({
      seed: 9, threads: 3, batchSize: 8, backbone: { kind: "swin", dim: 48, depths: [2, 2], heads: [2, 4], window: 4, imageSize: 64, dropPath: 0 },
      loss: { region: true }, crops: { localCount: 4, globalSize: 64, localSize: 32 }, mixup: { enabled: true }, evaluate: { crop: 64, resize: 72, batchSize: 5 },
    });
    expect(toTrainerSpec(config)).toEqual({
      backbone: {
        kind: "swin", imageSize: 64, patchSize: 4, dim: 48, depths: [2, 2], heads: [2, 4], window: 4, mlpRatio: 4,
        qkvBias: true, absolutePosition: false, patchNorm: true, dropPath: 0,
      },
      head: { outDim: 65536, hiddenDim: 2048, bottleneckDim: 256, layers: 3, batchNorm: false, normLastLayer: true },
      crops: { batch: 8, globalSize: 64, localSize: 32, localCount: 4 },
      loss: { region: true, studentTemperature: 0.1, centerMomentum: 0.9, mixup: true },
      optimizer: "adamw", clipGrad: 3, precision: "f32", checkpointing: false, accumulate: 1, seed: 9, threads: 3,
    });
    expect(toEncoderSpec(config, { lastBlocks: 4 })).toMatchObject({ imageSize: 64, batch: 5, threads: 3, output: { lastBlocks: 4 } });
    expect(toTrainerSpec(completeConfig({})).threads).toBeGreaterThan(0);
  });
});

describe("the JSON schema", () => {
  test("allows no unknown fields, and has a default or a description for every field", () => {
    const walk = (node: Record<string, unknown>, path: string): void => {
      for (const member of (node["oneOf"] as Record<string, unknown>[] | undefined) ?? []) walk(member, path);
      const properties = node["properties"] as Record<string, Record<string, unknown>> | undefined;
      if (!properties) return;
      expect(node["additionalProperties"], path).toBe(false);
      for (const [key, child] of Object.entries(properties)) {
        expect("default" in child || "const" in child || "properties" in child, `${path}.${key}`).toBe(true);
        walk(child, `${path}.${key}`);
      }
    };
    walk(configSchema(), "");
  });
});
