/**
 * Tensors of a checkpoint: a shape, an element type and little-endian bytes, row-major and without gaps.
 *
 * A tensor read from a file is a view of its storage wherever the storage allows it, so reading a
 * checkpoint holds its bytes once.
 */

/** Element types, named as in safetensors and Rust. `bf16` is the upper half of an f32. */
export type Dtype = "f32" | "f16" | "bf16" | "f64" | "i64" | "i32" | "i16" | "i8" | "u8" | "bool";

const ITEM_SIZE: Record<Dtype, number> = {
  f32: 4, f16: 2, bf16: 2, f64: 8, i64: 8, i32: 4, i16: 2, i8: 1, u8: 1, bool: 1,
};

/** Bytes of one element. */
export function itemSize(dtype: Dtype): number {
  return ITEM_SIZE[dtype];
}

/** Product of a shape; 1 for a scalar, whose shape is empty. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((count, side) => count * side, 1);
}

/** One tensor: exactly `elementCount(shape)` elements, here or where `read` copies them from. */
export class Tensor {
  constructor(
    readonly dtype: Dtype,
    readonly shape: readonly number[],
    private readonly source: Uint8Array | ((target: Uint8Array) => void),
  ) {
    if (source instanceof Uint8Array && source.byteLength !== this.byteLength) {
      throw new RangeError(`a ${dtype} tensor of shape [${shape.join(", ")}] has ${this.byteLength} bytes, got ${source.byteLength}`);
    }
  }

  get byteLength(): number {
    return elementCount(this.shape) * itemSize(this.dtype);
  }

  /** The elements where they lie in memory; undefined when they are elsewhere. */
  get held(): Uint8Array | undefined {
    return this.source instanceof Uint8Array ? this.source : undefined;
  }

  /** The elements; those that are elsewhere are copied each time. */
  get data(): Uint8Array {
    return this.source instanceof Uint8Array ? this.source : this.into(new Uint8Array(this.byteLength));
  }

  /** Copies elements that are elsewhere to the beginning of `buffer`, and gives that part of it; those that are here are given as they are. */
  into(buffer: Uint8Array): Uint8Array {
    if (this.source instanceof Uint8Array) return this.source;
    const target = buffer.subarray(0, this.byteLength);
    this.source(target);
    return target;
  }
}

/** A tensor of f32 values. */
export function f32Tensor(shape: readonly number[], values: ArrayLike<number>): Tensor {
  const floats = Float32Array.from(values);
  return new Tensor("f32", shape, new Uint8Array(floats.buffer));
}

/** A run of elements in a file; several tensors may look into one storage. */
export class Storage {
  constructor(
    readonly dtype: Dtype,
    readonly bytes: Uint8Array,
  ) {}

  /** Number of whole elements. */
  get length(): number {
    return Math.floor(this.bytes.byteLength / itemSize(this.dtype));
  }
}

/**
 * The tensor that `shape` and `strides` (in elements) describe inside `storage` from element `offset` on.
 *
 * A view without gaps shares the storage's bytes. Any other gets memory of its own, which `fill` copies
 * the elements to: it is called when the storage's bytes are known, which may be later than its size.
 *
 * Returns a sentence instead when the description does not fit the storage.
 */
export function viewOf(
  storage: Storage,
  offset: number,
  shape: readonly number[],
  strides: readonly number[],
): { tensor: Tensor; fill?: () => void } | string {
  if (shape.length !== strides.length) return `a tensor has ${shape.length} dimensions but ${strides.length} strides`;
  if (shape.length > MAX_DIMENSIONS) return `a tensor has ${shape.length} dimensions; at most ${MAX_DIMENSIONS} are read`;
  if (![offset, ...shape, ...strides].every((n) => Number.isSafeInteger(n) && n >= 0)) {
    return "a tensor's offset, shape and strides must be whole numbers from 0";
  }
  const size = itemSize(storage.dtype);
  const count = elementCount(shape);
  if (count === 0) return { tensor: new Tensor(storage.dtype, shape, new Uint8Array(0)) };

  const last = shape.reduce((sum, side, axis) => sum + (side - 1) * strides[axis]!, offset);
  if (!(last < storage.length)) {
    return `a tensor of shape [${shape.join(", ")}] reaches element ${last} of a storage of ${storage.length}`;
  }
  // A view may repeat elements (stride 0), but not so often that a small file fills the memory.
  if (!(count <= storage.length)) {
    return `a tensor of shape [${shape.join(", ")}] repeats the elements of a storage of ${storage.length}`;
  }
  if (isContiguous(shape, strides)) {
    const bytes = storage.bytes.subarray(offset * size, (offset + count) * size);
    return { tensor: new Tensor(storage.dtype, shape, bytes) };
  }
  const target = new Uint8Array(count * size);
  return {
    tensor: new Tensor(storage.dtype, shape, target),
    fill: () => gather(storage.bytes, size, offset, shape, strides, target),
  };
}

