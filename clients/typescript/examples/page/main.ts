/** The page: a sentence, a button, and what is inside. */

import { CancelledError } from "transparent-llm/web";
import { adviceFor } from "./advice.js";
import { AttentionView } from "./attention_view.js";
import { LensView } from "./lens_view.js";
import { Session } from "./session.js";

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

/** Run the sentence; a choice that is still being read is of the one before. */
async function begin(): Promise<void> {
  choosing.abort();
  running = new AbortController();
  tell("busy", "Asking the server …");
  element("error", HTMLElement).hidden = true;
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

/** Show another head, while the logit lens goes on. */
async function choose(): Promise<void> {
  choosing.abort();
  choosing = new AbortController();
  try {
    await showAttention(choosing.signal);
  } catch (error) {
    if (!(error instanceof CancelledError)) {
      showError(error);
    }
  }
}

async function run(signal: AbortSignal): Promise<string> {
  const began = performance.now();
  session = await Session.begin(server.value.trim(), sentence.value, signal);
  const { model, tokens } = session;
  fill(layerChoice, model.nLayers);
  fill(headChoice, model.nHeads);
  element("attention", HTMLElement).hidden = false;
  element("lens", HTMLElement).hidden = false;
  lensView.clear(tokens, model.nLayers);
  await showAttention(signal);
  const count = tokens.length * model.nLayers;
  let read = 0;
  await session.lens(signal, (guess) => {
    lensView.show(guess);
    read++;
    tell("busy", `Logit lens: ${read} of ${count}`, read / count);
  });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  return `${model.name}: ${tokens.length} tokens, ${model.nLayers} layers of ${model.nHeads} heads, read in ${seconds} s.`;
}

async function showAttention(signal: AbortSignal): Promise<void> {
  if (session !== undefined) {
    const [layer, head] = [Number(layerChoice.value), Number(headChoice.value)];
    const pattern = await session.attention(layer, head, signal);
    attentionView.show(pattern, session.tokens, `Attention of layer ${layer}, head ${head}`);
  }
}

/** Numbers to choose from; a choice that is still there stays. */
function fill(choice: HTMLSelectElement, count: number): void {
  const before = Number(choice.value);
  choice.replaceChildren(...Array.from({ length: count }, (_, i) => new Option(String(i))));
  choice.selectedIndex = before < count ? before : 0;
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
