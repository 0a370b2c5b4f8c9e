/** An edit put together by hand: what is done, where in the model, and at which tokens. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import type { EditSpec, SiteKind, SiteSpec } from "../recipe/recipe.js";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { addToDraft, indicesOf } from "./draft.js";
import { useToken } from "./steer_form.js";

type Operation = "ablate" | "scale" | "patch" | "steer";

const OPERATIONS: Readonly<Record<Operation, string>> = {
  ablate: "Ablate",
  scale: "Scale",
  patch: "Patch from the other sentence",
  steer: "Steer toward a token",
};
const STREAMS: readonly SiteKind[] = ["residual_in", "residual_after_attn", "residual_out", "attn_out", "ffn_out"];
const SCALED: readonly SiteKind[] = ["head", "neurons", "attn_out", "ffn_out", "pattern", ...STREAMS.slice(0, 3)];
/** Where each can be made. */
const SITES: Readonly<Record<Operation, readonly SiteKind[]>> = {
  ablate: SCALED,
  scale: SCALED,
  patch: [...STREAMS, "head"],
  steer: STREAMS,
};
const SITE_NAMES: Readonly<Record<SiteKind, string>> = {
  head: "Head",
  neurons: "Neurons",
  attn_out: "Attention",
  ffn_out: "Feed-forward",
  pattern: "Pattern of a head",
  residual_in: "Stream into the layer",
  residual_after_attn: "Stream after attention",
  residual_out: "Stream after the layer",
};
const MOST_CHARACTERS = 20_000;

export function EditForm({ run }: { readonly run: RunView }): JSX.Element {
  const page = usePage();
  const [op, setOp] = useState<Operation>("ablate");
  const [chosen, setChosen] = useState<SiteKind>("head");
  const [where, setWhere] = useState<"all" | "last" | "chosen">("all");
  const [error, setError] = useState<unknown>();
  const token = useToken(run);
  const kind = SITES[op].includes(chosen) ? chosen : (SITES[op][0] as SiteKind);
  const hasSource = page.source.value !== undefined;
  const add = (form: HTMLFormElement): void => {
    const typed = new Typed(new FormData(form));
    setError(undefined);
    try {
      const place = { site: typed.site(kind), positions: where === "chosen" ? typed.indices("positions") : where };
      if (op === "steer") {
        const factor = typed.number("factor");
        token.find(typed.text("token"), (id) => tried({ ...place, op, token: id, factor }));
      } else {
        addToDraft(page, typed.edit(op, place));
      }
    } catch (problem) {
      setError(problem);
    }
  };
  const tried = (spec: EditSpec): void => {
    try {
      addToDraft(page, spec);
    } catch (problem) {
      setError(problem);
    }
  };
  return (
    <form
      class="edit-form"
      aria-label="An edit"
      onSubmit={(event) => {
        event.preventDefault();
        add(event.currentTarget);
      }}
    >
      <div class="toolbar">
        <Choice name="op" label="Edit" value={op} onChange={setOp} options={Object.entries(OPERATIONS)}>
          {(each) => each === "patch" && !hasSource}
        </Choice>
        <Choice
          name="site"
          label="Site"
          value={kind}
          onChange={setChosen}
          options={SITES[op].map((each) => [each, SITE_NAMES[each]])}
        />
        <NumberField name="layer" label="Layer" most={run.model.nLayers - 1} />
        {(kind === "head" || kind === "pattern") && (
          <NumberField name="head" label="Head" most={run.model.nHeads - 1} />
        )}
        {kind === "neurons" && <TextField name="neurons" label="Neurons" placeholder="3, 4, 17" />}
        <Choice
          name="where"
          label="At"
          value={where}
          onChange={setWhere}
          options={[
            ["all", "all tokens"],
            ["last", "the last token"],
            ["chosen", "these positions"],
          ]}
        />
        {where === "chosen" && <TextField name="positions" label="Positions" placeholder="0, 5" />}
        {op === "patch" && where === "chosen" && (
          <TextField name="sourcePositions" label="From positions" placeholder="the same" isOptional />
        )}
        {op === "steer" && <TextField name="token" label="Token" placeholder=" France" />}
        {(op === "scale" || op === "steer") && (
          <label>
            Factor{" "}
            <input
              key={op}
              name="factor"
              type="number"
              step="any"
              required
              defaultValue={op === "scale" ? "0.5" : "1"}
            />
          </label>
        )}
        <button type="submit">Add</button>
      </div>
      <p class="quiet">{hint(op, hasSource)}</p>
      {(error ?? token.error) !== undefined && <Problem error={error ?? token.error} />}
    </form>
  );
}

function hint(op: Operation, hasSource: boolean): string {
  if (op === "steer") {
    return "Adds the unembedding of the token, times the factor and the norm of what is there. A space in front of a word belongs to its token.";
  }
  return hasSource
    ? "Patches take what the other sentence has at the same place."
    : "To patch, run another sentence first: it is what patches take from.";
}

/** What stands in the fields of the form. */
class Typed {
  constructor(readonly fields: FormData) {}

  text(name: string): string {
    return String(this.fields.get(name) ?? "");
  }

  number(name: string): number {
    return Number(this.text(name));
  }

  indices(name: string): number[] {
    return indicesOf(name, this.text(name));
  }

  site(kind: SiteKind): SiteSpec {
    return {
      kind,
      layer: this.number("layer"),
      ...(kind === "head" || kind === "pattern" ? { head: this.number("head") } : {}),
      ...(kind === "neurons" ? { neurons: this.indices("neurons") } : {}),
    };
  }

  edit(op: "ablate" | "scale" | "patch", place: Pick<EditSpec, "site" | "positions">): EditSpec {
    if (op !== "patch") {
      return { ...place, op: "scale", factor: op === "ablate" ? 0 : this.number("factor") };
    }
    const isTyped = this.text("sourcePositions").trim() !== "";
    return { ...place, op, ...(isTyped ? { sourcePositions: this.indices("sourcePositions") } : {}) };
  }
}

function Choice<T extends string>({
  name,
  label,
  value,
  onChange,
  options,
  children: isDisabled,
}: {
  readonly name: string;
  readonly label: string;
  readonly value: T;
  readonly onChange: (value: T) => void;
  readonly options: readonly (readonly [string, string])[];
  readonly children?: ((value: string) => boolean) | undefined;
}): JSX.Element {
  return (
    <label>
      {label}{" "}
      <select name={name} value={value} onChange={(event) => onChange(event.currentTarget.value as T)}>
        {options.map(([each, words]) => (
          <option key={each} value={each} disabled={isDisabled?.(each)}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}

function NumberField({
  name,
  label,
  most,
}: {
  readonly name: string;
  readonly label: string;
  readonly most: number;
}): JSX.Element {
  return (
    <label>
      {label} <input name={name} type="number" min={0} max={most} step={1} required defaultValue="0" />
    </label>
  );
}

function TextField({
  name,
  label,
  placeholder,
  isOptional,
}: {
  readonly name: string;
  readonly label: string;
  readonly placeholder: string;
  readonly isOptional?: boolean | undefined;
}): JSX.Element {
  return (
    <label>
      {label}{" "}
      <input name={name} size={10} maxLength={MOST_CHARACTERS} placeholder={placeholder} required={!isOptional} />
    </label>
  );
}