/** PyTorch itself stops at 64; networks stop at 5. */
const MAX_DIMENSIONS = 16;

function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return false;
    expected *= shape[axis]!;
  }
  return true;
}

/** Copies the elements of a strided view, in row-major order of its indices. */
function gather(
  source: Uint8Array, size: number, offset: number,
  shape: readonly number[], strides: readonly number[], target: Uint8Array,
): void {
  const index = shape.map(() => 0);
  let element = offset;
  for (let to = 0; to < target.byteLength; to += size) {
    for (let byte = 0; byte < size; byte++) target[to + byte] = source[element * size + byte]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      element += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      element -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
}

/**
 * The values as numbers. A view of the tensor's bytes for aligned f32, else converted: f16, bf16 and integers
 * of up to 16 bits exactly, f64 and larger integers rounded to the nearest f32.
 */
export function toFloat32(tensor: Tensor): Float32Array {
  const { data } = tensor;
  const count = elementCount(tensor.shape);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  switch (tensor.dtype) {
    case "f32":
      // Typed arrays of four bytes cannot begin in between.
      if (data.byteOffset % 4 === 0) return new Float32Array(data.buffer, data.byteOffset, count);
      return new Float32Array(data.slice().buffer);
    case "f16": {
      const table = halfTable();
      return Float32Array.from({ length: count }, (_, i) => table[view.getUint16(2 * i, true)]!);
    }
    case "bf16": {
      const bits = Uint32Array.from({ length: count }, (_, i) => view.getUint16(2 * i, true) << 16);
      return new Float32Array(bits.buffer);
    }
    case "f64":
      return Float32Array.from({ length: count }, (_, i) => view.getFloat64(8 * i, true));
    case "i64":
      return Float32Array.from({ length: count }, (_, i) => Number(view.getBigInt64(8 * i, true)));
    case "i32":
      return Float32Array.from({ length: count }, (_, i) => view.getInt32(4 * i, true));
    case "i16":
      return Float32Array.from({ length: count }, (_, i) => view.getInt16(2 * i, true));
    case "i8":
      return Float32Array.from({ length: count }, (_, i) => view.getInt8(i));
    case "u8":
    case "bool":
      return Float32Array.from(data);
  }
}

/** Converts a tensor to f32; gives the tensor itself when it is f32 already. */
export function asF32(tensor: Tensor): Tensor {
  if (tensor.dtype === "f32") return tensor;
  const values = toFloat32(tensor);
  return new Tensor("f32", tensor.shape, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
}

/** Converts an integer or bool tensor to i64. */
export function asI64(tensor: Tensor): Tensor {
  if (tensor.dtype === "i64") return tensor;
  if (tensor.dtype === "f32" || tensor.dtype === "f16" || tensor.dtype === "bf16" || tensor.dtype === "f64") {
    throw new RangeError(`a ${tensor.dtype} tensor cannot become i64 without losing values`);
  }
  const { data, dtype } = tensor;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const read = (i: number): number => {
    switch (dtype) {
      case "i32": return view.getInt32(4 * i, true);
      case "i16": return view.getInt16(2 * i, true);
      case "i8": return view.getInt8(i);
      default: return view.getUint8(i);
    }
  };
  const values = BigInt64Array.from({ length: elementCount(tensor.shape) }, (_, i) => BigInt(read(i)));
  return new Tensor("i64", tensor.shape, new Uint8Array(values.buffer));
}

/** True for f32, f16, bf16 and f64. */
export function isFloat(dtype: Dtype): boolean {
  return dtype === "f32" || dtype === "f16" || dtype === "bf16" || dtype === "f64";
}

let halves: Float32Array | undefined;

/** The f32 value of every f16 bit pattern (IEEE 754 binary16: 5 bits of exponent, 10 of fraction). */
function halfTable(): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
  return halves;
}
