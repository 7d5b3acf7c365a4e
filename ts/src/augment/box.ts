/** Where random numbers come from: a stream, or recorded draws. */
export interface Draws {
  /** From [low, high). */
  uniform(low: number, high: number): number;
  /** A whole number from [low, high). */
  integer(low: number, high: number): number;
}

/** A rectangle of whole pixels. */
export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Python's `round`: halves go to the even neighbor. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Attempts at a box that fits before the fallback. */
const attempts = 10;

/**
 * The box of torchvision's `RandomResizedCrop`: area a uniform share `scale` of the image's, logarithm of width over height
 * uniform in the logarithms of `ratio`, place uniform. Up to ten attempts; then the largest central box of an allowed ratio.
 * Draws are consumed in torchvision's order: area, log ratio, and top, left once a box fits.
 */
export function randomResizedBox(
  width: number, height: number, scale: readonly [number, number], ratio: readonly [number, number], draws: Draws,
): Box {
  const area = width * height;
  // torchvision holds the logarithms, and the ratio drawn from them, as 32-bit floats.
  const logLow = Math.fround(Math.log(Math.fround(ratio[0])));
  const logHigh = Math.fround(Math.log(Math.fround(ratio[1])));
  for (let attempt = 0; attempt < attempts; attempt++) {
    const target = area * draws.uniform(scale[0], scale[1]);
    const aspect = Math.fround(Math.exp(draws.uniform(logLow, logHigh)));
    const boxWidth = roundHalfEven(Math.sqrt(target * aspect));
    const boxHeight = roundHalfEven(Math.sqrt(target / aspect));
    if (boxWidth > 0 && boxWidth <= width && boxHeight > 0 && boxHeight <= height) {
      const top = draws.integer(0, height - boxHeight + 1);
      const left = draws.integer(0, width - boxWidth + 1);
      return { left, top, width: boxWidth, height: boxHeight };
    }
  }
  let boxWidth = width;
  let boxHeight = height;
  // A very narrow image would round to an empty box; torchvision fails there.
  if (width / height < ratio[0]) boxHeight = Math.max(1, Math.min(height, roundHalfEven(width / ratio[0])));
  else if (width / height > ratio[1]) boxWidth = Math.max(1, Math.min(width, roundHalfEven(height * ratio[1])));
  return {
    left: Math.floor((width - boxWidth) / 2),
    top: Math.floor((height - boxHeight) / 2),
    width: boxWidth,
    height: boxHeight,
  };
}
