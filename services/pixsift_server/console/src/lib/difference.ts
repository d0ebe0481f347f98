// Where two pictures differ, for the eye: both are brought to one size, smoothed so that noise and
// compression do not count, and places that differ clearly are marked. It decides nothing.

const WIDE = 96;
/** Of 255, in any color channel. */
const CLEAR = 22;

export interface Mark {
  /** Shares of width and height. */
  x: number;
  y: number;
  width: number;
  height: number;
}

export async function marksBetween(one: string, other: string): Promise<Mark[]> {
  const [a, b] = await Promise.all([picture(one), picture(other)]);
  const high = Math.max(8, Math.round((WIDE * a.naturalHeight) / a.naturalWidth));
  return regions(differing(channels(a, high), channels(b, high), high), high);
}

async function picture(source: string): Promise<HTMLImageElement> {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

/** Red, green and blue, each without its mean, so that other light does not count. */
function channels(image: HTMLImageElement, high: number): Float32Array[] {
  const canvas = document.createElement("canvas");
  canvas.width = WIDE;
  canvas.height = high;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser has no canvas");
  context.drawImage(image, 0, 0, WIDE, high);
  const { data } = context.getImageData(0, 0, WIDE, high);
  return [0, 1, 2].map((channel) => {
    const values = Float32Array.from({ length: WIDE * high }, (_, i) => data[4 * i + channel] ?? 0);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return smooth(values.map((value) => value - mean), high);
  });
}

function differing(a: Float32Array[], b: Float32Array[], high: number): Uint8Array {
  return Uint8Array.from({ length: WIDE * high }, (_, i) =>
    a.some((values, channel) => Math.abs((values[i] ?? 0) - (b[channel]?.[i] ?? 0)) > CLEAR) ? 1 : 0,
  );
}

function smooth(values: Float32Array, high: number): Float32Array {
  const found = new Float32Array(values.length);
  for (let y = 0; y < high; y += 1) {
    for (let x = 0; x < WIDE; x += 1) {
      let sum = 0;
      let number = 0;
      for (let v = Math.max(0, y - 1); v <= Math.min(high - 1, y + 1); v += 1) {
        for (let u = Math.max(0, x - 1); u <= Math.min(WIDE - 1, x + 1); u += 1) {
          sum += values[v * WIDE + u] ?? 0;
          number += 1;
        }
      }
      found[y * WIDE + x] = sum / number;
    }
  }
  return found;
}

/** Connected regions of clear difference, as boxes; specks are left out. */
function regions(differs: Uint8Array, high: number): Mark[] {
  const marks: Mark[] = [];
  for (let start = 0; start < differs.length; start += 1) {
    if (!differs[start]) continue;
    const region = [start];
    differs[start] = 0;
    let [left, right, top, bottom] = [WIDE, 0, high, 0];
    for (let at = 0; at < region.length; at += 1) {
      const place = region[at] ?? 0;
      const x = place % WIDE;
      const y = (place - x) / WIDE;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      for (const [u, v] of [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]] as const) {
        const next = v * WIDE + u;
        if (u < 0 || v < 0 || u >= WIDE || v >= high || !differs[next]) continue;
        differs[next] = 0;
        region.push(next);
      }
    }
    if (region.length < 4) continue;
    marks.push({
      x: left / WIDE, y: top / high,
      width: (right - left + 1) / WIDE, height: (bottom - top + 1) / high,
    });
  }
  return marks.filter((mark) => !marks.some((other) => other !== mark && contains(other, mark)));
}

function contains(outer: Mark, inner: Mark): boolean {
  return (
    outer.x <= inner.x && outer.y <= inner.y &&
    outer.x + outer.width >= inner.x + inner.width &&
    outer.y + outer.height >= inner.y + inner.height
  );
}
