/** Edits as a user puts them together. */

import type { Page } from "playwright-core";

/** Put one into the list: fields in the order in which they appear. */
export async function addEdit(page: Page, fields: Readonly<Record<string, string>>): Promise<void> {
  const form = page.locator(".edit-form");
  const before = await page.locator(".edit-list li").count();
  for (const [name, value] of Object.entries(fields)) {
    const field = form.locator(`[name="${name}"]`);
    await (["op", "site", "where"].includes(name) ? field.selectOption(value) : field.fill(value));
  }
  await form.locator('button[type="submit"]').click();
  await page.locator(".edit-list li").nth(before).waitFor();
}
