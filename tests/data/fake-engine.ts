import type { ImageEngine } from "../../ts/src/data/index.js";
import type { CropPlan } from "../../ts/src/native/index.js";

/**
 * Stands in for the addon. A "file" is the text `<id> <width> <height>`, or `broken`. Every byte of a rendered crop is a hash of
 * the id and the plan, so that equal pixels mean equal plans on equal images.
 */
export class FakeEngine implements ImageEngine {
  /** Crops being rendered right now, and the most there ever were. */
  running = 0;
  most = 0;
  rendered = 0;
  /** Milliseconds for an image; may depend on it. */
  delay: (id: number) => number = () => 0;

  imageInfo(encoded: Uint8Array): { width: number; height: number } {
    const [, width, height] = this.read(encoded);
    return { width, height };
  }

  async renderCrops(encoded: Uint8Array, crops: CropPlan[]): Promise<Uint8Array> {
    const [id] = this.read(encoded);
    this.most = Math.max(this.most, ++this.running);
    await new Promise((resolve) => setTimeout(resolve, this.delay(id)));
    this.running--;
    this.rendered++;
    if (id === 666) throw Object.assign(new Error("the scan ends early"), { code: "IMAGE" });
    if (id === 667) throw new Error("a bug in the engine");
    const parts = crops.map((plan) => new Uint8Array(plan.outWidth * plan.outHeight * 3).fill(hash(`${id} ${JSON.stringify(plan)}`)));
    return Buffer.concat(parts);
  }

  private read(encoded: Uint8Array): [number, number, number] {
    const text = Buffer.from(encoded).toString();
    if (text.startsWith("broken")) throw new Error("this is no image");
    const [id = 0, width = 0, height = 0] = text.split(" ").map(Number);
    return [id, width, height];
  }
}

/** All that a series yields. */
export async function collect<T>(series: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of series) values.push(value);
  return values;
}

function hash(text: string): number {
  let value = 7;
  for (const letter of text) value = (value * 31 + letter.charCodeAt(0)) % 251;
  return value;
}
