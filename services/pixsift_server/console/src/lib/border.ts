// Which side of the two limits a pair is on, and where it stands in the plot.
import type { Schemas } from "./api.svelte";

export type Pair = Schemas["BorderPair"];
export interface Limits {
  distance: number;
  /** A factor on what counts as a change now. */
  change: number;
}

export const isDuplicate = (pair: Pair, limits: Limits): boolean =>
  pair.distance <= limits.distance && pair.change !== null && pair.change <= limits.change;

/** How far a pair is from changing sides, as a share of the limits; small is near. */
export function margin(pair: Pair, limits: Limits): number {
  const far = Math.abs(pair.distance - limits.distance) / Math.max(limits.distance, 1e-6);
  if (pair.change === null) return Number.POSITIVE_INFINITY;
  const change = Math.abs(Math.log2(Math.max(pair.change, 0.01) / limits.change));
  const beyondDistance = pair.distance > limits.distance;
  const beyondChange = pair.change > limits.change;
  if (beyondDistance && beyondChange) return Math.max(far, change);
  if (beyondDistance) return far;
  if (beyondChange) return change;
  return Math.min(far, pair.change === 0 ? far : change);
}

/** 0 to 1 from bottom to top: linear up to the limit of today, then slower; unlimited at the top. */
const HALF = 0.5;
const TOP = 0.93;
export function height(change: number | null): number {
  if (change === null) return 1;
  if (change <= 1) return HALF * change;
  return Math.min(TOP, HALF + (TOP - HALF) * (1 - 1 / change));
}
export function changeAt(share: number): number {
  if (share <= HALF) return Math.max(0, share / HALF);
  return 1 / (1 - Math.min(0.9, (share - HALF) / (TOP - HALF)));
}
