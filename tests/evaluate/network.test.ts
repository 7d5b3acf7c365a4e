import { describe, expect, test } from "vitest";
import { join } from "node:path";
import { Tensor, writeCheckpoint, readCheckpoint, type Checkpoint, type CheckpointContents } from "../../ts/src/checkpoint/index.js";
import { completeConfig } from "../../ts/src/config/index.js";
import { networkOf } from "../../ts/src/evaluate/index.js";
import { temporaryFolder } from "../support/temporary.js";

const scratch = temporaryFolder();
let made = 0;
const net = new Map([["norm.weight", new Tensor("f32", [1], new Uint8Array(4))]]);

function checkpoint(contents: CheckpointContents): Checkpoint {
  const file = join(scratch, `${made++}.pth`);
  writeCheckpoint(file, contents);
  return readCheckpoint(file);
}

describe("the network of a checkpoint", () => {
  const config = completeConfig({ backbone: { kind: "swin", dim: 48 }, evaluate: { resize: 72, crop: 64 } });
  const ours = checkpoint({ teacher: net, esvit: new Map([["config", JSON.stringify(config)]]) });

  test("is the one it was trained with, with other settings over it", () => {
    expect(networkOf(ours, "teacher").config).toEqual(config);
    expect(networkOf(ours, "teacher").weights.map(({ name }) => name)).toEqual(["norm.weight"]);
    expect(networkOf(ours, "teacher", ["evaluate.resize", "96"]).config.evaluate.resize).toBe(96);
  });

  test("is what the user says", () => {
    expect(networkOf(ours, "teacher", ["--arch", "swin_base"]).config.backbone).toMatchObject({ dim: 128 });
    expect(networkOf(ours, "teacher", ["--arch=swin_base"]).config.backbone).toMatchObject({ dim: 128 });
  });

  test("is the arch of the original's options, which is said", () => {
    const theirs = checkpoint({ teacher: net, args: new Map([["arch", "swin_large"]]) });
    const { config: found, notes } = networkOf(theirs, "teacher");
    expect(found.backbone).toMatchObject({ dim: 192 });
    expect(notes[0]).toContain("taken for swin_large");
  });

  test("is unknown where nothing says it, and not that of a net that is not there", () => {
    const bare = checkpoint({ weights: net });
    expect(() => networkOf(bare, "teacher")).toThrow(`${bare.file}: does not say which network it holds; name its configuration with --config`);
    expect(() => networkOf(ours, "student")).toThrow(`${ours.file}: has no "student"`);
  });

  test("cannot be a damaged record", () => {
    const damaged = checkpoint({ teacher: net, esvit: new Map([["config", "{\"epohcs\": 3}"]]) });
    expect(() => networkOf(damaged, "teacher")).toThrow(/"esvit\/config": unknown field epohcs/);
  });
});
