/** A folder for one test file, removed when its tests are done. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

/** Makes the folder; to be called once, at the top of a test file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "esvit-test-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
