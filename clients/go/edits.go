package transparentllm

import (
	"math"
	"strconv"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// mostEdits of one run.
const mostEdits = 512

// Edit is one change of a run: a site, the elements of it, and what becomes of them. The functions that return one only note what
// is to be done; what is wrong with it, Run returns. Computed in float32 at least and rounded once, so that what changes nothing
// changes no bit.
type Edit struct {
	site  Site
	where Selection
	// operate writes the operation into the message.
	operate func(*pb.Intervention, *sources) error
}

// Zero is zero ablation.
func Zero(site Site, where Selection) Edit { return Scale(site, 0, where) }

// Scale is x times a factor.
func Scale(site Site, factor float64, where Selection) Edit {
	return Edit{site, where, func(edit *pb.Intervention, _ *sources) error {
		edit.Operation = &pb.Intervention_Scale{Scale: &pb.ScaleEdit{Factor: factor}}
		return finite("factor", factor)
	}}
}

// Add is x + factor * v (steering).
func Add(site Site, vector Vector, factor float64, where Selection) Edit {
	return added(site, vector, factor, where, false)
}

// AddRelative is x + factor * v * norm(x) / norm(v): the factor is relative to what is there.
func AddRelative(site Site, vector Vector, factor float64, where Selection) Edit {
	return added(site, vector, factor, where, true)
}

func added(site Site, vector Vector, factor float64, where Selection, relative bool) Edit {
	return Edit{site, where, func(edit *pb.Intervention, from *sources) error {
		sent, err := vector.on(from)
		edit.Operation = &pb.Intervention_Add{Add: &pb.AddEdit{Vector: sent, Factor: factor, Relative: relative}}
		return first(err, finite("factor", factor))
	}}
}

// SetTo is a vector [d], or a row for each selected position [n d], instead of x.
func SetTo(site Site, vector Vector, where Selection) Edit {
	return Edit{site, where, func(edit *pb.Intervention, from *sources) error {
		sent, err := vector.on(from)
		edit.Operation = &pb.Intervention_Set{Set: &pb.SetEdit{Vector: sent}}
		return err
	}}
}

// Mean is mean ablation: the mean over all tokens of the current run of source at the same site.
func Mean(site Site, source *Client, where Selection) Edit {
	return Edit{site, where, func(edit *pb.Intervention, from *sources) error {
		id, err := from.id(source)
		edit.Operation = &pb.Intervention_Mean{Mean: &pb.MeanEdit{RunId: id}}
		return err
	}}
}

// PatchOption is one of what Patch can be told.
type PatchOption func(*patched)

type patched struct{ rows, positions *[]int }

// FromPositions are the positions of the source in the places of those that Positions names. Default: the same.
func FromPositions(positions ...int) PatchOption {
	held := append([]int{}, positions...)
	return func(p *patched) { p.positions = &held }
}

// FromRows are the rows of the source in the places of those that OfRows names. Default: the same.
func FromRows(rows ...int) PatchOption {
	held := append([]int{}, rows...)
	return func(p *patched) { p.rows = &held }
}

// Patch is what the current run of source has at the same site, with its own edits (activation patching).
func Patch(site Site, source *Client, where Selection, options ...PatchOption) Edit {
	var asked patched
	for _, option := range options {
		option(&asked)
	}
	return Edit{site, where, func(edit *pb.Intervention, from *sources) error {
		id, err := from.id(source)
		if err != nil {
			return err
		}
		made := &pb.PatchEdit{RunId: id}
		edit.Operation = &pb.Intervention_Patch{Patch: made}
		if made.SourceRows, err = mapped("FromRows", asked.rows, edit.GetChosenRows()); err != nil {
			return err
		}
		made.SourcePositions, err = mapped("FromPositions", asked.positions, edit.GetChosenPositions())
		return err
	}}
}

// Project scales the part along a direction: x + (factor - 1) (x.u) u, where u = v / norm(v). 0 removes it.
func Project(site Site, vector Vector, factor float64, where Selection) Edit {
	return Edit{site, where, func(edit *pb.Intervention, from *sources) error {
		sent, err := vector.on(from)
		edit.Operation = &pb.Intervention_Project{Project: &pb.ProjectEdit{Vector: sent, Factor: factor}}
		return first(err, finite("factor", factor))
	}}
}

// Clamp brings the coordinate x.u along u = v / norm(v) between two bounds, of which one may be infinite.
func Clamp(site Site, vector Vector, least, most float64, where Selection) Edit {
	return Edit{site, where, func(edit *pb.Intervention, from *sources) error {
		if err := checkBounds(least, most); err != nil {
			return err
		}
		sent, err := vector.on(from)
		edit.Operation = &pb.Intervention_Clamp{Clamp: &pb.ClampEdit{Vector: sent, Least: least, Most: most}}
		return err
	}}
}

// ClampFeature brings the activation of a feature of a sparse autoencoder of this site between two bounds, of which one may be
// infinite. What the sparse autoencoder does not account for stays. A negative feature counts from the end.
func ClampFeature(site Site, sae string, feature int, least, most float64, where Selection) Edit {
	return Edit{site, where, func(edit *pb.Intervention, _ *sources) error {
		number, err := index("feature", feature)
		made := &pb.ClampFeatureEdit{Sae: sae, Feature: number, Least: least, Most: most}
		edit.Operation = &pb.Intervention_ClampFeature{ClampFeature: made}
		return first(checkSAE(sae), err, checkBounds(least, most))
	}}
}

// Swap turns what is along one direction to another: x - (x.s) s + (x.s) t, for unit vectors of both.
func Swap(site Site, origin, target Vector, where Selection) Edit {
	return Edit{site, where, func(edit *pb.Intervention, from *sources) error {
		of, err := origin.on(from)
		if err != nil {
			return err
		}
		to, err := target.on(from)
		edit.Operation = &pb.Intervention_Swap{Swap: &pb.SwapEdit{Origin: of, Target: to}}
		return err
	}}
}

// Noise adds sd times a standard normal number, the same for the same seed on every machine, whatever else the batch has.
func Noise(site Site, sd float64, seed int64, where Selection) Edit {
	return Edit{site, where, func(edit *pb.Intervention, _ *sources) error {
		edit.Operation = &pb.Intervention_Noise{Noise: &pb.NoiseEdit{Sd: sd, Seed: seed}}
		if sd < 0 {
			return failure(ErrInvalidRequest, "sd is %v: a standard deviation is 0 or more", sd)
		}
		return finite("sd", sd)
	}}
}

// on is the message of it, with the runs that it takes from.
func (e Edit) on(from *sources) (*pb.Intervention, error) {
	if e.operate == nil {
		return nil, failure(ErrInvalidRequest, "an edit is absent: make one with Zero, Add or another function")
	}
	if err := e.site.check(); err != nil {
		return nil, err
	}
	made := &pb.Intervention{Site: e.site.wire}
	if err := e.where.into(made, e.site); err != nil {
		return nil, err
	}
	return made, e.operate(made, from)
}

// interventions are the messages of edits.
func interventions(edits []Edit, from *sources) ([]*pb.Intervention, error) {
	if len(edits) > mostEdits {
		return nil, failure(ErrTooLarge, "%d edits of one run, at most %d can be made", len(edits), mostEdits).because("TOO_LONG",
			"needed", strconv.Itoa(len(edits)), "allowed", strconv.Itoa(mostEdits))
	}
	var made []*pb.Intervention
	for _, edit := range edits {
		message, err := edit.on(from)
		if err != nil {
			return nil, err
		}
		made = append(made, message)
	}
	return made, nil
}

// mapped are indices of a source, as many as are changed.
func mapped(name string, given *[]int, changed *pb.Indices) (*pb.Indices, error) {
	if given == nil {
		return nil, nil
	}
	if changed == nil {
		return nil, failure(ErrInvalidRequest, "%s has %d entries, but what is changed is no list: name as many", name, len(*given))
	}
	if len(*given) != len(changed.Indices) {
		return nil, failure(ErrInvalidRequest, "%s has %d entries for %d that are changed: name as many", name, len(*given),
			len(changed.Indices))
	}
	found, err := indices(name, *given)
	return &pb.Indices{Indices: found}, err
}

func checkBounds(least, most float64) error {
	if !(least <= most) { // of NaN too
		return failure(ErrInvalidRequest, "clamp between %v and %v: the first must not be over the second", least, most)
	}
	return nil
}

// requireFewOf refuses more of something than one request has.
func requireFewOf(what string, count, most int) error {
	if count <= most {
		return nil
	}
	return failure(ErrTooLarge, "%d %s, at most %d can be asked for at once", count, what, most).because("TOO_LARGE",
		"needed", strconv.Itoa(count), "allowed", strconv.Itoa(most))
}

func finite(name string, value float64) error {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return failure(ErrInvalidRequest, "%s is %v: it must be finite", name, value)
	}
	return nil
}

// first is the first of them that is one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
