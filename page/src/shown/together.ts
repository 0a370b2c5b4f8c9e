/** Two things that are done at once. */

/** Both, or neither: where one fails, or the signal stops them, the other is stopped too. */
export async function together<A, B>(
  signal: AbortSignal,
  first: (stop: AbortSignal) => Promise<A>,
  second: (stop: AbortSignal) => Promise<B>,
): Promise<[A, B]> {
  const stop = new AbortController();
  const end = (): void => stop.abort();
  signal.addEventListener("abort", end);
  if (signal.aborted) {
    end();
  }
  try {
    return await Promise.all([first(stop.signal), second(stop.signal)]);
  } finally {
    end();
    signal.removeEventListener("abort", end);
  }
}
