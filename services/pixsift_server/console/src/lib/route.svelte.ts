// The address is the state: every view can be pasted into a ticket, and Back works.

class Route {
  path = $state(location.pathname);
  query = $state(location.search);

  get params(): URLSearchParams {
    return new URLSearchParams(this.query);
  }

  get parts(): string[] {
    return this.path.split("/").filter(Boolean).map(decoded);
  }

  read(): void {
    this.path = location.pathname;
    this.query = location.search;
  }
}

export const route = new Route();
addEventListener("popstate", () => route.read());

export function go(to: string, replace = false): void {
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  route.read();
}

type Values = Record<string, string | number | string[] | null | undefined>;

/** An address of ours. The collection goes along unless the values name another. */
export function to(path: string, values: Values = {}): string {
  const params = new URLSearchParams();
  const collection = route.params.get("collection");
  if (collection !== null) params.set("collection", collection);
  put(params, values);
  const query = params.toString();
  return query ? `${path}?${query}` : path;
}

/** The address of this view with some values changed; null takes one away. */
export function changed(values: Values): string {
  const params = route.params;
  put(params, values);
  const query = params.toString();
  return query ? `${route.path}?${query}` : route.path;
}

function put(params: URLSearchParams, values: Values): void {
  for (const [name, value] of Object.entries(values)) {
    params.delete(name);
    if (Array.isArray(value)) value.forEach((each) => params.append(name, each));
    else if (value !== null && value !== undefined && value !== "") params.set(name, String(value));
  }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Follow our own links without loading the page again; others are the browser's. */
export function followLinks(event: MouseEvent): void {
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
  if (!plain || event.defaultPrevented || !(event.target instanceof Element)) return;
  const link = event.target.closest("a");
  if (!link || link.target || link.origin !== location.origin) return;
  if (link.pathname.startsWith("/v1/") || link.hasAttribute("download")) return;
  event.preventDefault();
  const address = link.pathname + link.search;
  go(address, address === location.pathname + location.search);
}
