package transparentllm

import pb "transparentllm.dev/go/transparent_llm/v1"

// mostPathSteps of one path, or of edges along one.
const mostPathSteps = 1000

// GradientPath is the straight way from a baseline to what the run has at a site, after the edits there: the embedding, unless At
// says otherwise. The functions that begin with From make one.
type GradientPath struct {
	steps    int
	site     Site
	baseline func(*pb.GradientPath, *sources) error
}

// FromZero begins at zeros. The steps are the nodes of the Gauss-Legendre rule, at least 1 and at most 1000; 50 are usual.
func FromZero(steps int) GradientPath {
	return GradientPath{steps, AtResidualIn(0), func(path *pb.GradientPath, _ *sources) error {
		path.Baseline = &pb.GradientPath_Zero{Zero: true}
		return nil
	}}
}

// FromToken begins at what the model has at the site, without edits, where a token stands at all positions.
func FromToken(token, steps int) GradientPath {
	return GradientPath{steps, AtResidualIn(0), func(path *pb.GradientPath, _ *sources) error {
		number, err := index("token", token)
		path.Baseline = &pb.GradientPath_TokenId{TokenId: number}
		return err
	}}
}

// FromRun begins at what another client's current run has at the site, of as many rows, each of as many tokens.
func FromRun(other *Client, steps int) GradientPath {
	return GradientPath{steps, AtResidualIn(0), func(path *pb.GradientPath, from *sources) error {
		id, err := from.id(other)
		path.Baseline = &pb.GradientPath_RunId{RunId: id}
		return err
	}}
}

// At is the same at another site: the stream as it enters or leaves a block, a branch, or heads.
func (p GradientPath) At(site Site) GradientPath {
	p.site = site
	return p
}

// on is the message of it, with the run that it takes from.
func (p GradientPath) on(from *sources) (*pb.GradientPath, error) {
	if p.baseline == nil || p.steps < 1 || p.steps > mostPathSteps {
		return nil, failure(ErrInvalidRequest, "a path has a baseline and 1 to %d steps, got %d", mostPathSteps, p.steps)
	}
	if err := p.site.check(); err != nil {
		return nil, err
	}
	switch p.site.wire.Kind {
	case pb.SiteKind_SITE_KIND_RESIDUAL_IN, pb.SiteKind_SITE_KIND_RESIDUAL_OUT, pb.SiteKind_SITE_KIND_ATTN_OUT,
		pb.SiteKind_SITE_KIND_FFN_OUT, pb.SiteKind_SITE_KIND_HEAD:
	default:
		return nil, failure(ErrInvalidRequest, "there is no path at %v: name AtResidualIn, AtResidualOut, AtAttnOut, AtFfnOut or "+
			"AtHead", p.site)
	}
	made := &pb.GradientPath{Steps: uint32(p.steps), Site: p.site.wire}
	return made, p.baseline(made, from)
}
