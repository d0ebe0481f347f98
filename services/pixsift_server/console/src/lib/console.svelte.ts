// What every screen shares: who asks, which collections there are, the words for reasons.
import { ask, asRefusal, entry, get, type Refusal, type Schemas } from "./api.svelte";
import { route } from "./route.svelte";

type Settings = Schemas["CollectionSettings"];

class Shared {
  me = $state.raw<Schemas["Me"] | null>(null);
  collections = $state.raw<Settings[] | null>(null);
  words = $state.raw<Record<string, string>>({});
  refusal = $state.raw<Refusal | null>(null);

  /** The collection in the address, otherwise the first there is. */
  get collection(): string | null {
    return route.params.get("collection") ?? this.collections?.[0]?.name ?? null;
  }

  get settings(): Settings | null {
    return this.collections?.find((each) => each.name === this.collection) ?? null;
  }

  async start(): Promise<void> {
    try {
      this.me = await get<Schemas["Me"]>("/v1/me");
      this.collections = (await get<Schemas["CollectionList"]>("/v1/collections")).collections;
      this.words = await get<Record<string, string>>("/v1/words");
      this.refusal = null;
    } catch (error) {
      this.refusal = asRefusal(error);
    }
  }

  async enter(token: string): Promise<void> {
    this.me = await ask<Schemas["Me"]>("POST", "/v1/session", { body: { token } });
    entry.refusal = null;
    await this.start();
  }

  async leave(): Promise<void> {
    await ask("DELETE", "/v1/session");
    location.assign("/");
  }
}

export const shared = new Shared();
export const collectionPath = (name: string): string =>
  `/v1/collections/${encodeURIComponent(name)}`;

/** A code in words. The server has the words of reasons; other codes are words already. */
export const inWords = (code: string): string => shared.words[code] ?? code.replaceAll("_", " ");
