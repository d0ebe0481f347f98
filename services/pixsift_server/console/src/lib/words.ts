// How things are written for people. Keys and attributes are a robot's choice: nothing of them may
// look like ours, so invisible and reordering characters are shown as what they are.

const INVISIBLE =
  // eslint-disable-next-line no-control-regex
  /[\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

export function visible(text: string): string {
  return text.replace(INVISIBLE, (each) => {
    const code = each.codePointAt(0) ?? 0;
    return `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

const VERSION = /\?versionId=[^?]*$/;

/** `s3://bucket/key` without the version, which people rarely need. */
export function address(uri: string): string {
  return visible(uri.replace(VERSION, ""));
}

/** The last part of a key. */
export function fileName(uri: string): string {
  const parts = uri.replace(VERSION, "").split("/");
  return visible(parts[parts.length - 1] || parts[parts.length - 2] || uri);
}

/** The last two parts of a key, where the last alone repeats from folder to folder. */
export function shortName(uri: string): string {
  return visible(uri.replace(VERSION, "").split("/").slice(-2).join("/"));
}

export function folder(uri: string): string {
  const bare = uri.replace(VERSION, "").replace(/^s3:\/\//, "");
  return visible(bare.slice(0, Math.max(0, bare.lastIndexOf("/"))));
}

const NUMBER = new Intl.NumberFormat("en");
export const count = (value: number): string => NUMBER.format(value);

export function many(value: number, one: string, more = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : more}`;
}

const MOMENT = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
const PRECISE = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

export function moment(value: string | null | undefined): string {
  return value ? MOMENT.format(new Date(value)) : "unknown";
}

export function precise(value: string | null | undefined): string {
  return value ? PRECISE.format(new Date(value)) : "unknown";
}

export function ago(value: string | null | undefined, now: number): string {
  if (!value) return "never";
  const seconds = Math.max(0, (now - new Date(value).getTime()) / 1000);
  if (seconds < 10) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} seconds ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes ago`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} hours ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "unknown";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toPrecision(3)} ${units[unit]}`;
}

export const OUTCOMES = ["kept", "duplicate", "rejected", "failed", "gone"] as const;
export type Outcome = (typeof OUTCOMES)[number];

export const OUTCOME_WORDS: Record<Outcome, { one: string; many: string; means: string }> = {
  kept: { one: "Kept", many: "Kept", means: "unlike anything kept before" },
  duplicate: { one: "Duplicate", many: "Duplicates", means: "a kept image already shows this" },
  rejected: { one: "Rejected", many: "Rejected", means: "broken or of poor quality" },
  failed: { one: "Failed", many: "Failed", means: "could not be judged" },
  gone: { one: "Gone", many: "Gone", means: "no longer in S3" },
};

export function isOutcome(value: string | null): value is Outcome {
  return OUTCOMES.includes(value as Outcome);
}

/** A cosine distance, in as many digits as tell. */
export function distance(value: number | null | undefined): string {
  return value === null || value === undefined ? "" : value.toFixed(value < 0.01 ? 4 : 3);
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;
}

/** A value of the request or report: short ones as text, others as JSON. */
export function plain(value: unknown): string {
  if (value === null || value === undefined) return "none";
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : String(+value.toPrecision(4));
  return visible(typeof value === "string" ? value : JSON.stringify(value));
}
