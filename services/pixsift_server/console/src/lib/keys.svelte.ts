// Keys: one table binds them and the help shows it, so that the two cannot differ.
// Keys belong to the topmost layer.

export interface Key {
  /** As `KeyboardEvent.key` has it; two with a space between are pressed one after the other; `1-9`
   * is any of these digits. */
  key: string;
  does: string;
  run: (pressed: string) => void;
}

/** Everywhere, on this screen, in a dialog: a dialog hides what is below it. */
const LEVELS = ["Everywhere", "This screen", "Dialog"] as const;
type Level = (typeof LEVELS)[number];

interface Layer {
  level: Level;
  keys: () => Key[];
}

const layers: Layer[] = [];
/** The first of two keys that are pressed one after the other, and until when it counts. */
let prefix = "";
let prefixUntil = 0;
const PREFIX_MILLISECONDS = 1500;

/** Bind keys as long as the component that calls this is there. */
export function bindKeys(level: Level, keys: () => Key[]): void {
  $effect(() => {
    const layer = { level, keys };
    layers.push(layer);
    return () => {
      layers.splice(layers.indexOf(layer), 1);
    };
  });
}

/** What can be pressed, topmost first; `without`: leave that level out. */
export function reachable(without?: Level): Layer[] {
  const found = [...layers]
    .filter((each) => each.level !== without)
    .sort((a, b) => LEVELS.indexOf(b.level) - LEVELS.indexOf(a.level));
  return found[0]?.level === "Dialog" ? found.slice(0, 1) : found;
}

export function press(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (isTyping(event.target) && event.key !== "Escape") return;
  const sequence = prefix && event.timeStamp < prefixUntil ? `${prefix} ${event.key}` : event.key;
  prefix = "";
  for (const layer of reachable()) {
    const keys = layer.keys();
    const bound = keys.find((each) => each.key === sequence || (each.key === "1-9" && /^[1-9]$/.test(sequence)));
    if (bound) {
      if (takesItself(event)) return;
      event.preventDefault();
      bound.run(event.key);
      return;
    }
    if (keys.some((each) => each.key.startsWith(`${event.key} `))) {
      prefix = event.key;
      prefixUntil = event.timeStamp + PREFIX_MILLISECONDS;
      return;
    }
  }
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio"].includes(target.type);
  return target.isContentEditable || ["TEXTAREA", "SELECT"].includes(target.tagName);
}

/** Enter and Space on a link or button are that control's own. */
function takesItself(event: KeyboardEvent): boolean {
  const isControl = event.target instanceof Element && event.target.closest("a, button, summary");
  return Boolean(isControl) && (event.key === "Enter" || event.key === " ");
}

const NAMES: Record<string, string> = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", " ": "Space",
};

export function shown(key: string): string[] {
  if (key === " ") return ["Space"];
  if (key === "1-9") return ["1", "…", "9"];
  return key.split(" ").map((each) => NAMES[each] ?? (each.length === 1 ? each.toUpperCase() : each));
}
