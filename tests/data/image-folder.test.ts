import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, test } from "vitest";
import { DataError, findSplits, openDataset, subset } from "../../ts/src/data/index.js";
import { temporaryFolder } from "../support/temporary.js";

const scratch = temporaryFolder();
let made = 0;

/** A new folder that holds these files. */
function tree(...paths: string[]): string {
  const root = join(scratch, `tree${made++}`);
  mkdirSync(root);
  for (const path of paths) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), "x");
  }
  return root;
}

const limit = { maxFileMiB: 1 };

async function opened(root: string, classes?: string[]): Promise<{ files: [string, number | null][]; classes: readonly string[] | null }> {
  const set = await openDataset(root, { ...limit, ...(classes && { classes }) });
  expect(set.root).toBe(root);
  const files = Array.from({ length: set.length }, (_, index): [string, number | null] => [relative(root, set.name(index)), set.label(index)]);
  return { files, classes: set.classes };
}

describe("a folder of images", () => {
  test("sub-folders are classes, sorted by bytes, images by folder and name", async () => {
    const root = tree("b/2.png", "b/10.png", "a/x.jpg", "B/z.JPEG", "é/1.webp", "a/deep/0.tiff", "a/y.bmp", "empty/readme.txt");
    expect(await opened(root)).toEqual({
      classes: ["B", "a", "b", "é"],
      files: [["B/z.JPEG", 0], ["a/x.jpg", 1], ["a/y.bmp", 1], ["a/deep/0.tiff", 1], ["b/10.png", 2], ["b/2.png", 2], ["é/1.webp", 3]],
    });
  });

  test("images right in the folder have no labels, and those below neither", async () => {
    expect(await opened(tree("2.gif", "1.tif", "more/3.jpg"))).toEqual({ classes: null, files: [["1.tif", null], ["2.gif", null], ["more/3.jpg", null]] });
  });

  test("hidden files and folders, and other files, are skipped", async () => {
    expect(await opened(tree(".hidden.png", ".git/a.png", "a/.b.png", "a/c.png", "a/d.txt", "notes.md"))).toEqual({ classes: ["a"], files: [["a/c.png", 0]] });
  });

  test("links are followed, circles end", async () => {
    const root = tree("a/1.png");
    symlinkSync(join(root, "a"), join(root, "linked"));
    symlinkSync(root, join(root, "a", "circle"));
    symlinkSync(join(root, "nowhere"), join(root, "a", "broken.png"));
    expect((await opened(root)).files).toEqual([["a/1.png", 0], ["linked/1.png", 1]]);
  });

  test("a second part of the set uses the first one's classes", async () => {
    const root = tree("b/1.png", "d/2.png");
    expect((await opened(root, ["a", "b", "c", "d"])).files).toEqual([["b/1.png", 1], ["d/2.png", 3]]);
    await expect(openDataset(root, { ...limit, classes: ["a", "b"] })).rejects.toThrow(/tree\d+\/d: there is no class of this name/);
  });

  test("what cannot be used is named", async () => {
    await expect(openDataset("/no/such/folder", limit)).rejects.toThrow(new DataError("/no/such/folder: there is no such folder"));
    await expect(openDataset(tree("a/readme.txt"), limit)).rejects.toThrow(/there is no image in this folder/);
    await expect(openDataset(join(tree("a.png"), "a.png"), limit)).rejects.toThrow(/this is a file, not a folder/);
  });
});

describe("an image of a set", () => {
  test("is read by its index, up to the limit", async () => {
    const root = tree("a/1.png", "b/2.png", "b/3.png");
    writeFileSync(join(root, "b/3.png"), "x".repeat(2000));
    const set = await openDataset(root, { maxFileMiB: 0.001 });
    expect(Buffer.from(await set.read(1)).toString()).toBe("x");
    await expect(set.read(2)).rejects.toThrow(`${join(root, "b/3.png")}: 2000 bytes are more than data.maxFileMiB allows`);
    await expect(set.read(0, AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
    await expect(set.read(3)).rejects.toThrow(RangeError);
  });

  test("keeps its name, label and bytes in a part of the set", async () => {
    const root = tree("a/1.png", "b/2.png", "b/3.png");
    writeFileSync(join(root, "b/3.png"), "three");
    const part = subset(await openDataset(root, limit), [2, 0]);
    expect(part).toMatchObject({ root, length: 2, classes: ["a", "b"] });
    expect([0, 1].map((index) => [relative(root, part.name(index)), part.label(index)])).toEqual([["b/3.png", 1], ["a/1.png", 0]]);
    expect(Buffer.from(await part.read(0)).toString()).toBe("three");
    expect(() => part.name(2)).toThrow(RangeError);
  });
});

describe("findSplits", () => {
  test.each([
    ["train and val below", ["train/a/1.png", "val/a/1.png"], "", "train", "val"],
    ["train alone", ["train/a/1.png"], "", "train", null],
    ["train and val among others", ["train/a/1.png", "val/a/1.png", "test/2.png"], "", "train", "val"],
    ["the original's .../train", ["train/a/1.png", "val/a/1.png"], "train", "train", "val"],
    ["classes", ["a/1.png", "b/1.png"], "", "", null],
    ["a class called train", ["train/1.png", "plane/1.png"], "", "", null],
    ["images", ["1.png", "train/2.png"], "", "", null],
  ])("%s", async (_, files, below, train, val) => {
    const root = tree(...files);
    const splits = await findSplits(join(root, below));
    expect(relative(root, splits.train)).toBe(train);
    expect(splits.val === null ? null : relative(root, splits.val).split("/").at(-1)).toBe(val);
  });
});
