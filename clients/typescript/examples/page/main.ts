/** The page: a sentence, a button, and what is inside. */

import { CancelledError, type ModelInfo, type Tensor } from "transparent-llm/web";
import { adviceFor } from "./advice.js";
import { AttentionView } from "./attention_view.js";
import { LensView } from "./lens_view.js";
import { type Choice, Session } from "./session.js";

type State = "idle" | "busy" | "done" | "failed";

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) {
    throw new Error(`the page has no ${id}`);
  }
  return found;
}

const form = element("question", HTMLFormElement);
const sentence = element("sentence", HTMLInputElement);
const server = element("server", HTMLInputElement);
const runButton = element("run", HTMLButtonElement);
const stopButton = element("stop", HTMLButtonElement);
const progress = element("progress", HTMLProgressElement);
const layerChoice = element("layer", HTMLSelectElement);
const headChoice = element("head", HTMLSelectElement);
const attentionView = new AttentionView(element("pattern", HTMLCanvasElement), element("weight", HTMLOutputElement));
const lensView = new LensView(element("lens-table", HTMLTableElement));

/** Everything that is shown is of this run. */
let session: Session | undefined;
let running = new AbortController();
let choosing = new AbortController();

server.value = `${location.protocol}//${location.hostname}:50051`;
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void begin();
});
stopButton.addEventListener("click", () => running.abort());
layerChoice.addEventListener("change", () => void choose());
headChoice.addEventListener("change", () => void choose());

/** Run the sentence. What was shown before stays, and can be looked at, until the new run can be shown. */
async function begin(): Promise<void> {
  running = new AbortController();
  tell("busy", "Asking the server …");
  hideError();
  try {
    tell("done", await run(running.signal));
  } catch (error) {
    if (error instanceof CancelledError) {
      tell("idle", "Stopped.");
    } else {
      tell("failed", "");
      showError(error);
    }
  }
}

async function run(signal: AbortSignal): Promise<string> {
  const began = performance.now();
  const next = await Session.begin(server.value.trim(), sentence.value, signal);
  const choice = choiceWithin(next.model);
  show(next, choice, await next.attention(choice, signal));
  const { model, tokens } = next;
  const count = tokens.length * model.nLayers;
  let read = 0;
  await next.lens(signal, (guess) => {
    lensView.show(guess);
    read++;
    tell("busy", `Logit lens: ${read} of ${count}`, read / count);
  });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  return `${model.name}: ${tokens.length} tokens, ${model.nLayers} layers of ${model.nHeads} heads, read in ${seconds} s.`;
}

/** Show a run in place of the one before, all of it at once. */
function show(next: Session, choice: Choice, pattern: Tensor): void {
  choosing.abort(); // what is still being read is of the run before
  session?.close();
  session = next;
  const { model, tokens } = next;
  const wanted = choiceWithin(model);
  fill(layerChoice, model.nLayers, wanted.layer);
  fill(headChoice, model.nHeads, wanted.head);
  element("attention", HTMLElement).hidden = false;
  element("lens", HTMLElement).hidden = false;
  attentionView.show(pattern, tokens, titleOf(choice));
  lensView.clear(tokens, model.nLayers);
  hideError(); // of a choice in the run before
  if (wanted.layer !== choice.layer || wanted.head !== choice.head) {
    void choose(); // it was changed while the pattern was read
  }
}

/** Show another head of the run that is shown, while a logit lens or a new run goes on. Only the last choice counts. */
async function choose(): Promise<void> {
  choosing.abort();
  choosing = new AbortController();
  const { signal } = choosing;
  const of = session as Session; // without one there is nothing to choose from
  const choice = choiceWithin(of.model);
  try {
    const pattern = await of.attention(choice, signal);
    if (!signal.aborted) {
      attentionView.show(pattern, of.tokens, titleOf(choice));
      hideError();
    }
  } catch (error) {
    if (!signal.aborted) {
      showError(error);
    }
  }
}

/** What is chosen, as far as a model has it. */
function choiceWithin({ nLayers, nHeads }: ModelInfo): Choice {
  const [layer, head] = [Number(layerChoice.value), Number(headChoice.value)];
  return { layer: layer < nLayers ? layer : 0, head: head < nHeads ? head : 0 };
}

function titleOf({ layer, head }: Choice): string {
  return `Attention of layer ${layer}, head ${head}`;
}

/** Numbers to choose from. */
function fill(list: HTMLSelectElement, count: number, chosen: number): void {
  list.replaceChildren(...Array.from({ length: count }, (_, i) => new Option(String(i))));
  list.selectedIndex = chosen;
}

function tell(state: State, text: string, share?: number): void {
  element("status", HTMLElement).dataset["state"] = state;
  element("status-text", HTMLElement).textContent = text;
  progress.hidden = state !== "busy";
  if (share === undefined) {
    progress.removeAttribute("value");
  } else {
    progress.value = share;
  }
  runButton.disabled = state === "busy";
  stopButton.disabled = state !== "busy";
}

function showError(error: unknown): void {
  const { title, message, whatToDo } = adviceFor(error);
  element("error-title", HTMLElement).textContent = title;
  element("error-message", HTMLElement).textContent = message;
  element("error-advice", HTMLElement).textContent = whatToDo;
  element("error", HTMLElement).hidden = false;
}

function hideError(): void {
  element("error", HTMLElement).hidden = true;
}
