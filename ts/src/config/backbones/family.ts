/** Contract of a backbone's file: everything TypeScript knows about one family. */
import type { z } from "zod";
import type { BackboneSpec } from "../../native/index.js";

/** A field of a backbone that does not fit the others. */
export interface Misfit {
  path: string[];
  /** What the field must be. */
  message: string;
  /** What it is. */
  input: unknown;
}

/** A crop that the backbone will get; `name` is its field. */
export interface CropSide {
  name: string;
  size: number;
}

/** A key of the original's files below `MODEL.SPEC`: the field it is here, or the values it may have. */
export type OriginalKey =
  | { field: string }
  /** Values have names here. */
  | { field: string; values: Record<string, string> }
  /** Values are translated; `read` throws an `Error` that says what was expected. */
  | { field: string; read: (value: unknown) => unknown }
  /** There is no field for it: only these values are possible. */
  | { accept: (value: unknown) => boolean; reason: string };

/** A family in the files and flags of microsoft/esvit. */
export interface OriginalNames {
  /** Family in messages. */
  title: string;
  /** Values of `MODEL.NAME`. */
  names: readonly string[];
  /** Keys below `MODEL.SPEC`, nested ones with dots. */
  keys: Readonly<Record<string, OriginalKey>>;
  /** Whether `TRAIN.IMAGE_SIZE` is its nominal size; true when absent. */
  nominalSize?: boolean;
}

type Schema = z.ZodObject<{ kind: z.ZodLiteral<BackboneSpec["kind"]> }>;

/** Everything TypeScript knows about one family of backbones. */
export interface Family<S extends Schema = Schema, Names extends string = string> {
  /** Fields, defaults and descriptions. */
  schema: S;
  /** Names of `--arch`, and the fields each stands for. */
  presets: Readonly<Record<Names, z.input<S>>>;
  /** Fields that a schema of single fields cannot see. */
  misfits(backbone: z.output<S>, crops: readonly CropSide[]): Misfit[];
  /** Side of the patches that pixels are cut in. */
  patch(backbone: z.output<S>): CropSide;
  /** The engine's specification; the compiler checks that every field of it is there. */
  spec(backbone: z.output<S>): Extract<BackboneSpec, { kind: z.output<S>["kind"] }>;
  /** The original's words; absent where its files do not know the family. */
  original?: OriginalNames;
  /** Whether the original's `--patch_size` is its patch size. */
  patchSizeFlag?: true;
  /** Former names of fields, which are still read. */
  formerNames?: Readonly<Record<string, string>>;
}

/** A family, its presets checked against its schema. */
export function family<S extends Schema, Names extends string>(facts: Family<S, Names>): Family<S, Names> {
  return facts;
}

/** Keys of the original that are fields here under another name. */
export function renamedKeys(names: Record<string, string>): Record<string, OriginalKey> {
  return Object.fromEntries(Object.entries(names).map(([key, field]) => [key, { field }]));
}
