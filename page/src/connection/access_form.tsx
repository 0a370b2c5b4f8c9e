/** The token of a server that wants one. It is kept in this tab alone. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { usePage } from "../page_state.js";

export function AccessForm(): JSX.Element {
  const page = usePage();
  const [isOpen, setIsOpen] = useState(false);
  const [token, setToken] = useState(page.connection.token);
  const isWanted = page.isTokenWanted.value;
  return (
    <div class="access">
      <span class="quiet">{page.connection.address}</span>
      <button type="button" aria-expanded={isOpen || isWanted} onClick={() => setIsOpen(!isOpen)}>
        Access
      </button>
      {(isOpen || isWanted) && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            page.connection.token = token.trim();
            setIsOpen(false);
            void page.greet().catch(() => {});
          }}
        >
          <label>
            Token
            <input
              type="password"
              name="token"
              autocomplete="off"
              value={token}
              onInput={(event) => setToken(event.currentTarget.value)}
            />
          </label>
          <button type="submit">Use it</button>
        </form>
      )}
    </div>
  );
}
