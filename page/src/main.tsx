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
void begin();

async function begin(): Promise<void> {
  try {
    const recipe = recipeOf(location.hash);
    await state.greet();
    if (recipe !== undefined) {
      await state.runRecipe(recipe);
    }
  } catch (error) {
    state.status.value = { kind: "failed", words: "", error };
  }
}
