// What a search is by: images of the ledger and folders stand in the address; files that were
// dropped or pasted cannot, and are kept until the page is closed.
import { ask, type Schemas } from "./api.svelte";

export type Answer = Schemas["SearchAnswer"];
export type Hit = Schemas["Hit"];

export interface Upload {
  name: string;
  blob: Blob;
  /** For an `<img>`. */
  url: string;
  isCounter: boolean;
}

const MOST = 64;

class Uploads {
  list = $state.raw<Upload[]>([]);
  #number = 0;

  add(blobs: { name: string; blob: Blob }[]): void {
    const fresh = blobs.slice(0, MOST - this.list.length).map(({ name, blob }) => {
      this.#number += 1;
      const short = name.split("/").pop()?.slice(-80) || "picture";
      return { name: `${this.#number} ${short}`, blob, url: URL.createObjectURL(blob), isCounter: false };
    });
    this.list = [...this.list, ...fresh];
  }

  remove(name: string): void {
    const gone = this.list.find((each) => each.name === name);
    if (gone) URL.revokeObjectURL(gone.url);
    this.list = this.list.filter((each) => each.name !== name);
  }

  turn(name: string): void {
    this.list = this.list.map((each) => (each.name === name ? { ...each, isCounter: !each.isCounter } : each));
  }

  clear(): void {
    this.list.forEach((each) => URL.revokeObjectURL(each.url));
    this.list = [];
  }
}

export const uploads = new Uploads();

export interface Question {
  collection: string;
  like: string[];
  unlike: string[];
  folder: string | null;
  k: number;
  most: number | null;
  given: Upload[];
}

/** Whether there is anything to search by. */
export const isQuestion = (asked: Question): boolean =>
  asked.like.length > 0 || asked.folder !== null || asked.given.some((each) => !each.isCounter);

/** An id of the ledger or an `s3://` address, as the address of the page holds it. */
const example = (text: string): Record<string, unknown> =>
  /^\d{1,18}$/.test(text) ? { object_id: Number(text) } : { uri: text };

export function find(asked: Question, signal: AbortSignal): Promise<Answer> {
  const distance = asked.most === null ? null : { max: asked.most };
  return send("/v1/search", asked, { k: asked.k, distance }, signal);
}

/** The same examples, compared with everything that arrives from now on. */
export const watch = (asked: Question, name: string, most: number): Promise<Schemas["Watch"]> =>
  send("/v1/watches", asked, { name, max_distance: most });

function send<T>(path: string, asked: Question, more: Record<string, unknown>, signal?: AbortSignal): Promise<T> {
  const counter = asked.given.filter((each) => each.isCounter).map((each) => ({ upload: each.name }));
  const body = {
    collection: asked.collection,
    examples: asked.like.map(example),
    counterexamples: [...asked.unlike.map(example), ...counter],
    folder: asked.folder,
    ...more,
  };
  if (!asked.given.length) return ask<T>("POST", path, { body, signal });
  const form = new FormData();
  form.append("ask", JSON.stringify(body));
  for (const each of asked.given) form.append("files", each.blob, each.name);
  return ask<T>("POST", `${path}/upload`, { form, signal });
}
