/** What went wrong, and what to do. */

import { AuthError, BusyError, TooLargeError, TransparentLlmError, UnavailableError } from "transparent-llm/web";

/** For somebody who looks at the page. */
export interface Advice {
  readonly title: string;
  readonly message: string;
  readonly whatToDo: string;
}

/** Of anything that was thrown. */
export function adviceFor(error: unknown): Advice {
  if (!(error instanceof TransparentLlmError)) {
    return {
      title: "The page failed",
      message: String(error),
      whatToDo: "Reload it; if it fails again, that is a bug of this page.",
    };
  }
  return { title: titleOf(error), message: error.message, whatToDo: whatToDo(error) };
}

function titleOf(error: TransparentLlmError): string {
  return `${error.name.replace(/Error$/, "")} (${error.reason})`;
}

function whatToDo(error: TransparentLlmError): string {
  if (error instanceof UnavailableError) {
    return "A page talks to Envoy, not to the server itself. Start both, and check the address in the field.";
  }
  if (error instanceof AuthError) {
    return "This page sends no token, and Envoy admits pages of this host only; see the CORS policy in envoy.yaml.";
  }
  if (error instanceof TooLargeError) {
    return "Take a shorter sentence.";
  }
  if (error instanceof BusyError) {
    return `Run it again in ${Math.ceil(error.retryAfterS ?? 1)} s.`;
  }
  return "Change the sentence or the choice, and run it again.";
}
