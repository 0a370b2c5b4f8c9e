// Base64 of large tensors, the same in Node and in a page.

/** Bytes at once: a multiple of 3, so that the pieces can be joined; few enough for the arguments of a call. */
const PIECE = 3 * 4096;

/** @param {Uint8Array} bytes */
export function encodeBase64(bytes) {
  const pieces = [];
  for (let start = 0; start < bytes.length; start += PIECE) {
    pieces.push(btoa(String.fromCharCode(...bytes.subarray(start, start + PIECE))));
  }
  return pieces.join("");
}

/** @param {string} text */
export function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = binary.charCodeAt(i);
  }
  return bytes;
}
