/**
 * Calls every function of the addon that takes an array, and does to the array what JavaScript can do to it. Prints one JSON object a
 * line: which call, what was done, and whether the result was that of the original content. Run with `--expose-gc`, in a process of
 * its own: what is tested for is that it does not crash.
 */
import { Worker } from "node:worker_threads";
import { resolveConfig, toEncoderSpec, toTrainerSpec } from "../../dist/config/index.js";
import { EngineError, native } from "../../dist/native/index.js";

const engine = native();
const { config } = resolveConfig(["--config", process.argv[2], "--batch-size", "1"]);
const { globalSize, localSize, localCount } = config.crops;
const layout = { batch: 1, passes: 1, globalSize, localSize, localCount };
const parameters = { step: 0, progress: 0, learningRate: 1e-3, weightDecay: 0, momentum: 0.9, teacherTemperature: 0.05, freezeLastLayer: false };

const noise = (count) => Uint8Array.from({ length: count }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 24));
const picture = engine.encodePng(noise(3 * 64 * 48), 64, 48);
const plan = (side) => ({ left: 3, top: 2, width: 50, height: 40, outWidth: side, outHeight: side, filter: "bicubic", flip: false, operations: [] });
const plans = Array.from({ length: 2 + localCount }, (_, i) => plan(i < 2 ? globalSize : localSize));
const pixels = noise(4 * 3 * globalSize * globalSize);

/** An array of the same content, in a buffer of its own of the given class. */
function placed(array, buffer) {
  const copy = new array.constructor(buffer, 0, array.length);
  copy.set(array);
  return copy;
}

const transferred = (array) => structuredClone(array.buffer, { transfer: [array.buffer] });
const swallow = new Worker("require('node:worker_threads').parentPort.on('message', () => {})", { eval: true });
const scribble = new Worker(
  "require('node:worker_threads').parentPort.on('message', (b) => { const a = new Uint8Array(b); for (let i = 0; i < 200; i++) a.fill(i); })", { eval: true },
);
swallow.unref();
scribble.unref();

/** Makes the array that is passed (`make`), and touches it right after the call (`then`). `refused`: it cannot be read at all. */
const touches = {
  nothing: {},
  "written during": { then: (array) => array.fill(0) },
  "transferred during": { then: transferred },
  "sent to a worker during": { then: (array) => swallow.postMessage(array, [array.buffer]) },
  "shrunk during": { make: (a) => placed(a, new ArrayBuffer(a.byteLength, { maxByteLength: 2 * a.byteLength })), then: (a) => a.buffer.resize(0) },
  "grown during": { make: (a) => placed(a, new ArrayBuffer(a.byteLength, { maxByteLength: 2 * a.byteLength })), then: (a) => a.buffer.resize(2 * a.byteLength) },
  "a view that follows its buffer, shrunk during": {
    make: (a) => { const b = new ArrayBuffer(a.byteLength, { maxByteLength: 2 * a.byteLength }); const v = new a.constructor(b); v.set(a); return v; },
    then: (a) => a.buffer.resize(4),
  },
  "a part of a larger buffer, transferred during": {
    make: (a) => { const b = new ArrayBuffer(a.byteLength + 16); const v = new a.constructor(b, 8, a.length); v.set(a); return v; }, then: transferred,
  },
  "detached before": { make: (a) => { const copy = a.slice(); transferred(copy); return copy; }, refused: true },
  "shrunk before": {
    make: (a) => { const copy = placed(a, new ArrayBuffer(a.byteLength, { maxByteLength: a.byteLength })); copy.buffer.resize(a.byteLength / 2); return copy; }, refused: true,
  },
  "shared with a worker": {
    make: (a) => { const copy = placed(a, new SharedArrayBuffer(a.byteLength)); scribble.postMessage(copy.buffer); return copy; }, refused: true,
  },
};

const encoder = engine.createEncoder(toEncoderSpec({ ...config, evaluate: { ...config.evaluate, batchSize: 4, crop: globalSize } }), "cpu");
await encoder.initialize(1);
const trainer = engine.createTrainer(toTrainerSpec(config), "cpu");
const batch = engine.createBatch(layout);
await batch.renderInto(picture, 0, plans);
await trainer.step(batch, parameters);
const state = await trainer.state();
const { width } = encoder;
const backbone = state.teacher.filter(({ name }) => !/^head(_dense)?\./.test(name));
const bank = Float32Array.from(noise(32 * 8));
const bankLabels = Uint32Array.from({ length: 32 }, (_, i) => i % 4);
const queries = Float32Array.from(noise(64).reverse());
const queryLabels = Uint32Array.from({ length: 8 }, (_, i) => i % 4);
const withData = (tensors, wrap) => tensors.map((tensor) => ({ ...tensor, data: wrap(tensor.data) }));
const everything = (wrap) => ({
  ...state, student: withData(state.student, wrap), teacher: withData(state.teacher, wrap), loss: withData(state.loss, wrap),
  optimizer: { ...state.optimizer, slots: withData(state.optimizer.slots, wrap) },
});
const views = () => encoder.encode(pixels, 4);

