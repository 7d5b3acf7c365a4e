/** The backbones there are. A new one is a file beside this one and its name in `families`. */
import { z } from "zod";
import type { BackboneSpec } from "../../native/index.js";
import { cvt } from "./cvt.js";
import type { CropSide, Family, Misfit, OriginalNames } from "./family.js";
import { resnet } from "./resnet.js";
import { swin } from "./swin.js";
import { vil } from "./vil.js";
import { vit } from "./vit.js";

const families = [cvt, resnet, swin, vil, vit] as const;

export type { CropSide, Misfit, OriginalKey, OriginalNames } from "./family.js";

type SchemasOf<Families extends readonly { schema: unknown }[]> = { -readonly [I in keyof Families]: Families[I]["schema"] };
type NamesOf<F> = F extends { presets: infer Presets } ? keyof Presets : never;

/** A backbone of any family; its `kind` says which. */
export const Backbone = z.discriminatedUnion("kind", families.map(({ schema }) => schema) as unknown as SchemasOf<typeof families>);
export type Backbone = z.output<typeof Backbone>;

/** Names of `--arch`. */
export type Arch = NamesOf<(typeof families)[number]>;

/** The family of a configuration that names none. */
export const defaultKind: Backbone["kind"] = "swin";

const byKind = new Map<unknown, Family>(families.map((one) => [one.schema.shape.kind.value, one as unknown as Family]));

/** Backbones by their names of `--arch`, which lie below the values of a file; those of the default family come first. */
export const presets = Object.assign(
  {}, ...[byKind.get(defaultKind), ...byKind.values()].map((one) => one?.presets),
) as Readonly<Record<Arch, z.input<typeof Backbone>>>;

/** Facts of a backbone's family. */
function familyOf(backbone: { kind: Backbone["kind"] }): Family {
  return byKind.get(backbone.kind) as Family;
}

/** The engine's specification of a backbone. */
export function toBackboneSpec(backbone: Backbone): BackboneSpec {
  return familyOf(backbone).spec(backbone);
}

/** Side of the patches that pixels are cut in. */
export function patchSizeOf(backbone: Backbone): CropSide {
  return familyOf(backbone).patch(backbone);
}

/** Fields that do not fit each other. `crops` are the sides of the images the backbone will get. */
export function backboneMisfits(backbone: Backbone, crops: readonly CropSide[]): Misfit[] {
  return familyOf(backbone).misfits(backbone, crops);
}

/** Kinds by the original's `MODEL.NAME`. */
export const originalKinds: ReadonlyMap<unknown, string> = new Map(
  [...byKind.values()].flatMap(({ schema, original }) => (original?.names ?? []).map((name) => [name, schema.shape.kind.value] as const)),
);

/** The original's words for a family; those of the default where it has none, as in the original. */
export function originalNames(kind: unknown): OriginalNames {
  return (byKind.get(kind)?.original ?? byKind.get(defaultKind)?.original) as OriginalNames;
}

/** Whether the original's `--patch_size` is for this family. */
export function takesPatchSize(kind: unknown): boolean {
  return byKind.get(kind)?.patchSizeFlag === true;
}

/** Former names of a backbone's fields, and the present ones. */
export const formerNames: Readonly<Record<string, string>> = Object.assign({}, ...[...byKind.values()].map((one) => one.formerNames));
