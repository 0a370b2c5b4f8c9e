import { expect, test } from "vitest";
import { CancelledError, InternalError } from "../../src/errors.js";
import { Scope } from "../../src/scope.js";
import { SingleFlight } from "../../src/single_flight.js";

/** Work that ends when it is told to. */
class Work {
  calls = 0;
  succeed: (value: string) => void = () => {};
  fail: (error: Error) => void = () => {};

  readonly begin = (): Promise<string> => {
    this.calls++;
    return new Promise((resolve, reject) => {
      this.succeed = resolve;
      this.fail = reject;
    });
  };
}

test("is done once for all who ask meanwhile, and again for those who ask later", async () => {
  const [flight, work] = [new SingleFlight<string, string>(), new Work()];
  const asked = [1, 2, 3].map(() => flight.do("key", new Scope(30_000), work.begin));
  work.succeed("value");
  expect(await Promise.all(asked)).toEqual(["value", "value", "value"]);
  expect(work.calls).toBe(1);
  const later = flight.do("key", new Scope(30_000), work.begin);
  work.succeed("again");
  expect(await later).toBe("again");
});

test("a failure is everyone's", async () => {
  const [flight, work] = [new SingleFlight<string, string>(), new Work()];
  const asked = [1, 2].map(() => flight.do("key", new Scope(30_000), work.begin));
  work.fail(new InternalError("broken"));
  const outcomes = await Promise.allSettled(asked);
  expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  expect(work.calls).toBe(1);
});

test("when the one who began is cancelled, another one begins", async () => {
  const [flight, first, second] = [new SingleFlight<string, string>(), new Work(), new Work()];
  const cancelled = flight.do("key", new Scope(30_000), first.begin);
  const waiting = flight.do("key", new Scope(30_000), second.begin);
  first.fail(new CancelledError("cancelled"));
  await expect(cancelled).rejects.toThrow(CancelledError);
  await expect.poll(() => second.calls).toBe(1);
  second.succeed("value");
  expect(await waiting).toBe("value");
});

test("one who waits can leave", async () => {
  const [flight, work, scope] = [new SingleFlight<string, string>(), new Work(), new Scope(30_000)];
  const began = flight.do("key", new Scope(30_000), work.begin);
  const waiting = flight.do("key", scope, work.begin);
  scope.cancel();
  await expect(waiting).rejects.toThrow(CancelledError);
  work.succeed("value");
  expect(await began).toBe("value");
});
