/** The plain and the edited continuation: tokens, where they part, and the divergence are those that the client in Node reads. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { type Edit, EVERYWHERE, head, zero } from "../../../clients/typescript/src/interventions.js";
import type { GenerateOptions, NextToken, RemoteTransparentLlm } from "../../../clients/typescript/src/node.js";
import { visible } from "../../src/shown/token_text.js";
import { Looking, SENTENCE } from "../support/browser.js";
import { addEdit } from "../support/edit_form.js";
import { seriousFindings } from "../support/findings.js";

const N = 8;
const EDITS: readonly Edit[] = [zero(head(0, 1), EVERYWHERE), zero(head(1, 2), EVERYWHERE)];

/** A text of the client's, and what both models say where its tokens were chosen. */
interface Text {
  readonly llm: RemoteTransparentLlm;
  readonly tokens: readonly NextToken[];
  readonly kl: readonly number[];
}

let looking: Looking;

beforeAll(async () => {
  looking = await Looking.start();
  await looking.run();
  await looking.tab("compare");
  for (const [layer, index] of [
    [0, 1],
    [1, 2],
  ]) {
    await addEdit(looking.page, { op: "ablate", site: "head", layer: `${layer}`, head: `${index}`, where: "all" });
  }
});

afterAll(() => looking?.close());

async function texts(settings: GenerateOptions): Promise<Record<"plain" | "edited", Text>> {
  const write = async (edits: readonly Edit[]): Promise<Omit<Text, "kl">> => {
    const [llm, tokens] = [looking.llm.copy(), [] as NextToken[]];
    const onStep = (step: readonly (NextToken | undefined)[]): void => {
      tokens.push(...step.filter((token) => token !== undefined));
    };
    await llm.generate([SENTENCE], { maxNewTokens: N, ...settings, edits, onStep });
    return { llm, tokens };
  };
  const read = async ({ llm }: Omit<Text, "kl">, edits: readonly Edit[]): Promise<RemoteTransparentLlm> => {
    const own = looking.llm.copy();
    await own.runTokens([Array.from(llm.tokens().data, Number)], { edits });
    return own;
  };
  const divergences = async (edited: RemoteTransparentLlm, plain: RemoteTransparentLlm): Promise<readonly number[]> =>
    (await edited.compare(plain, { fromPos: 0 }))[0]?.klByPos.slice(-N) ?? [];
  const [plain, edited] = [await write([]), await write(EDITS)];
  return {
    plain: { ...plain, kl: await divergences(await read(plain, EDITS), plain.llm) },
    edited: { ...edited, kl: await divergences(edited.llm, await read(edited, [])) },
  };
}

/** Cells of a column of the table of steps. */
async function column(number: number): Promise<string[]> {
  return (await looking.page.locator(`.steps tbody tr > :nth-child(${number})`).allInnerTexts()).map((text) =>
    text.trim(),
  );
}

async function goOn(fields: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, value] of Object.entries(fields)) {
    await looking.page.fill(`input[name=${name}]`, value);
  }
  await looking.page.click("button[name=go-on-both]");
}

async function isWhole(): Promise<void> {
  await looking.page.waitForSelector('.both[data-whole="true"]', { timeout: 30_000 });
  await looking.is("done");
}

/** All that the page says of two texts. */
async function expectShown({ plain, edited }: Awaited<ReturnType<typeof texts>>): Promise<void> {
  for (const [first, { tokens, kl }] of [
    [2, plain],
    [5, edited],
  ] as const) {
    expect(await column(first)).toEqual(tokens.map(({ text }) => visible(text)));
    expect(await column(first + 1)).toEqual(tokens.map(({ logprob }) => logprob.toFixed(3)));
    for (const [step, shown] of (await column(first + 2)).entries()) {
      expect(Math.abs(Number(shown) - (kl[step] as number))).toBeLessThan(1e-3 * (kl[step] as number) + 1e-6);
    }
  }
  const at = plain.tokens.findIndex(({ tokenId }, step) => tokenId !== edited.tokens[step]?.tokenId);
  expect(await looking.page.getAttribute(".both", "data-parts")).toBe(at < 0 ? "" : String(at));
  expect(await looking.page.locator(".written .is-parting").allInnerTexts()).toEqual(
    at < 0 ? [] : [plain, edited].map(({ tokens }) => visible(tokens[at]?.text ?? "")),
  );
}

test("both texts, where they part, and the divergence at each token are the client's", async () => {
  const read = await texts({});
  const [plain, edited] = [read.plain, read.edited].map(({ tokens }) => tokens.map(({ text }) => text).join(""));
  expect(plain).not.toBe(edited); // these edits turn this text
  await goOn({ "both-tokens": String(N) });
  await isWhole();
  await expectShown(read);
  expect(await looking.page.innerText(".parting")).toContain("They part at step");
});

test("with a temperature both are drawn with the same seed", async () => {
  const settings = { temperature: 0.9, seed: 7 };
  const read = await texts(settings);
  await goOn({ "both-tokens": String(N), "both-temperature": "0.9", "both-seed": "7" });
  await looking.page.waitForSelector('.both[data-whole="false"]');
  await isWhole();
  await expectShown(read);
});

test("nothing of it is a serious finding, and a text can be looked into", async () => {
  expect(await seriousFindings(looking.page)).toEqual([]);
  const { edited } = await texts({ temperature: 0.9, seed: 7 });
  await looking.page.click('button:text-is("Look into the edited text")');
  await looking.page.waitForSelector(".shown-run strong");
  await looking.is("done");
  expect(await looking.page.innerText(".shown-run")).toContain("Ablate head 1 of layer 0 at all tokens");
  expect(await looking.page.innerText(".status")).toContain(`${edited.llm.tokens().shape[1]} tokens`);
  await looking.page.click("button[name=swap]");
});

test("tokens are seen as they come; what is stopped has no divergence, and no problem", async () => {
  await looking.run();
  await looking.tab("compare");
  await addEdit(looking.page, { op: "ablate", site: "head", layer: "0", head: "1", where: "all" });
  await goOn({ "both-tokens": "200" });
  await looking.page.waitForSelector('.status:has-text("Tokens ")');
  await looking.page.waitForSelector(".written .token");
  await looking.page.click('button:text-is("Stop")');
  await looking.is("idle");
  const nSteps = await looking.page.locator(".steps tbody tr").count();
  expect(nSteps).toBeGreaterThan(0);
  expect(nSteps).toBeLessThan(200);
  expect(await looking.page.getAttribute(".both", "data-whole")).toBe("false");
  expect(await looking.page.locator(".continuations .problem").count()).toBe(0);
});

test("an edit whose place moves with the text is refused in words, beside the form", async () => {
  await addEdit(looking.page, { op: "ablate", site: "ffn_out", layer: "0", where: "last" });
  await goOn({ "both-tokens": "4" });
  await looking.page.waitForSelector('.continuations .problem:has-text("the last token is another one in every step")');
  expect(await looking.page.locator(".both .token").count()).toBe(0);
});
