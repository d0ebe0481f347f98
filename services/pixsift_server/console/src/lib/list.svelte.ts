// The list that Browse shows: pages of one point of the collection, kept while an image is looked
// at, so that Back finds the same place.
import { ask, asRefusal, READ_MILLISECONDS, type Refusal, type Schemas } from "./api.svelte";
import { collectionPath } from "./console.svelte";

type Query = Partial<Schemas["ImageQuery"]>;
export type Row = Schemas["ImageRow"];
const PAGE = 120;

export class ImageList {
  rows = $state.raw<Row[]>([]);
  atSeq = $state<number | null>(null);
  refusal = $state.raw<Refusal | null>(null);
  isLoading = $state(false);
  cursor = $state<string | null>(null);
  isBegun = $state(false);
  /** Where the reader was. */
  scrollTop = 0;
  focused = 0;

  constructor(
    readonly collection: string,
    readonly query: Query,
  ) {}

  get isWhole(): boolean {
    return this.isBegun && this.cursor === null;
  }

  async more(): Promise<void> {
    if (this.isLoading || this.isWhole) return;
    this.isLoading = true;
    try {
      const page = await ask<Schemas["ImagePage"]>(
        "POST", `${collectionPath(this.collection)}/images/query`,
        { body: { ...this.query, limit: PAGE, cursor: this.cursor }, milliseconds: READ_MILLISECONDS },
      );
      this.rows = [...this.rows, ...page.images];
      this.atSeq = page.at_seq;
      this.cursor = page.next_cursor ?? null;
      this.isBegun = true;
      this.refusal = null;
    } catch (error) {
      this.refusal = asRefusal(error);
    }
    this.isLoading = false;
  }
}

let last: { address: string; list: ImageList } | null = null;

/** The list of an address: the one that was left there, or a new one. */
export function listOf(address: string, collection: string, query: Query): ImageList {
  if (last?.address === address) return last.list;
  last = { address, list: new ImageList(collection, query) };
  return last.list;
}

/** Ask anew: something was decided, or the server answers again. */
export function forgetList(): void {
  last = null;
}

/** The images before and after one in the list that was looked at last. */
export function around(id: number): { before: Row | null; after: Row | null; back: string | null } {
  const rows = last?.list.rows ?? [];
  const index = rows.findIndex((row) => row.object_id === id);
  if (index < 0 || !last) return { before: null, after: null, back: last?.address ?? null };
  last.list.focused = index;
  if (index > rows.length - 20) void last.list.more();
  return { before: rows[index - 1] ?? null, after: rows[index + 1] ?? null, back: last.address };
}
