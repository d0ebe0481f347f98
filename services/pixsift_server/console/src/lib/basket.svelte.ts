// Images that a request for a snapshot shall be like: gathered in Search, used in the builder.
const KEY = "pixsift.basket";
const MOST = 200;

class Basket {
  uris = $state.raw<string[]>(stored());

  add(uris: string[]): void {
    this.#keep([...new Set([...this.uris, ...uris])].slice(-MOST));
  }
  remove(uri: string): void {
    this.#keep(this.uris.filter((each) => each !== uri));
  }
  clear(): void {
    this.#keep([]);
  }
  #keep(uris: string[]): void {
    this.uris = uris;
    try {
      localStorage.setItem(KEY, JSON.stringify(uris));
    } catch {
      // Storage is switched off: they are kept as long as the page is open.
    }
  }
}

function stored(): string[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter((each) => typeof each === "string") : [];
  } catch {
    return [];
  }
}

export const basket = new Basket();
