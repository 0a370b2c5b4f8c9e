/** A conversation, which the chat template of the model's tokenizer makes a text of. */

import { InvalidRequestError, TooLargeError } from "./errors.js";
import { quoted } from "./legible.js";
import { requireText } from "./run_input.js";

const MOST_MESSAGES = 1024;

/** One message of a conversation. */
export interface ChatMessage {
  /** Such as "system", "user" or "assistant": what the template of the model knows. */
  readonly role: string;
  readonly content: string;
}

/** A conversation, checked. */
export interface Chat {
  readonly messages: readonly ChatMessage[];
}

/**
 * A conversation of messages.
 *
 * @throws InvalidRequestError something else, or none.
 * @throws TooLargeError too many.
 */
export function chatOf(messages: readonly ChatMessage[]): Chat {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new InvalidRequestError(
      `messages is an array such as [{ role: "user", content: "..." }], got ${quoted(String(messages))}`,
    );
  }
  if (messages.length > MOST_MESSAGES) {
    throw new TooLargeError(
      `${messages.length} messages of a chat, at most ${MOST_MESSAGES} are possible in a generation`,
      {
        metadata: { needed: String(messages.length), allowed: String(MOST_MESSAGES) },
      },
    );
  }
  return { messages: messages.map(checked) };
}

function checked(message: ChatMessage, index: number): ChatMessage {
  const keys = typeof message === "object" && message !== null ? Object.keys(message).sort() : [];
  if (keys.join() !== "content,role") {
    throw new InvalidRequestError(`message ${index} of a chat must have a role and a content, and nothing else`);
  }
  const { role, content } = message;
  requireText(`the role of message ${index}`, role);
  requireText(`the content of message ${index}`, content);
  return { role, content };
}
