// The places of the console, in the order of the rail. Keys and rail are made of this list.
import type { IconName } from "../parts/Icon.svelte";

export interface Place {
  name: string;
  path: string;
  icon: IconName;
  /** After `g`. */
  key: string;
  /** First parts of addresses that belong to it. */
  owns: string[];
}

export const PLACES: Place[] = [
  { name: "Live", path: "/", icon: "live", key: "l", owns: [""] },
  { name: "Browse", path: "/browse", icon: "browse", key: "b", owns: ["browse", "image"] },
  { name: "Review", path: "/review", icon: "duplicates", key: "r", owns: ["review", "duplicates"] },
  { name: "What if", path: "/what-if", icon: "whatif", key: "w", owns: ["what-if"] },
  { name: "Search", path: "/search", icon: "search", key: "f", owns: ["search"] },
  { name: "Snapshots", path: "/snapshots", icon: "snapshots", key: "s", owns: ["snapshots"] },
  { name: "Operations", path: "/operations", icon: "operations", key: "o", owns: ["operations"] },
];
