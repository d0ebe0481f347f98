// What a person says of images. What was said last can be taken back with one key, and before that
// the one before. What could not be sent is kept in this browser until the server answers again.
import { ask, asRefusal, connection, entry, get, type Refusal, type Schemas } from "./api.svelte";
import { collectionPath, shared } from "./console.svelte";
import { many } from "./words";

type Done = Schemas["RulingDone"];
export type Kind = "choose" | "also_keep" | "not_same" | "same" | "useless";

export const KINDS: Record<Kind, { key: string; name: string; said: string }> = {
  choose: { key: "c", name: "Keep this one instead", said: "This one is kept instead" },
  also_keep: { key: "a", name: "Keep this one too", said: "This one is kept too" },
  not_same: { key: "n", name: "Not the same", said: "The two are not the same" },
  same: { key: "s", name: "The same", said: "The two are the same" },
  useless: { key: "x", name: "Useless", said: "This one is useless" },
};

/** `kept -> duplicate` and its like, for people. */
export function changes(done: Done): string {
  const parts = Object.entries(done.changed).map(([change, number]) => {
    const [was, outcome] = change.split(" -> ");
    return `${many(number, "image")}: ${was} before, ${outcome} now`;
  });
  return parts.length ? parts.join("; ") : "no outcome changes";
}

interface Sending {
  collection: string;
  /** Below `/rulings`: nothing, `/best` or `/undo`. */
  path: string;
  body: Record<string, unknown>;
  words: string;
}

const KEY = "pixsift.unsent";
const MOST_UNDOS = 100;
const PATIENCE = 30_000;

class Rulings {
  why = $state("compared side by side in the console");
  said = $state<string | null>(null);
  refusal = $state.raw<Refusal | null>(null);
  isBusy = $state(false);
  unsent = $state.raw<Sending | null>(stored());
  #undos = $state.raw<{ collection: string; body: Record<string, unknown> }[]>([]);
  #after: () => void = () => undefined;
  #isSendingAgain = false;

  get mayRule(): boolean {
    return shared.me?.role === "reviewer" || shared.me?.role === "operator";
  }
  get canUndo(): boolean {
    return this.#undos.length > 0;
  }

  say(collection: string, kind: Kind, uri: string, other: string | null, after: () => void): Promise<void> {
    const pair = kind === "same" || kind === "not_same";
    const body = { kind, images: [uri], other: pair ? other : null, why: this.why, dry_run: false };
    return this.#send({ collection, path: "", body, words: KINDS[kind].said }, after);
  }

  best(collection: string, best: string, prefix: string, after: () => void): Promise<void> {
    const body = { best, prefix, why: this.why, dry_run: false };
    return this.#send({ collection, path: "/best", body, words: "Chosen by the rule" }, after);
  }

  preview(collection: string, best: string, prefix: string, signal: AbortSignal): Promise<Done> {
    const body = { best, prefix, why: this.why || "preview", dry_run: true };
    return ask<Done>("POST", `${collectionPath(collection)}/rulings/best`, { body, signal });
  }

  undo(after: () => void): Promise<void> {
    const last = this.#undos[this.#undos.length - 1];
    if (!last || this.isBusy) return Promise.resolve();
    return this.#send({ ...last, path: "/undo", words: "Taken back" }, after);
  }

  takeBack(collection: string, ruling: Schemas["RulingLine"], after: () => void): Promise<void> {
    const body = { ruling_ids: ruling.batch ? [] : [ruling.ruling_id], batch: ruling.batch };
    return this.#send({ collection, path: "/undo", body, words: "Taken back" }, after);
  }

  /** Send what could not be sent; the server may have heard of it just before it was lost. */
  async again(): Promise<void> {
    const waiting = this.unsent;
    if (!waiting || this.isBusy || this.#isSendingAgain) return; // one at a time: never said twice
    this.#isSendingAgain = true;
    try {
      const heard = await this.#heard(waiting).catch(() => null);
      if (this.unsent !== waiting) return; // something else was said meanwhile
      if (heard) this.#accept(waiting, heard.ruling_id);
      else await this.#send(waiting, this.#after);
    } finally {
      this.#isSendingAgain = false;
    }
    this.#after();
  }

  async #heard(sending: Sending): Promise<Schemas["RulingLine"] | undefined> {
    if (sending.path !== "") return undefined;
    const { kind, images } = sending.body as { kind: string; images: string[] };
    const list = await get<Schemas["RulingList"]>(`${collectionPath(sending.collection)}/rulings`, { uri: images[0] });
    return list.rulings.find((each) => each.kind === kind && each.uri === images[0]);
  }

  #accept(sending: Sending, rulingId: string): void {
    this.#remember(null);
    this.refusal = null;
    this.said = `${sending.words}.`;
    this.#undos = [...this.#undos, { collection: sending.collection, body: { ruling_ids: [rulingId], batch: null } }];
  }

  async #send(sending: Sending, after: () => void): Promise<void> {
    if (this.isBusy) return;
    this.isBusy = true;
    this.refusal = null;
    this.#after = after;
    try {
      const done = await ask<Done>("POST", `${collectionPath(sending.collection)}/rulings${sending.path}`, {
        body: sending.body,
        // One ruling takes milliseconds; many at once may take as long as they need.
        ...(sending.path === "" ? { milliseconds: PATIENCE } : {}),
      });
      this.#remember(null);
      this.said = `${sending.words}. ${changes(done)}.`;
      this.#note(sending, done);
    } catch (error) {
      this.refusal = asRefusal(error);
      this.said = null;
      const isAway = [0, 401, 429, 503].includes(this.refusal.status);
      this.#remember(isAway ? sending : null);
      if (sending.path === "/undo" && this.refusal.status === 404) this.#drop(sending);
    }
    this.isBusy = false;
    after(); // a colleague may have been first: show what holds now
  }

  #note(sending: Sending, done: Done): void {
    if (sending.path === "/undo") return this.#drop(sending);
    if (!done.rulings) return;
    const body = { ruling_ids: done.batch ? [] : done.ruling_ids, batch: done.batch };
    this.#undos = [...this.#undos, { collection: sending.collection, body }].slice(-MOST_UNDOS);
  }

  /** What was taken back cannot be taken back again. */
  #drop(sending: Sending): void {
    this.#undos = this.#undos.filter((each) => JSON.stringify(each.body) !== JSON.stringify(sending.body));
  }

  #remember(sending: Sending | null): void {
    this.unsent = sending;
    try {
      if (sending) localStorage.setItem(KEY, JSON.stringify(sending));
      else localStorage.removeItem(KEY);
    } catch {
      // Storage is switched off: it is kept as long as the page is open.
    }
  }
}

function stored(): Sending | null {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "null") as Sending | null;
  } catch {
    return null;
  }
}

/** Of the whole page, so that nothing unsent is lost by going to another screen. */
export const rulings = new Rulings();

/** Send what is waiting as soon as the server answers, and knows who asks. Called by the page. */
export function sendWhenPossible(): void {
  $effect(() => {
    void connection.epoch;
    if (shared.me && !entry.refusal && !connection.isLost && rulings.unsent) void rulings.again();
  });
}
