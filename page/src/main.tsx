/** Where the page begins: the state, what the server serves, and what a link says. */

import { render } from "preact";
import { Connection, serverAddress } from "./connection/connection.js";
import { Page } from "./page.js";
import { PageContext, PageState } from "./page_state.js";
import { recipeOf } from "./recipe/recipe.js";
import "./style.css";

const state = new PageState(new Connection(serverAddress()));
render(
  <PageContext.Provider value={state}>
    <Page />
  </PageContext.Provider>,
  document.getElementById("page") as HTMLElement,
);
void told(begin);

addEventListener("hashchange", () => void told(showLink));

async function begin(): Promise<void> {
  recipeOf(location.hash); // a damaged link is told before anything is asked
  await state.greet();
  await showLink();
}

/** Run what the address says. */
async function showLink(): Promise<void> {
  const recipe = recipeOf(location.hash);
  if (recipe !== undefined) {
    await state.runRecipe(recipe);
  }
}

async function told(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    state.status.value = { kind: "failed", words: "", error };
  }
}
