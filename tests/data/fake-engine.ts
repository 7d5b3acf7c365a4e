import type { BatchEngine, ImageEngine } from "../../ts/src/data/index.js";
import { EngineError, type Batch, type BatchLayout, type CropPlan } from "../../ts/src/native/index.js";

/**
 * Stands in for the addon. A "file" is the text `<id> <width> <height>`, or `broken`. Every byte of a rendered crop is a hash of
 * the id and the plan, so that equal pixels mean equal plans on equal images.
 */
export class FakeEngine implements ImageEngine, BatchEngine {
  /** Crops being rendered right now, and the most there ever were. */
  running = 0;
  most = 0;
  rendered = 0;
  /** Batches that were made, in order. */
  batches: FakeBatch[] = [];
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

  createBatch(layout: BatchLayout): FakeBatch {
    const batch = new FakeBatch(this, layout);
    this.batches.push(batch);
    return batch;
  }

  private read(encoded: Uint8Array): [number, number, number] {
    const text = Buffer.from(encoded).toString();
    if (text.startsWith("broken")) throw new Error("this is no image");
    const [id = 0, width = 0, height = 0] = text.split(" ").map(Number);
    return [id, width, height];
  }
}

/** A batch whose pixels a test can look at: crop c of image b at position c·B + b of `global`, then of `local`. */
export class FakeBatch implements Batch {
  readonly global: Uint8Array;
  readonly local: Uint8Array;
  disposed = false;
  private readonly images: number;
  private readonly places: ("free" | "taken" | "written")[];

  constructor(private readonly engine: FakeEngine, private readonly layout: BatchLayout) {
    this.images = layout.batch * layout.passes;
    this.global = new Uint8Array(2 * this.images * 3 * layout.globalSize ** 2);
    this.local = new Uint8Array(layout.localCount * this.images * 3 * layout.localSize ** 2);
    this.places = new Array<"free">(this.images).fill("free");
  }

  /** Whether all images are written, as a step demands. */
  get full(): boolean {
    return this.places.every((place) => place === "written");
  }

  async renderInto(encoded: Uint8Array, image: number, crops: CropPlan[]): Promise<void> {
    if (this.disposed || this.places[image] !== "free") throw new EngineError("ENGINE", `image ${image} is not free`);
    this.places[image] = "taken";
    try {
      let rest = await this.engine.renderCrops(encoded, crops);
      for (let crop = 0; crop < 2 + this.layout.localCount; crop++) {
        const isGlobal = crop < 2;
        const bytes = 3 * (isGlobal ? this.layout.globalSize : this.layout.localSize) ** 2;
        (isGlobal ? this.global : this.local).set(rest.subarray(0, bytes), ((isGlobal ? crop : crop - 2) * this.images + image) * bytes);
        rest = rest.subarray(bytes);
      }
      this.places[image] = "written";
    } catch (error) {
      this.places[image] = "free";
      throw error;
    }
  }

  clear(): void {
    if (this.places.includes("taken")) throw new EngineError("ENGINE", "an image is being rendered");
    this.places.fill("free");
  }

  dispose(): void {
    this.disposed = true;
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
