/** Two texts of a model, token by token, each on the colour of the divergence where it was chosen. */

import type { JSX } from "preact";
import type { NextToken } from "transparent-llm/web";
import { usePage } from "../page_state.js";
import { sequential, textOn } from "../shown/scale.js";
import { TokenText, visible } from "../shown/token_text.js";
import { type Continuations, partsAt } from "./continuations.js";
import { ScrollFrame } from "./scroll_frame.js";

type Side = "plain" | "edited";

const NAMES: Readonly<Record<Side, string>> = { plain: "Plain", edited: "Edited" };

/** A text as far as it has come. */
interface Text {
  readonly tokens: readonly NextToken[];
  /** Undefined until both models have read it. */
  readonly kl: readonly number[] | undefined;
}

export function ContinuationTexts({ both }: { readonly both: Continuations }): JSX.Element {
  const texts: Readonly<Record<Side, Text>> = { plain: textOf(both.plain), edited: textOf(both.edited) };
  const { plain, edited } = texts;
  const areWhole = plain.kl !== undefined && edited.kl !== undefined;
  const at = partsAt(idsOf(plain), idsOf(edited), { areWhole });
  const most = Math.max(0, ...(plain.kl ?? []), ...(edited.kl ?? []));
  return (
    <div class="both" data-parts={at ?? ""} data-whole={areWhole}>
      <div class="both-texts">
        {(["plain", "edited"] as const).map((side) => (
          <WrittenText key={side} side={side} text={texts[side]} partsAt={at} most={most} />
        ))}
      </div>
      <p class="parting">{partingWords(texts, at, areWhole)}</p>
      {areWhole && (
        <p class="quiet">
          Colour: KL(edited ‖ plain) in nats where the token was chosen, after both models have read all before it; dark
          is 0, bright is {most.toPrecision(3)}.
        </p>
      )}
      <Steps texts={texts} partsAt={at} />
      {areWhole && <LookInto both={both} />}
    </div>
  );
}

function WrittenText({
  side,
  text: { tokens, kl },
  partsAt: at,
  most,
}: {
  readonly side: Side;
  readonly text: Text;
  readonly partsAt: number | undefined;
  readonly most: number;
}): JSX.Element {
  return (
    <section aria-label={`${NAMES[side]} text`} data-side={side}>
      <h3>{NAMES[side]}</h3>
      <p class="written" dir="auto">
        {tokens.map(({ text }, step) => (
          <bdi key={step} class={step === at ? "token is-parting" : "token"} style={colours(kl?.[step], most)}>
            {visible(text)}
          </bdi>
        ))}
      </p>
    </section>
  );
}

function colours(kl: number | undefined, most: number): JSX.CSSProperties {
  if (kl === undefined) {
    return {};
  }
  const backgroundColor = sequential(most > 0 ? kl / most : 0);
  return { backgroundColor, color: textOn(backgroundColor) };
}

/** A row for each step: what both wrote there, and in numbers what the colours say. */
function Steps({
  texts: { plain, edited },
  partsAt: at,
}: {
  readonly texts: Readonly<Record<Side, Text>>;
  readonly partsAt: number | undefined;
}): JSX.Element {
  const steps = Array.from({ length: Math.max(plain.tokens.length, edited.tokens.length) }, (_, step) => step);
  return (
    <ScrollFrame name="Both texts, step by step">
      <table class="steps">
        <thead>
          <tr>
            <th scope="col">Step</th>
            {(["plain", "edited"] as const).flatMap((side) => [
              <th key={side} scope="col">
                {NAMES[side]}
              </th>,
              <th key={`${side} log p`} scope="col">
                Log p
              </th>,
              <th key={`${side} KL`} scope="col">
                KL
              </th>,
            ])}
          </tr>
        </thead>
        <tbody>
          {steps.map((step) => (
            <tr key={step} data-step={step} class={step === at ? "is-parting" : ""}>
              <th scope="row">
                {step}
                {isOther(plain, edited, step) && <span title="Another token"> ≠</span>}
              </th>
              <Cells text={plain} step={step} />
              <Cells text={edited} step={step} />
            </tr>
          ))}
        </tbody>
      </table>
    </ScrollFrame>
  );
}

/** Empty where the text has ended, or has not come so far. */
function Cells({ text: { tokens, kl }, step }: { readonly text: Text; readonly step: number }): JSX.Element {
  const token = tokens[step];
  return (
    <>
      <td>{token !== undefined && <TokenText token={token.text} />}</td>
      <td>{token?.logprob.toFixed(3)}</td>
      <td>{token !== undefined && (kl?.[step]?.toPrecision(4) ?? "…")}</td>
    </>
  );
}

function LookInto({ both }: { readonly both: Continuations }): JSX.Element {
  const page = usePage();
  const look = (side: Side): void => {
    const run = both.recipe(side);
    const other = { ...run, edits: side === "plain" ? both.edits : [] };
    const source = page.source.value?.recipe;
    void page.runRecipe({ model: both.prompt.model.name, run, other, ...(source && { source }) });
  };
  return (
    <div class="toolbar" role="group" aria-label="Look into a text">
      {(["plain", "edited"] as const).map((side) => (
        <button key={side} type="button" onClick={() => look(side)}>
          Look into the {side} text
        </button>
      ))}
    </div>
  );
}

function partingWords(
  { plain, edited }: Readonly<Record<Side, Text>>,
  at: number | undefined,
  areWhole: boolean,
): string {
  if (at === undefined) {
    return areWhole ? "Both are the same." : "";
  }
  const word = ({ tokens }: Text): string => (at < tokens.length ? `“${visible(tokens[at]?.text ?? "")}”` : "ended");
  return `They part at step ${at}: plain ${word(plain)}, edited ${word(edited)}.`;
}

function isOther(plain: Text, edited: Text, step: number): boolean {
  const [a, b] = [plain.tokens[step], edited.tokens[step]];
  return a !== undefined && b !== undefined && a.tokenId !== b.tokenId;
}

function textOf({ tokens, kl }: Continuations["plain"]): Text {
  return { tokens: tokens.value, kl: kl.value };
}

function idsOf({ tokens }: Text): number[] {
  return tokens.map(({ tokenId }) => tokenId);
}
