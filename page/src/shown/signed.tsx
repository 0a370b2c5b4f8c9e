/** Signed numbers, as text and as bars to both sides of nothing. */

import type { JSX } from "preact";
import { diverging } from "./scale.js";
import "./signed.css";

/** With its sign, and four digits after the point, or as a power of ten what would be all zeros. */
export function signed(value: number): string {
  const size = Math.abs(value);
  const digits = size === 0 || size >= 0.00005 ? size.toFixed(4) : size.toExponential(1);
  return `${value < 0 ? "−" : "+"}${digits}`;
}

/** To the right above 0, to the left below; `most` fills its side. */
export function SignedBar({ value, most }: { readonly value: number; readonly most: number }): JSX.Element {
  const width = most > 0 ? (50 * Math.min(Math.abs(value), most)) / most : 0;
  const left = value < 0 ? 50 - width : 50;
  const backgroundColor = diverging(Math.sign(value), 1.4); // the whole of a bar in one colour that can be seen
  return (
    <span class="signed-bar" aria-hidden="true">
      <span style={{ width: `${width}%`, left: `${left}%`, backgroundColor }} />
    </span>
  );
}

/** A term of a sum. */
export interface Term {
  readonly name: JSX.Element | string;
  /** For tests and screen readers: no other row has it. */
  readonly id: string;
  readonly value: number;
}

/** Terms, one a row, with bars on one scale; below them what follows of them, without bars. */
export function TermTable({
  caption,
  terms,
  results,
}: {
  readonly caption: string;
  readonly terms: readonly Term[];
  readonly results: readonly Term[];
}): JSX.Element {
  const most = terms.reduce((largest, { value }) => Math.max(largest, Math.abs(value)), 0);
  return (
    <table class="terms">
      <caption>{caption}</caption>
      <tbody>
        {terms.map(({ id, name, value }) => (
          <tr key={id} data-term={id}>
            <th scope="row">{name}</th>
            <td>{signed(value)}</td>
            <td>
              <SignedBar value={value} most={most} />
            </td>
          </tr>
        ))}
      </tbody>
      <tfoot>
        {results.map(({ id, name, value }) => (
          <tr key={id} data-term={id}>
            <th scope="row">{name}</th>
            <td colSpan={2}>{signed(value)}</td>
          </tr>
        ))}
      </tfoot>
    </table>
  );
}
