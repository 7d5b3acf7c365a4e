/** A file appears whole or not at all, whatever the disk does. */
import { spawnSync } from "node:child_process";
import * as nodeFs from "node:fs";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readCheckpoint, saveCheckpoint, writeCheckpoint } from "../../ts/src/checkpoint/checkpoint.js";
import { CheckpointError } from "../../ts/src/checkpoint/errors.js";
import { removeStaleTemporaries, writeAtomically, type FileSystem } from "../../ts/src/checkpoint/store.js";
import { f32Tensor } from "../../ts/src/checkpoint/tensor.js";
import { temporaryFolder } from "../support/temporary.js";

const root = temporaryFolder();
const fresh = (): string => mkdtempSync(join(root, "run-"));
const contents = (value: number): Parameters<typeof writeCheckpoint>[1] => ({
  student: new Map([["module.w", f32Tensor([1000], new Float32Array(1000).fill(value))]]),
  epoch: value,
});
const epochOf = (file: string): number | undefined => readCheckpoint(file).epoch;

/** Node's file system, where one call fails. */
function failing(call: keyof FileSystem, code: string, after = 0): FileSystem {
  let left = after;
  const fail = (...args: unknown[]): unknown => {
    if (left-- > 0) return (nodeFs[call] as (...rest: unknown[]) => unknown)(...args);
    throw Object.assign(new Error(`${code}: simulated`), { code });
  };
  return { ...nodeFs, [call]: fail };
}

function errorOf(run: () => void): CheckpointError {
  try {
    run();
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(CheckpointError);
    return thrown as CheckpointError;
  }
  throw new Error("did not throw");
}

describe("a checkpoint", () => {
  it("is written beside a numbered copy, which later writes leave alone", () => {
    const folder = fresh();
    saveCheckpoint(folder, contents(1), 0);
    saveCheckpoint(folder, contents(2));
    expect(readdirSync(folder).sort()).toEqual(["checkpoint.pth", "checkpoint0000.pth"]);
    expect([epochOf(join(folder, "checkpoint.pth")), epochOf(join(folder, "checkpoint0000.pth"))]).toEqual([2, 1]);
    saveCheckpoint(folder, contents(3), 0);
    expect(epochOf(join(folder, "checkpoint0000.pth"))).toBe(3);
    saveCheckpoint(folder, contents(4), 12345);
    expect(existsSync(join(folder, "checkpoint12345.pth"))).toBe(true);
  });

  it("shares its bytes with the copy where the file system has hard links, and is written twice where not", () => {
    const folder = fresh();
    saveCheckpoint(folder, contents(1), 7);
    const inode = (name: string): number => statSync(join(folder, name)).ino;
    expect(inode("checkpoint.pth")).toBe(inode("checkpoint0007.pth"));
    saveCheckpoint(folder, contents(2), 8, failing("linkSync", "EPERM"));
    expect(inode("checkpoint.pth")).not.toBe(inode("checkpoint0008.pth"));
    expect(readFileSync(join(folder, "checkpoint.pth"))).toEqual(readFileSync(join(folder, "checkpoint0008.pth")));
  });

  it.each([
    ["writeSync", "ENOSPC", 0], ["writeSync", "ENOSPC", 3], ["writeSync", "EIO", 1], ["fsyncSync", "EIO", 0],
    ["renameSync", "EACCES", 0], ["renameSync", "EACCES", 1], ["openSync", "EACCES", 0],
  ] as const)("is as it was when %s fails with %s (call %i)", (call, code, after) => {
    const folder = fresh();
    const file = join(folder, "checkpoint.pth");
    saveCheckpoint(folder, contents(1));
    const error = errorOf(() => saveCheckpoint(folder, contents(2), 5, failing(call, code, after)));
    expect(error).toMatchObject({ kind: "write", file });
    expect(error.message).toContain(code);
    expect(epochOf(file)).toBe(1);
    // The numbered copy is there or not; if it is, it is whole.
    const left = readdirSync(folder).filter((name) => name !== "checkpoint.pth");
    for (const name of left) expect([name, epochOf(join(folder, name))]).toEqual(["checkpoint0005.pth", 2]);
  });

  it("says so when only the folder could not be forced to disk", () => {
    const folder = fresh();
    const error = errorOf(() => saveCheckpoint(folder, contents(2), undefined, failing("fsyncSync", "EIO", 1)));
    expect(error.message).toContain("may not survive");
    expect(epochOf(join(folder, "checkpoint.pth"))).toBe(2);
  });

  it("that cannot be pickled leaves the earlier one", () => {
    const folder = fresh();
    saveCheckpoint(folder, contents(1));
    const deep = Array.from({ length: 100 }).reduce<never[]>((inner) => [inner] as never[], []);
    errorOf(() => saveCheckpoint(folder, { ...contents(2), extra: new Map([["deep", deep]]) }));
    expect(epochOf(join(folder, "checkpoint.pth"))).toBe(1);
    expect(readdirSync(folder)).toEqual(["checkpoint.pth"]);
  });

  it("cannot be written into a folder that is not there", () => {
    expect(errorOf(() => writeCheckpoint(join(root, "absent", "x.pth"), contents(1)))).toMatchObject({ kind: "write" });
  });

  it("is as it was when the disk is full", ({ skip }) => {
    const folder = fresh();
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", folder], { encoding: "utf8" });
    if (mounted.status !== 0) {
      const reason = `a small disk cannot be mounted here (${mounted.error?.message ?? mounted.stderr.trim()})`;
      console.warn(reason);
      skip(reason);
    }
    try {
      saveCheckpoint(folder, contents(1));
      const large = { student: new Map([["w", f32Tensor([100_000], new Float32Array(100_000))]]) };
      const error = errorOf(() => saveCheckpoint(folder, large, 3));
      expect(error).toMatchObject({ kind: "write" });
      expect(error.message).toContain("ENOSPC");
      expect(epochOf(join(folder, "checkpoint.pth"))).toBe(1);
      expect(readdirSync(folder)).toEqual(["checkpoint.pth"]);
    } finally {
      spawnSync("umount", [folder]);
    }
  });
});

