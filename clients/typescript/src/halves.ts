/** The two 16-bit floating types, BF16 and F16, from and to single precision. */

const NAN_F16 = 0x7e00;
const NAN_BF16 = 0x7fc0;
const INFINITY_F16 = 0x7c00;

/** Of single precision, without the sign. */
const INFINITY_BITS = 0x7f800000;
const TWO_TO_16_BITS = 0x47800000;
const SMALLEST_NORMAL_F16_BITS = 0x38800000;
const EXPONENT_DISTANCE_BITS = 0x38000000;

/** Exact: every BF16 is a single. */
export function decodeBf16(from: Uint16Array, to: Float32Array): void {
  const bits = new Uint32Array(to.buffer, to.byteOffset, to.length);
  for (let i = 0; i < from.length; i++) {
    bits[i] = (from[i] as number) << 16;
  }
}

/** Exact: every F16 is a single. */
export function decodeF16(from: Uint16Array, to: Float32Array): void {
  for (let i = 0; i < from.length; i++) {
    to[i] = f16Value(from[i] as number);
  }
}

/** To nearest, ties to even. */
export function encodeBf16(from: Float32Array, to: Uint16Array): void {
  const bits = new Uint32Array(from.buffer, from.byteOffset, from.length);
  for (let i = 0; i < from.length; i++) {
    const single = bits[i] as number;
    const isNan = (single & 0x7fffffff) > INFINITY_BITS;
    to[i] = isNan ? ((single >>> 16) & 0x8000) | NAN_BF16 : (single + 0x7fff + ((single >>> 16) & 1)) >>> 16;
  }
}

/** To nearest, ties to even; past the largest F16 to infinity. */
export function encodeF16(from: Float32Array, to: Uint16Array): void {
  const bits = new Uint32Array(from.buffer, from.byteOffset, from.length);
  for (let i = 0; i < from.length; i++) {
    const sign = ((bits[i] as number) >>> 16) & 0x8000;
    to[i] = sign | f16Magnitude((bits[i] as number) & 0x7fffffff, Math.abs(from[i] as number));
  }
}

function f16Value(bits: number): number {
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) {
    return sign * fraction * 2 ** -24;
  }
  if (exponent === 0x1f) {
    return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  }
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function f16Magnitude(bits: number, value: number): number {
  if (bits > INFINITY_BITS) {
    return NAN_F16;
  }
  if (bits >= TWO_TO_16_BITS) {
    return INFINITY_F16;
  }
  if (bits < SMALLEST_NORMAL_F16_BITS) {
    return roundedToEven(value * 2 ** 24); // units of the smallest subnormal; 1024 of them are the smallest normal
  }
  const rounded = bits + 0xfff + ((bits >>> 13) & 1);
  return (rounded - EXPONENT_DISTANCE_BITS) >>> 13;
}

function roundedToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
