// What is decided, as it is decided: one stream from the server. A stream that breaks is taken up
// again from the last event that was seen, so that nothing is missed; where more was decided than
// an event shows, the numbers are right and the rest is in Browse.
import { asRefusal, connection, get, type Refusal, type Schemas } from "./api.svelte";
import { collectionPath } from "./console.svelte";
import type { Row } from "./list.svelte";
import { OUTCOMES, type Outcome } from "./words";

const PAGE = 100;
const SHOWN = 60;
const COUNTERS_MILLISECONDS = 1500;
const ROBOTS_MILLISECONDS = 6000;
/** The server says something every 15 seconds: a stream that is silent for longer is dead. */
const SILENCE_MILLISECONDS = 45_000;
/** Attributes that say who sent an image, in the order in which they are looked for. */
const SENDERS = ["robot", "camera", "device", "site", "vehicle"];

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
  /** The newest images by sender; null where no attribute says who it is. */
  senders = $state.raw<Schemas["Spread"] | null>(null);
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
  #sender: string | null | undefined = undefined;
  #stop = new AbortController();
  #stream: EventSource | null = null;
  #early: Schemas["Decisions"][] = [];
  #silence: ReturnType<typeof setTimeout> | undefined;
  #timers: Partial<Record<"counters" | "senders", ReturnType<typeof setTimeout>>> = {};
  #last = { counters: 0, senders: 0 };

  constructor(readonly collection: string) {
    this.#key = `pixsift.seen.${collection}`;
  }

  /** Follow until the returned function is called. */
  start(): () => void {
    this.#open();
    return () => {
      this.#stop.abort();
      this.#stream?.close();
      clearTimeout(this.#silence);
      Object.values(this.#timers).forEach(clearTimeout);
    };
  }

  togglePause(): void {
    this.isPaused = !this.isPaused;
    if (this.isPaused) return;
    this.#show(this.#waiting);
    this.#waiting = [];
    this.held = 0;
  }

  /** The server answers again: a stream that it had closed is opened anew. */
  again(): void {
    if (this.#stream?.readyState === EventSource.CLOSED && !this.#stop.signal.aborted) this.#open();
  }

  #open(): void {
    const stream = new EventSource("/v1/events");
    this.#stream = stream;
    this.#listen();
    const on = <T>(name: string, act: (data: T) => void): void =>
      stream.addEventListener(name, (event) => {
        this.#listen();
        act(JSON.parse((event as MessageEvent<string>).data) as T);
      });
    // The list is read once the stream is open, so that nothing falls between the two.
    on("hello", () => void this.#begin());
    on("heartbeat", () => undefined);
    on<Schemas["Decisions"]>("decisions", (found) => this.#decided(found));
    on<Schemas["QueueDepths"]>("queues", (found) => (this.queues = found.queues));
    on<Schemas["HistoryLost"]>("history_lost", (lost) => {
      if (lost.collection === this.collection) void this.#begin(true);
    });
    stream.onerror = () => {
      // While it is tried again, the browser says CONNECTING; a refusal closes the stream.
      if (stream.readyState === EventSource.CONNECTING) connection.lost();
      else void get("/v1/me").then(() => setTimeout(() => this.again(), 3000), () => undefined);
    };
  }

  /** From now on the stream may be silent for a while; then it is opened anew. */
  #listen(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      this.#stream?.close();
      void connection.doubt();
      this.#open();
    }, SILENCE_MILLISECONDS);
  }

  async #begin(anew = false): Promise<void> {
    const signal = this.#stop.signal;
    try {
      if (this.#seen < 0 || anew) {
        const found = await get<Schemas["ImagePage"]>(`${collectionPath(this.collection)}/images`, { limit: PAGE }, signal);
        if (this.#seen < 0) this.#lookBack(found.at_seq);
        if (anew) this.columns = { kept: [], duplicate: [], rejected: [], failed: [], gone: [] };
        this.#seen = found.at_seq;
        this.#remember();
        this.#show(found.images);
      } else {
        await this.#catchUp(signal);
      }
      await this.#count(signal);
      this.refusal = null;
      this.isBegun = true;
      const early = this.#early;
      this.#early = [];
      early.forEach((each) => this.#decided(each));
    } catch (error) {
      if (!signal.aborted) this.refusal = asRefusal(error);
    }
    this.#soon("senders", ROBOTS_MILLISECONDS, (stop) => this.#askSenders(stop));
  }

  /** After a stream that was begun anew, without the id of the last event. */
  async #catchUp(signal: AbortSignal): Promise<void> {
    const found = await get<Schemas["ImagePage"]>(`${collectionPath(this.collection)}/images`, { limit: PAGE }, signal);
    if (found.at_seq > this.#seen) this.#take(found.images, found.at_seq, 0);
  }

  #decided(found: Schemas["Decisions"]): void {
    if (found.collection !== this.collection) return;
    if (!this.isBegun) {
      this.#early.push(found);
      return;
    }
    if (found.to_seq <= this.#seen) return;
    const all = Object.values(found.counts).reduce((sum, each) => sum + each, 0);
    this.#take(found.images, found.to_seq, found.from_seq >= this.#seen ? all : 0);
    this.#soon("counters", COUNTERS_MILLISECONDS, (stop) => this.#count(stop));
    this.#soon("senders", ROBOTS_MILLISECONDS, (stop) => this.#askSenders(stop));
  }

  #take(images: Row[], seq: number, decided: number): void {
    const fresh = images.filter((row) => row.seq > this.#seen);
    this.skipped += Math.max(0, decided - fresh.length);
    this.#seen = seq;
    this.#remember();
    if (this.isPaused) {
      this.#waiting = [...fresh, ...this.#waiting];
      this.held = this.#waiting.length;
    } else this.#show(fresh);
  }

  async #count(signal: AbortSignal): Promise<void> {
    this.counts = await get(`${collectionPath(this.collection)}/counters`, {}, signal);
  }

  async #askSenders(signal: AbortSignal): Promise<void> {
    const path = collectionPath(this.collection);
    if (this.#sender === undefined) {
      const known = await get<Schemas["AttributeOverview"][]>(`${path}/attributes`, {}, signal);
      this.#sender = SENDERS.find((name) => known.some((each) => each.name === name)) ?? null;
    }
    if (this.#sender !== null) {
      this.senders = await get(`${path}/spread/${encodeURIComponent(this.#sender)}`, { newest: 2000 }, signal);
    }
  }

  /** At once, then at most once in so many milliseconds; the last call is never left out. */
  #soon(name: "counters" | "senders", every: number, act: (signal: AbortSignal) => Promise<void>): void {
    if (this.#timers[name] !== undefined) return;
    this.#timers[name] = setTimeout(() => {
      this.#timers[name] = undefined;
      this.#last[name] = Date.now();
      act(this.#stop.signal).catch(() => undefined); // the stream says if the server is away
    }, Math.max(0, this.#last[name] + every - Date.now()));
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

  #remember(): void {
    try {
      localStorage.setItem(this.#key, String(this.#seen));
    } catch {
      // Storage is switched off: there is no "since last time" then.
    }
  }
}
