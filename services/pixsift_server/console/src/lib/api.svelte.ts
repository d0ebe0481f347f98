// Requests to the server, what went wrong in plain words, and whether the server answers at all.
import type { components } from "../generated/api";

export type Schemas = components["schemas"];
type Values = Record<string, string | number | boolean | string[] | null | undefined>;

/** What the server refused, or why it could not be asked. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly remedy: string | null = null,
  ) {
    super(detail);
  }
}

// A connection can die without a word: the machine slept, a router forgot it, the server was killed.
// What was asked over it is never answered, so every wait has an end.
/** After so long without an answer, ask whether the server answers at all. */
const DOUBT_MILLISECONDS = 10_000;
const HEALTH_MILLISECONDS = 10_000;
/** A read that takes longer goes over a dead connection: it is asked anew over another. */
export const READ_MILLISECONDS = 60_000;

class Connection {
  isLost = $state(false);
  /** Grows when the server answers again: screens read it and load what they missed. */
  epoch = $state(0);
  /** Ends every read that is under way when the connection is lost; screens ask anew afterwards. */
  reads = new AbortController();
  #waiting = false;
  #doubting = false;

  lost(): void {
    if (this.isLost) return;
    this.isLost = true;
    this.reads.abort();
    this.reads = new AbortController();
    if (!this.#waiting) void this.#wait();
  }

  /** Something is not answered for long: is the server there? */
  async doubt(): Promise<void> {
    if (this.isLost || this.#doubting) return;
    this.#doubting = true;
    const isThere = await answers();
    this.#doubting = false;
    if (!isThere) this.lost();
  }

  async #wait(): Promise<void> {
    this.#waiting = true;
    for (let wait = 500; this.isLost; wait = Math.min(5000, wait * 2)) {
      await pause(wait);
      if (await answers()) this.isLost = false;
    }
    this.#waiting = false;
    this.epoch += 1;
  }
}

async function answers(): Promise<boolean> {
  const limit = limited(undefined, HEALTH_MILLISECONDS);
  try {
    return (await fetch("/v1/health", { cache: "no-store", signal: limit.signal })).ok;
  } catch {
    return false;
  } finally {
    limit.done();
  }
}

export const connection = new Connection();

class Entry {
  /** Why the server wants a token; null while it does not. */
  refusal = $state.raw<Refusal | null>(null);
}

export const entry = new Entry();

interface Options {
  query?: Values;
  body?: unknown;
  form?: FormData;
  signal?: AbortSignal;
  /** After so long without an answer the server counts as lost; reads have such a limit always. */
  milliseconds?: number;
}

const RETRIES = 4;

export async function ask<T>(method: string, path: string, options: Options = {}): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    const answer = await send(method, path, options);
    if (answer.ok) return (answer.status === 204 ? null : await answer.json()) as T;
    const refusal = await refusalOf(answer);
    const again = answer.status === 429 || (answer.status === 503 && method === "GET");
    if (again && attempt < RETRIES) {
      await pause(400 * 2 ** attempt, options.signal);
      continue;
    }
    // A wrong token in the entry form is the form's own affair.
    if (answer.status === 401 && path !== "/v1/session") entry.refusal = refusal;
    throw refusal;
  }
}

export const get = <T>(path: string, query: Values = {}, signal?: AbortSignal): Promise<T> =>
  ask<T>("GET", path, { query, signal });

async function send(method: string, path: string, options: Options): Promise<Response> {
  const headers: Record<string, string> = { "X-Pixsift-Request": "console" };
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  const isRead = method === "GET";
  const end = isRead ? either(options.signal, connection.reads.signal) : options.signal;
  const limit = limited(end, options.milliseconds ?? (isRead ? READ_MILLISECONDS : undefined));
  const doubt = setTimeout(() => void connection.doubt(), DOUBT_MILLISECONDS);
  try {
    const answer = await fetch(path + queryOf(options.query), {
      method,
      headers,
      body: options.form ?? (options.body === undefined ? undefined : JSON.stringify(options.body)),
      signal: limit.signal,
    });
    return answer;
  } catch (error) {
    if (options.signal?.aborted) throw error;
    connection.lost();
    throw new Refusal(0, "unreachable", "The server does not answer.");
  } finally {
    clearTimeout(doubt);
    limit.done();
  }
}

/** A signal that ends with the given one, or after so many milliseconds; `done` ends the wait. */
function limited(signal?: AbortSignal, milliseconds?: number): { signal?: AbortSignal; done: () => void } {
  if (milliseconds === undefined) return { signal, done: () => undefined };
  const end = new AbortController();
  const timer = setTimeout(() => end.abort(), milliseconds);
  return { signal: either(signal, end.signal), done: () => clearTimeout(timer) };
}

const either = (one: AbortSignal | undefined, other: AbortSignal): AbortSignal =>
  one ? AbortSignal.any([one, other]) : other;

async function refusalOf(answer: Response): Promise<Refusal> {
  try {
    const found = (await answer.json()) as Schemas["Problem"];
    return new Refusal(answer.status, found.code, found.detail, found.remedy?.words ?? null);
  } catch {
    return new Refusal(answer.status, "no_document", `The server answered ${answer.status}.`);
  }
}

function queryOf(values: Values = {}): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (Array.isArray(value)) value.forEach((each) => params.append(name, each));
    else if (value !== null && value !== undefined && value !== "") params.set(name, String(value));
  }
  const query = params.toString();
  return query ? `?${query}` : "";
}

function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    });
  });
}

/** Something loaded: the newest question wins, and an old answer stays in sight until then. */
export class Loaded<T> {
  value = $state.raw<T | null>(null);
  refusal = $state.raw<Refusal | null>(null);
  isLoading = $state(false);
  #running: AbortController | null = null;
  /** When the newest question is answered. */
  settled: Promise<void> = Promise.resolve();

  load(question: (signal: AbortSignal) => Promise<T>): Promise<void> {
    this.settled = this.#load(question);
    return this.settled;
  }

  async #load(question: (signal: AbortSignal) => Promise<T>): Promise<void> {
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    this.isLoading = true;
    try {
      const value = await question(running.signal);
      if (running.signal.aborted) return;
      this.value = value;
      this.refusal = null;
    } catch (error) {
      if (running.signal.aborted) return;
      this.refusal = asRefusal(error);
    }
    this.isLoading = false;
  }

  stop(): void {
    this.#running?.abort();
    this.isLoading = false;
  }
}

export function asRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  return new Refusal(0, "page_error", error instanceof Error ? error.message : String(error));
}
