/** What can be run: what is typed, what was run before, a data set of the server, and the lines of a file. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Looking, SENTENCE } from "../support/browser.js";

let looking: Looking;

beforeAll(async () => {
  looking = await Looking.start();
});

afterAll(() => looking?.close());

async function open(name: string, content: Buffer): Promise<void> {
  await looking.page.setInputFiles("input[name=file]", { name, mimeType: "text/plain", buffer: content });
}

test("the lines of a file can be chosen, the last one first, and nothing of them is sent before one is run", async () => {
  const requests: string[] = [];
  looking.page.on("request", (request) => requests.push(request.url()));
  await open("lines.txt", Buffer.from("To be or not to be\n\n日本語の文章\r\nWhat say you?\n"));
  await looking.page.waitForFunction(
    () => document.querySelector<HTMLTextAreaElement>("textarea[name=sentence]")?.value === "What say you?",
  );
  expect(requests).toEqual([]);
  const choices = await looking.page.$$eval("select[name=sentences] option", (all) =>
    all.map((one) => one.textContent),
  );
  expect(choices.slice(-3)).toEqual(["To be or not to be", "日本語の文章", "What say you?"]);
  await looking.page.selectOption("select[name=sentences]", "To be or not to be");
  await looking.page.click("button.primary");
  await looking.is("done");
  await looking.llm.run(["To be or not to be"]);
  expect(await looking.page.innerText(".status")).toContain(`${looking.llm.tokens().shape[1]} tokens`);
});

test("what was run stays in the list", async () => {
  await looking.run("so it goes on");
  await looking.run(SENTENCE);
  await looking.page.selectOption("select[name=sentences]", "so it goes on");
  expect(await looking.page.inputValue("textarea[name=sentence]")).toBe("so it goes on");
});

test("a data set of the server is chosen from, the last sentence first, and run", async () => {
  const { datasets } = await looking.llm.serverInfo();
  const names = await looking.page.$$eval("select[name=dataset] option", (all) => all.map((one) => one.textContent));
  expect(names).toEqual(["(examples)", ...datasets.map((each) => `${each.name} (${each.nSentences})`)]);
  expect(names).toContain("lines (4)");
  await looking.page.selectOption("select[name=dataset]", "lines");
  await looking.page.waitForFunction(
    () => document.querySelector<HTMLTextAreaElement>("textarea[name=sentence]")?.value === "What say you, my lord?",
  );
  const sentences = await looking.page.$$eval("select[name=sentences] option", (all) =>
    all.map((one) => one.textContent),
  );
  expect(sentences).toEqual(await looking.llm.dataset("lines"));
  expect(sentences[2]).toBe('<script>alert("no")</script>');
  await looking.page.selectOption("select[name=sentences]", "To be, or not to be");
  await looking.page.click("button.primary");
  await looking.is("done");
  await looking.llm.run(["To be, or not to be"]);
  expect(await looking.page.innerText(".status")).toContain(`${looking.llm.tokens().shape[1]} tokens`);
  await looking.page.selectOption("select[name=dataset]", "");
  await looking.page.waitForFunction(
    () => document.querySelectorAll("select[name=sentences] option").length === 2, // the examples
  );
});

test.each([
  ["is no text", Buffer.from([0xff, 0xfe, 0x00]), "no text in UTF-8"],
  ["is too large", Buffer.alloc(2 ** 20 + 1, 97), "1048577 bytes"],
  ["has too many lines", Buffer.from("a\n".repeat(1001)), "1001 sentences"],
])("a file that %s is told in words", async (_, content, words) => {
  await open("wrong.txt", content);
  await looking.page.waitForSelector(`.run .problem:has-text("${words}")`);
});
