/** What went wrong, and what to do. */

import type { JSX } from "preact";
import {
  AuthError,
  BusyError,
  CancelledError,
  NotFoundError,
  NotSupportedError,
  TooLargeError,
  TransparentLlmError,
  UnavailableError,
} from "transparent-llm/web";
import { RecipeError } from "../recipe/recipe.js";
import { FileError } from "../run/sentences.js";

/** For somebody who looks at the page. */
export interface Advice {
  readonly title: string;
  readonly message: string;
  readonly whatToDo: string;
}

/** Of anything that was thrown. */
export function adviceFor(error: unknown): Advice {
  if (error instanceof RecipeError) {
    return { title: "The link cannot be shown", message: error.message, whatToDo: "Ask for it again, whole." };
  }
  if (error instanceof FileError) {
    return { title: "The file cannot be opened", message: error.message, whatToDo: "Choose a smaller file of text." };
  }
  if (!(error instanceof TransparentLlmError)) {
    const whatToDo = "Reload it; if it fails again, that is a bug of this page.";
    return { title: "The page failed", message: String(error), whatToDo };
  }
  const title = `${error.name.replace(/Error$/, "")} (${error.reason})`;
  return { title, message: error.message, whatToDo: whatToDo(error) };
}

/** Nobody needs to be told of what they stopped themselves. */
export function isStopped(error: unknown): boolean {
  return error instanceof CancelledError;
}

/** A problem, where its value would stand. */
export function Problem({ error }: { readonly error: unknown }): JSX.Element {
  const { title, message, whatToDo } = adviceFor(error);
  return (
    <div class="problem" role="alert">
      <strong>{title}</strong>
      <p>{message}</p>
      <p>{whatToDo}</p>
    </div>
  );
}

function whatToDo(error: TransparentLlmError): string {
  if (error instanceof UnavailableError) {
    return "The page looks for the server and goes on when it is back.";
  }
  if (error instanceof AuthError) {
    return "Enter your token under “Access”; the server's operator makes one with `transparent-llm token OWNER`.";
  }
  if (error instanceof TooLargeError) {
    return "Take a shorter sentence.";
  }
  if (error instanceof BusyError) {
    return `Try again in ${Math.ceil(error.retryAfterS ?? 1)} s.`;
  }
  if (error instanceof NotSupportedError) {
    return "This model, or this run with its edits, has no such value; look at another one.";
  }
  if (error instanceof NotFoundError) {
    return "Choose a model that is served, and run the sentence again.";
  }
  return "Change the sentence or the choice, and try again.";
}
