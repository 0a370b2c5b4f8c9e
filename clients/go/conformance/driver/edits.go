package main

import (
	"encoding/json"
	"fmt"
	"math"

	transparentllm "transparentllm.dev/go"
)

// editFields are those of an edit of a scenario, whatever its operation.
type editFields struct {
	Op              string            `json:"op"`
	Site            []json.RawMessage `json:"site"`
	Positions       json.RawMessage   `json:"positions"`
	Rows            json.RawMessage   `json:"rows"`
	Vector          json.RawMessage   `json:"vector"`
	Origin          json.RawMessage   `json:"origin"`
	Target          json.RawMessage   `json:"target"`
	Source          string            `json:"source"`
	SourcePositions *[]int            `json:"source_positions"`
	SourceRows      *[]int            `json:"source_rows"`
	Factor          *float64          `json:"factor"`
	Relative        bool              `json:"relative"`
	Least           *float64          `json:"least"`
	Most            *float64          `json:"most"`
	SD              float64           `json:"sd"`
	Seed            int64             `json:"seed"`
	SAE             string            `json:"sae"`
	Feature         int               `json:"feature"`
}

// edited is the option for the edits of a call.
func (c called) edited() (transparentllm.RunOption, error) {
	made, err := c.madeEdits()
	return transparentllm.Edits(made...), err
}

func (c called) madeEdits() ([]transparentllm.Edit, error) { return c.editsOf(c.edits) }

func (c called) editsOf(all []editFields) ([]transparentllm.Edit, error) {
	var made []transparentllm.Edit
	for _, given := range all {
		edit, err := c.edit(given)
		if err != nil {
			return nil, err
		}
		made = append(made, edit)
	}
	return made, nil
}

func (c called) edit(given editFields) (made transparentllm.Edit, err error) {
	site, err := siteOf(given.Site)
	if err != nil {
		return made, err
	}
	where, err := given.selection()
	if err != nil {
		return made, err
	}
	var vectors [3]transparentllm.Vector
	for i, part := range []json.RawMessage{given.Vector, given.Origin, given.Target} {
		if part != nil {
			if vectors[i], err = c.vector(part); err != nil {
				return made, err
			}
		}
	}
	switch given.Op {
	case "zero":
		return transparentllm.Zero(site, where), nil
	case "scale":
		return transparentllm.Scale(site, or(given.Factor, 1), where), nil
	case "add":
		if given.Relative {
			return transparentllm.AddRelative(site, vectors[0], or(given.Factor, 1), where), nil
		}
		return transparentllm.Add(site, vectors[0], or(given.Factor, 1), where), nil
	case "set":
		return transparentllm.SetTo(site, vectors[0], where), nil
	case "mean":
		return transparentllm.Mean(site, c.clients[given.Source], where), nil
	case "patch":
		return transparentllm.Patch(site, c.clients[given.Source], where, given.mapping()...), nil
	case "project":
		return transparentllm.Project(site, vectors[0], or(given.Factor, 0), where), nil
	case "clamp":
		return transparentllm.Clamp(site, vectors[0], or(given.Least, math.Inf(-1)), or(given.Most, math.Inf(1)), where), nil
	case "clamp_feature":
		least, most := or(given.Least, math.Inf(-1)), or(given.Most, math.Inf(1))
		return transparentllm.ClampFeature(site, given.SAE, given.Feature, least, most, where), nil
	case "swap":
		return transparentllm.Swap(site, vectors[1], vectors[2], where), nil
	case "noise":
		return transparentllm.Noise(site, given.SD, given.Seed, where), nil
	}
	return made, fmt.Errorf("no such operation: %q", given.Op)
}

func (e editFields) mapping() (options []transparentllm.PatchOption) {
	if e.SourcePositions != nil {
		options = append(options, transparentllm.FromPositions(*e.SourcePositions...))
	}
	if e.SourceRows != nil {
		options = append(options, transparentllm.FromRows(*e.SourceRows...))
	}
	return options
}

// selection of an edit. Of a word that there is none for, the client is given nothing, which it refuses.
func (e editFields) selection() (made transparentllm.Selection, err error) {
	word, positions, err := wordOr(e.Positions)
	if err != nil {
		return made, err
	}
	switch word {
	case "all":
		made = transparentllm.AllPositions()
	case "last":
		made = transparentllm.LastPosition()
	case "":
		made = transparentllm.Positions(positions...)
	}
	word, rows, err := wordOr(e.Rows)
	if word != "all" {
		made = made.OfRows(rows...)
	}
	return made, err
}

// wordOr is a word, or else a list.
func wordOr(given json.RawMessage) (word string, list []int, err error) {
	if json.Unmarshal(given, &word) == nil {
		return word, nil, nil
	}
	return "", list, json.Unmarshal(given, &list)
}

