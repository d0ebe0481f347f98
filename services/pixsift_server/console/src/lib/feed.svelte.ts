// What is decided, as it is decided: the newest pages until the last one seen, so that nothing is
// missed after a pause or a lost connection. Beyond a few pages only the numbers are caught up.
import { asRefusal, connection, get, type Refusal, type Schemas } from "./api.svelte";
import { collectionPath } from "./console.svelte";
import type { Row } from "./list.svelte";
import { OUTCOMES, type Outcome } from "./words";

const EVERY_MILLISECONDS = 2000;
const PAGE = 100;
const MOST_PAGES = 5;
const SHOWN = 60;

function stored(key: string): number | null {
  try {
    const value = localStorage.getItem(key);
    return value === null ? null : Number(value);
  } catch {
    return null;
  }
}

export class Feed {
  columns = $state.raw<Record<Outcome, Row[]>>({ kept: [], duplicate: [], rejected: [], failed: [], gone: [] });
  counts = $state.raw<Schemas["Counts"] | null>(null);
  queues = $state.raw<Record<string, Schemas["QueueDepth"]>>({});
  refusal = $state.raw<Refusal | null>(null);
  isPaused = $state(false);
  /** Images that came while paused. */
  held = $state(0);
  /** Images that came faster than they can be shown. */
  skipped = $state(0);
  /** Decisions since this page was last open in this browser. */
  sinceLast = $state<number | null>(null);
  isBegun = $state(false);
  #seen = -1;
  #waiting: Row[] = [];
  #key: string;

  constructor(readonly collection: string) {
    this.#key = `pixsift.seen.${collection}`;
  }

  /** Poll until the returned function is called. */
  start(): () => void {
    const stop = new AbortController();
    void this.#run(stop.signal);
    return () => stop.abort();
  }

  togglePause(): void {
    this.isPaused = !this.isPaused;
    if (this.isPaused) return;
    this.#show(this.#waiting);
    this.#waiting = [];
    this.held = 0;
  }

  async #run(signal: AbortSignal): Promise<void> {
    for (let turn = 0; !signal.aborted; turn += 1) {
      if (!connection.isLost && !document.hidden) {
        try {
          await this.#poll(signal, turn % 3 === 0);
          this.refusal = null;
        } catch (error) {
          if (signal.aborted) return;
          this.refusal = asRefusal(error);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY_MILLISECONDS));
    }
  }

  async #poll(signal: AbortSignal, withQueues: boolean): Promise<void> {
    const path = collectionPath(this.collection);
    const fresh: Row[] = [];
    let cursor: string | null = null;
    let top = this.#seen;
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const found: Schemas["ImagePage"] = await get(`${path}/images`, { limit: PAGE, cursor }, signal);
      top = Math.max(top, found.at_seq);
      const unseen = found.images.filter((row) => row.seq > this.#seen);
      fresh.push(...unseen);
      cursor = found.next_cursor ?? null;
      // The first page of all is enough: what was before is what Browse is for.
      if (this.#seen < 0 || unseen.length < found.images.length || cursor === null) break;
      if (page === MOST_PAGES - 1) this.skipped += Math.max(0, top - this.#seen - fresh.length);
    }
    const isFirst = this.#seen < 0;
    if (isFirst) this.#lookBack(top);
    if (top > this.#seen || isFirst) {
      this.counts = await get(`${path}/counters`, {}, signal);
      this.#seen = top;
      this.#remember(top);
    }
    if (withQueues) this.queues = (await get<Schemas["QueueDepths"]>("/v1/queues", {}, signal)).queues;
    if (this.isPaused) {
      this.#waiting = [...fresh, ...this.#waiting];
      this.held = this.#waiting.length;
    } else this.#show(fresh);
    this.isBegun = true;
  }

  #show(fresh: Row[]): void {
    if (!fresh.length) return;
    const ids = new Set(fresh.map((row) => row.object_id));
    const made = { ...this.columns };
    for (const outcome of OUTCOMES) {
      const before = made[outcome].filter((row) => !ids.has(row.object_id));
      made[outcome] = [...fresh.filter((row) => row.outcome === outcome), ...before].slice(0, SHOWN);
    }
    this.columns = made;
  }

  #lookBack(top: number): void {
    const last = stored(this.#key);
    if (last !== null && last < top) this.sinceLast = top - last;
  }

  #remember(seq: number): void {
    try {
      localStorage.setItem(this.#key, String(seq));
    } catch {
      // Storage is switched off: there is no "since last time" then.
    }
  }
}