/** Starts the call with arrays that `wrap` made; the result is what came of it. */
const calls = {
  "encoder.encode": (wrap) => encoder.encode(wrap(pixels), 4),
  "encoder.load": (wrap) => { const loaded = encoder.load(withData(backbone, wrap)); return loaded.then(views); },
  "trainer.load": (wrap) => { const loaded = trainer.load(everything(wrap)); return loaded.then(() => trainer.state()); },
  "trainer.loadWeights": (wrap) => { const loaded = trainer.loadWeights(withData(state.student, wrap), false); return loaded.then(() => trainer.state()); },
  renderCrops: (wrap) => engine.renderCrops(wrap(picture), plans),
  "batch.renderInto": (wrap) => {
    const own = engine.createBatch(layout);
    const rendered = own.renderInto(wrap(picture), 0, plans);
    return rendered.then(() => trainer.load(state)).then(() => trainer.step(own, parameters)).then(({ loss }) => loss);
  },
  imageInfo: async (wrap) => engine.imageInfo(wrap(picture)),
  encodePng: async (wrap) => engine.encodePng(wrap(pixels), 2 * globalSize, 2 * globalSize),
  "trainer.read": async (wrap) => {
    const target = wrap(new Uint8Array(state.student[0].data.length));
    trainer.read("student", 0, target);
    return target.slice();
  },
  "knn: the bank": (wrap) => engine.knn(wrap(bank), bankLabels, queries, queryLabels, 8, 4, [3], 0.1),
  "knn: the bank's labels": (wrap) => engine.knn(bank, wrap(bankLabels), queries, queryLabels, 8, 4, [3], 0.1),
  "knn: the queries": (wrap) => engine.knn(bank, bankLabels, wrap(queries), queryLabels, 8, 4, [3], 0.1),
  "knn: the queries' labels": (wrap) => engine.knn(bank, bankLabels, queries, wrap(queryLabels), 8, 4, [3], 0.1),
};

/** Everything of a result, exactly; fields in the order of their names. */
const show = (value) => JSON.stringify(value, (_, v) => {
  if (ArrayBuffer.isView(v)) return Buffer.from(v.buffer, v.byteOffset, v.byteLength).toString("base64");
  return typeof v === "object" && v !== null && !Array.isArray(v) ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1))) : v;
});

async function attempt(call, { make = (array) => array.slice(), then = () => {} }) {
  const passed = [];
  let pending;
  try {
    await trainer.load(state);
    pending = call((array) => { const copy = make(array); passed.push(copy); return copy; });
  } catch (error) {
    pending = Promise.reject(error);
  }
  // From here on the call has returned; its task is under way.
  pending.catch(() => undefined);
  const sizes = passed.map(({ byteLength }) => byteLength);
  for (const array of passed) if (array.byteLength > 0) then(array);
  passed.length = 0;
  globalThis.gc();
  for (const size of sizes.slice(0, 8)) new Uint8Array(size).fill(255);
  globalThis.gc();
  try {
    return { result: show(await pending) };
  } catch (error) {
    return { code: error instanceof EngineError ? error.code : error.name, message: error.message };
  }
}

for (const [name, call] of Object.entries(calls)) {
  let original;
  for (const [touch, how] of Object.entries(touches)) {
    const { result, ...error } = await attempt(call, how);
    original ??= result;
    process.stdout.write(`${JSON.stringify({ call: name, touch, refused: how.refused === true, same: result === original, ...error })}\n`);
  }
}
// A later tensor's getter takes the memory of an earlier one away while the arguments are read.
const victims = withData(backbone, (data) => data.slice());
Object.defineProperty(victims.at(-1), "data", { enumerable: true, get: () => { victims.slice(0, -1).forEach(({ data }) => transferred(data)); return backbone.at(-1).data; } });
await encoder.load(withData(backbone, (data) => data.slice()));
const before = show(await views());
await encoder.load(victims);
process.stdout.write(`${JSON.stringify({ call: "encoder.load", touch: "transferred by a getter", refused: false, same: show(await views()) === before })}\n`);
encoder.dispose();
trainer.dispose();
process.exit(0);