var layerSites = map[string]func(int) transparentllm.Site{
	"residual_in":         transparentllm.AtResidualIn,
	"residual_after_attn": transparentllm.AtResidualAfterAttn,
	"residual_out":        transparentllm.AtResidualOut,
	"attn_out":            transparentllm.AtAttnOut,
	"ffn_out":             transparentllm.AtFfnOut,
	"neurons":             transparentllm.AtAllNeurons,
	"head":                transparentllm.AtAllHeads,
	"pattern":             transparentllm.AtAllPatterns,
	"query":               transparentllm.AtAllQueries,
	"key":                 transparentllm.AtAllKeys,
	"value":               transparentllm.AtAllValues,
}

var headSites = map[string]func(int, int) transparentllm.Site{
	"head":    transparentllm.AtHead,
	"pattern": transparentllm.AtPattern,
	"query":   transparentllm.AtQuery,
	"key":     transparentllm.AtKey,
	"value":   transparentllm.AtValue,
}

// siteOf is a site from its name and its numbers.
func siteOf(given []json.RawMessage) (made transparentllm.Site, err error) {
	var name string
	var layer, head int
	var neurons []int
	if len(given) < 2 || len(given) > 3 {
		return made, fmt.Errorf("a site of %d parts", len(given))
	}
	if err := json.Unmarshal(given[0], &name); err != nil {
		return made, err
	}
	if err := json.Unmarshal(given[1], &layer); err != nil {
		return made, err
	}
	if at, ok := layerSites[name]; ok && len(given) == 2 {
		return at(layer), nil
	}
	if at, ok := headSites[name]; ok && len(given) == 3 {
		err = json.Unmarshal(given[2], &head)
		return at(layer, head), err
	}
	if name == "neurons" {
		err = json.Unmarshal(given[2], &neurons)
		return transparentllm.AtNeurons(layer, neurons...), err
	}
	return made, fmt.Errorf("no such site: %q", name)
}

// vectorFields has one of its fields.
type vectorFields struct {
	Literal json.RawMessage `json:"literal"`
	ValueOf *struct {
		Site   []json.RawMessage `json:"site"`
		Source string            `json:"source"`
		Row    int               `json:"row"`
		Pos    int               `json:"pos"`
	} `json:"value_of"`
	Difference   []json.RawMessage `json:"difference"`
	Unembedding  *int              `json:"unembedding"`
	NeuronOutput []int             `json:"neuron_output"`
	SaeFeature   []json.RawMessage `json:"sae_feature"`
}

func (c called) vector(given json.RawMessage) (made transparentllm.Vector, err error) {
	var of vectorFields
	if err := json.Unmarshal(given, &of); err != nil {
		return made, err
	}
	switch {
	case of.Literal != nil:
		return literal(of.Literal)
	case of.ValueOf != nil:
		site, err := siteOf(of.ValueOf.Site)
		return transparentllm.ValueOf(site, c.clients[of.ValueOf.Source], of.ValueOf.Row, of.ValueOf.Pos), err
	case len(of.Difference) == 2:
		minuend, err := c.vector(of.Difference[0])
		if err != nil {
			return made, err
		}
		subtrahend, err := c.vector(of.Difference[1])
		return minuend.Minus(subtrahend), err
	case of.Unembedding != nil:
		return transparentllm.Unembedding(*of.Unembedding), nil
	case len(of.NeuronOutput) == 2:
		return transparentllm.NeuronOutput(of.NeuronOutput[0], of.NeuronOutput[1]), nil
	case len(of.SaeFeature) == 2:
		return feature(of.SaeFeature)
	}
	return made, fmt.Errorf("no such vector: %.100s", given)
}

func feature(given []json.RawMessage) (made transparentllm.Vector, err error) {
	var name string
	var index int
	if err := json.Unmarshal(given[0], &name); err != nil {
		return made, err
	}
	err = json.Unmarshal(given[1], &index)
	return transparentllm.SaeFeature(name, index), err
}

// literal is numbers, or a tensor.
func literal(given json.RawMessage) (made transparentllm.Vector, err error) {
	var numbers []float32
	if json.Unmarshal(given, &numbers) == nil {
		return transparentllm.Literal(numbers), nil
	}
	value, err := tensorOf(called{args: []json.RawMessage{given}}, 0)
	if err != nil {
		return made, err
	}
	return transparentllm.LiteralOf(value), nil
}

func effects(c called) (any, error) {
	all, err := c.llm.Effects()
	listed := []fields{}
	for _, effect := range all {
		listed = append(listed, fields{"edit": effect.Edit, "selected": effect.Selected, "changed": effect.Changed,
			"delta_norm": effect.DeltaNorm, "norm": effect.Norm, "max_delta": effect.MaxDelta})
	}
	return listed, err
}

func or(given *float64, absent float64) float64 {
	if given == nil {
		return absent
	}
	return *given
}