describe("temporary files", () => {
  const host = Buffer.from(hostname() || "localhost").toString("hex").slice(0, 32);
  const temporary = (tag: string, pid: number): string => `.checkpoint.pth.${tag}-${pid}-0123456789ab.tmp`;

  it("of writers that died are removed, others stay", () => {
    const folder = fresh();
    const dead = spawnSync(process.execPath, ["-e", ""]).pid;
    const names = {
      dead: temporary(host, dead),
      alive: temporary(host, process.pid),
      foreign: temporary("abcd", dead),
      oldForeign: temporary("ef01", dead),
      other: ".checkpoint.pth.tmp",
    };
    for (const name of Object.values(names)) writeFileSync(join(folder, name), "x");
    utimesSync(join(folder, names.oldForeign), 0, 0);
    expect(removeStaleTemporaries(folder).sort()).toEqual([names.dead, names.oldForeign].sort());
    expect(readdirSync(folder).sort()).toEqual([names.alive, names.foreign, names.other].sort());
  });

  it("of a killed writer go with the next write", () => {
    const folder = fresh();
    mkdirSync(folder, { recursive: true });
    const killed = spawnSync(process.execPath, ["-e", `
      require("node:fs").writeFileSync(${JSON.stringify(folder)} + "/.checkpoint.pth.${host}-" + process.pid + "-0123456789ab.tmp", "half");
      process.kill(process.pid, "SIGKILL");
    `]);
    expect(killed.signal).toBe("SIGKILL");
    expect(readdirSync(folder)).toHaveLength(1);
    writeAtomically(join(folder, "checkpoint.pth"), (sink) => sink.write(Buffer.from("whole")));
    expect(readdirSync(folder)).toEqual(["checkpoint.pth"]);
  });
});
