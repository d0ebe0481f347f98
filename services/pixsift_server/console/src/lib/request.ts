// A request for a snapshot, as the form has it, in the address and as the server takes it.
export const STRATEGIES: Record<string, string> = {
  auto: "Let pixsift choose (auto)",
  typical: "Typical images: each stands for many others",
  k_center: "Far from one another: rare scenes, too",
  mixed: "Typical first, then far from all chosen",
  balanced: "Equal shares of every kind of scene",
  similar: "Like given images",
  random: "At random, as a baseline",
  all: "Everything that passes the filter",
};

export interface Form {
  name: string;
  strategy: string;
  k: number;
  by: string;
  purpose: string;
  prefix: string;
  attributes: string[];
  flagged: string;
  train: number;
  val: number;
  test: number;
  groupBy: string;
  grow: string;
  apart: number;
  mode: string;
  seed: number;
}

export const EMPTY: Form = {
  name: "", strategy: "auto", k: 100, by: "", purpose: "training", prefix: "", attributes: [], flagged: "exclude",
  train: 100, val: 0, test: 0, groupBy: "", grow: "", apart: 0, mode: "copy", seed: 0,
};

const TEXTS = ["name", "strategy", "by", "purpose", "prefix", "flagged", "groupBy", "grow", "mode"] as const;
const NUMBERS = ["k", "train", "val", "test", "apart", "seed"] as const;

export function formOf(params: URLSearchParams): Form {
  const form = { ...EMPTY, attributes: params.getAll("attribute") };
  for (const name of TEXTS) form[name] = params.get(name) ?? EMPTY[name];
  for (const name of NUMBERS) {
    const given = params.get(name);
    if (given !== null && given !== "" && Number.isFinite(Number(given))) form[name] = Number(given);
  }
  return form;
}

/** What differs from the empty form, for the address. */
export function addressOf(form: Form): Record<string, string | string[] | null> {
  const found: Record<string, string | string[] | null> = { attribute: form.attributes };
  for (const name of TEXTS) found[name] = form[name] === EMPTY[name] ? null : form[name];
  for (const name of NUMBERS) found[name] = form[name] === EMPTY[name] ? null : String(form[name]);
  return found;
}

/** What is missing before the server can be asked; null: nothing is. */
export function missing(form: Form, targets: string[]): string | null {
  if (form.strategy !== "all" && !(form.k >= 1)) return "Say how many images to choose.";
  if (Math.abs(form.train + form.val + form.test - 100) > 0.01) return "The shares of the splits must add up to 100 %.";
  if (form.strategy === "similar" && !targets.length) return "Add images to be like: pick some in Search.";
  return null;
}

export function requestOf(form: Form, collection: string, id: string, targets: string[]): Record<string, unknown> {
  const attributes: Record<string, string[]> = {};
  for (const text of form.attributes) {
    const at = text.indexOf("=");
    if (at > 0) (attributes[text.slice(0, at)] ??= []).push(text.slice(at + 1));
  }
  const isAll = form.strategy === "all";
  return {
    schema: "pixsift.snapshot-request/2",
    request_id: id,
    collection,
    name: form.name || "preview",
    where: { attributes, prefix: form.prefix || null, flagged: form.flagged },
    select: {
      strategy: form.strategy,
      ...(isAll ? {} : { k: Math.round(form.k), at_most: true }),
      ...(form.strategy === "auto" ? { purpose: form.purpose } : {}),
      ...(form.by && !isAll ? { quota: { by: form.by } } : {}),
      ...(form.strategy === "similar" ? { similar_to: targets } : {}),
      ...(form.grow ? { preselected_snapshot: form.grow } : {}),
      ...(form.apart > 0 && !isAll ? { min_distance: form.apart } : {}),
      seed: form.seed,
    },
    split: {
      train: form.train / 100, val: form.val / 100, test: form.test / 100,
      ...(form.groupBy ? { group_by: [form.groupBy] } : {}),
    },
    export: { mode: form.mode },
  };
}

export const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;

export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `console-${[...bytes].map((each) => each.toString(16).padStart(2, "0")).join("")}`;
}
