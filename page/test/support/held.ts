/** Calls that go nowhere before they are let go. */

import type { Page, Route } from "playwright-core";

/** The nth call of an RPC from now on. */
export async function held(
  page: Page,
  rpc: string,
  nth = 1,
): Promise<{ readonly call: Promise<Route>; release(): Promise<void> }> {
  let count = 0;
  let take: (call: Route) => void;
  const call = new Promise<Route>((resolve) => {
    take = resolve;
  });
  const pattern = new RegExp(`/${rpc}$`);
  await page.route(pattern, async (route) => {
    count++;
    await (count === nth ? take(route) : route.continue());
  });
  return { call, release: () => page.unroute(pattern) };
}
