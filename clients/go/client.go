package transparentllm

import (
	"context"
	"sync"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Client is a language model in a server. It is safe for concurrent use: a read goes on with the run it began with. As
// there is one current run, goroutines that run inputs of their own each take a Copy.
type Client struct {
	*shared
	mutex sync.Mutex
	held  *run // nil before the first
}

// shared is what a client and its copies have in common.
type shared struct {
	calls    *calls
	weights  *weights
	kept     keptValues
	mutex    sync.Mutex
	models   map[string]*pb.ModelDescription // by digest
	features map[string]bool                 // nil until the server was asked
	limits   *pb.Limits                      // of the server, when it was asked
}

// mostModels whose descriptions are kept: a server that says to be another one at each run must not fill the memory.
const mostModels = 64

// Dial makes a client of the server at target: HOST:PORT, HOST (port 50051), unix:PATH or another gRPC target. It begins to connect,
// but waits for nothing: the first call tells whether a server is there.
//
// Errors: ErrInvalidRequest for an option that can never be right, or a target that gRPC refuses.
func Dial(target string, options ...Option) (*Client, error) {
	return DialAll([]string{target}, options...)
}

// DialAll is Dial of several servers of the same models. Each run lives on one of them, by its input; where that one is lost, it
// is run again on another. Nothing is shared between them but what they serve.
//
// Errors: as Dial; ErrInvalidRequest for no target, or one that is named twice.
func DialAll(targets []string, options ...Option) (*Client, error) {
	config, err := configured(targets, options)
	if err != nil {
		return nil, err
	}
	calls, err := dialled(config)
	if err != nil {
		return nil, err
	}
	common := &shared{calls: calls, models: map[string]*pb.ModelDescription{}}
	common.weights, common.kept = newWeights(calls), keptValues{newLRU[keptKey, arrival](config.cacheBytes)}
	return &Client{shared: common}, nil
}

// Copy gives a further client on the same connection. It has the same current run until it runs something itself.
func (c *Client) Copy() *Client {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.kept.hold(c.held)
	return &Client{shared: c.shared, held: c.held}
}

// Close closes the connection, also of all copies. Calls under way return ErrCancelled, later ones ErrInvalidRequest.
func (c *Client) Close() error { return c.calls.close() }

// IsServing tells whether the server has loaded its models and answers calls (the standard health check); not,
// if none answers within the time of the call.
func (c *Client) IsServing(ctx context.Context) (bool, error) { return c.calls.isServing(ctx) }

// ServerInfo is what the server serves and allows, and how exact its models were at load.
func (c *Client) ServerInfo(ctx context.Context) (*pb.ServerInfoResponse, error) {
	answer := &pb.ServerInfoResponse{}
	if err := c.calls.unary(ctx, "ServerInfo", &pb.ServerInfoRequest{}, answer, ""); err != nil {
		return nil, err
	}
	return answer, requireDigests(answer, c.calls.target)
}

// ModelInfo is shape and name of the model. Works before any run.
func (c *Client) ModelInfo(ctx context.Context) (*pb.ModelInfo, error) {
	answer := &pb.ModelInfoResponse{}
	if err := c.calls.unary(ctx, "ModelInfo", &pb.ModelInfoRequest{Model: c.calls.model}, answer, ""); err != nil {
		return nil, err
	}
	if answer.Info == nil {
		return nil, failure(ErrInternal, "%s answered ModelInfo without a model", c.calls.target)
	}
	return answer.Info, nil
}

// TokensToStrings gives the text of each token by itself, leading space included.
//
// Errors: ErrInvalidRequest, UNKNOWN_TOKEN, for an id outside the vocabulary.
func (c *Client) TokensToStrings(ctx context.Context, tokens []int64) ([]string, error) {
	ids, err := tokenIDs(tokens)
	if err != nil {
		return nil, err
	}
	answer := &pb.TokensToStringsResponse{}
	request := &pb.TokensToStringsRequest{Model: c.calls.model, TokenIds: ids}
	if err := c.calls.unary(ctx, "TokensToStrings", request, answer, ""); err != nil {
		return nil, err
	}
	if len(answer.Strings) != len(tokens) {
		return nil, failure(ErrInternal, "%s answered %d strings for %d tokens", c.calls.target, len(answer.Strings), len(tokens))
	}
	return answer.Strings, nil
}

// Run runs the sentences as one batch, which becomes the current run.
//
// Errors: ErrInvalidRequest, EMPTY_INPUT, for no sentence or one without any token; ErrTooLarge, TOO_LONG, for one longer
// than the model's context; for Edits, ErrInvalidRequest where one is not whole, ErrTooLarge, TOO_LONG, for more than 64,
// ErrNotRun for a source without a run, ErrNotSupported where model or server cannot make them. The current run is the old
// one then.
func (c *Client) Run(ctx context.Context, sentences []string, options ...RunOption) error {
	request, err := sentencesRequest(c.calls.model, sentences)
	if err != nil {
		return err
	}
	return c.begin(ctx, request, options)
}

// RunTokens is Run of token ids, one list a row, to which nothing is added.
//
// Errors: as Run; ErrInvalidRequest, UNKNOWN_TOKEN, for an id outside the vocabulary.
func (c *Client) RunTokens(ctx context.Context, tokens [][]int64, options ...RunOption) error {
	request, err := tokensRequest(c.calls.model, tokens)
	if err != nil {
		return err
	}
	return c.begin(ctx, request, options)
}

// Release tells the server that the current run is not needed any more. Reading it again runs it again.
//
// Errors: ErrNotRun.
func (c *Client) Release(ctx context.Context) error {
	held, err := c.current()
	if err != nil {
		return err
	}
	return c.calls.unary(ctx, "ReleaseRun", &pb.ReleaseRunRequest{RunId: held.id}, &pb.ReleaseRunResponse{}, held.key)
}

// RunID names the current run on the server: a hash of model, tokens and owner.
//
// Errors: ErrNotRun.
func (c *Client) RunID() (string, error) {
	held, err := c.current()
	if err != nil {
		return "", err
	}
	return held.id, nil
}

// BatchSize is the number of rows of the current run. No call is made.
//
// Errors: ErrNotRun.
func (c *Client) BatchSize() (int, error) {
	held, err := c.current()
	if err != nil {
		return 0, err
	}
	return held.tokens.shape[0], nil
}

// Tokens gives the token ids of the current run, padded on the right. [batch pos] I64. No call is made.
//
// Errors: ErrNotRun.
func (c *Client) Tokens(options ...ReadOption) (*Tensor, error) {
	return c.known("tokens", options, func(held *run) *Tensor { return held.tokens })
}

// Mask tells for each token of the current run whether it is a real one. [batch pos] BOOL. No call is made.
//
// Errors: ErrNotRun; ErrNotSupported where the model does not distinguish padding from tokens.
func (c *Client) Mask(options ...ReadOption) (*Tensor, error) {
	return c.known("mask", options, func(held *run) *Tensor { return held.mask })
}

// known is a part of what the answer to Run brought.
func (c *Client) known(name string, options []ReadOption, of func(*run) *Tensor) (*Tensor, error) {
	reading, err := readingOf(options)
	if err != nil {
		return nil, err
	}
	held, err := c.current()
	if err != nil {
		return nil, err
	}
	whole := of(held)
	if whole == nil {
		return nil, failure(ErrNotSupported, "the served model does not distinguish padding from tokens")
	}
	if err := reading.require(name, whole.dims); err != nil {
		return nil, err
	}
	return whole.cut(reading.of(whole.dims)), nil
}

func (c *Client) begin(ctx context.Context, request *pb.RunRequest, options []RunOption) (err error) {
	var asked runOptions
	for _, option := range options {
		option(&asked)
	}
	var from sources
	if request.Edits, err = c.interventions(ctx, asked.edits, &from); err != nil {
		return err
	}
	return c.replace(ctx, request, from.runs, runKey(request))
}

// interventions are the messages of edits, of which there are some only where the server can make them.
func (c *Client) interventions(ctx context.Context, edits []Edit, from *sources) ([]*pb.Intervention, error) {
	made, err := interventions(edits, from)
	if err != nil || len(made) == 0 {
		return nil, err
	}
	return made, c.require(ctx, "edits")
}

// replace makes a run, which becomes the current one.
func (c *Client) replace(ctx context.Context, request *pb.RunRequest, from []*run, key string) error {
	made, err := c.makeRun(ctx, request, from, key)
	if err != nil {
		return err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.hold(made)
	return nil
}

// hold lets a run be the current one. The caller holds the mutex.
func (c *Client) hold(made *run) {
	c.kept.hold(made)
	c.kept.leave(c.held)
	c.held = made
}

// makeRun runs a request where a routing key leads.
func (c *Client) makeRun(ctx context.Context, request *pb.RunRequest, from []*run, key string) (*run, error) {
	answer := &pb.RunResponse{}
	err := c.bringing(ctx, from, key, func() error {
		answer.Reset()
		return c.calls.unary(ctx, "Run", request, answer, key)
	})
	if err != nil {
		return nil, err
	}
	made, err := answeredRun(request, key, answer)
	if err != nil {
		return nil, err
	}
	made.sources = from
	return made, nil
}

func (c *Client) current() (*run, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.held == nil {
		return nil, failure(ErrNotRun, "nothing has been run yet: call Run first")
	}
	return c.held, nil
}

// ofRun reads from the current run, which is run again if the server has lost it.
func (c *Client) ofRun(ctx context.Context, read func(*run) error) error {
	held, err := c.current()
	if err != nil {
		return err
	}
	for reruns := 0; ; reruns++ {
		err := read(held)
		if !c.mayRerun(err) || reruns == mostReruns {
			return err
		}
		if held, err = c.runAgain(ctx, held); err != nil {
			return err
		}
	}
}

// mayRerun tells whether a read failed as the server no longer has the run, and may be made again.
func (c *Client) mayRerun(err error) bool {
	failed, ok := err.(*Error)
	return ok && failed.Class == ErrNotFound && failed.Reason == "RUN_NOT_FOUND" && c.calls.rerun
}

// runAgain makes a lost run again. It becomes the current one in place of the lost.
func (c *Client) runAgain(ctx context.Context, lost *run) (*run, error) {
	again, err := c.makeRun(ctx, lost.request, lost.sources, lost.key)
	if err != nil {
		return nil, err
	}
	if err := requireSameModel(lost.digest, again.digest, c.calls.target); err != nil {
		return nil, err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.held == lost {
		c.hold(again)
	}
	return again, nil
}

// description of the model with this digest, asked for until it is known; nil if it is not served.
func (s *shared) description(ctx context.Context, digest string) (*pb.ModelDescription, error) {
	if model := s.described(digest); model != nil {
		return model, nil
	}
	answer := &pb.ServerInfoResponse{}
	if err := s.calls.unary(ctx, "ServerInfo", &pb.ServerInfoRequest{}, answer, ""); err != nil {
		return nil, err
	}
	if err := requireDigests(answer, s.calls.target); err != nil {
		return nil, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.learn(answer)
	if len(s.models) >= mostModels {
		s.models = map[string]*pb.ModelDescription{}
	}
	for _, model := range answer.Models {
		if model.Digest == digest && s.models[digest] == nil { // calls under way rely on what they were told
			s.models[digest] = model
		}
	}
	return s.models[digest], nil
}

// described is what is known of a model already; else nil.
func (s *shared) described(digest string) *pb.ModelDescription {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.models[digest]
}

// learn notes what the server can do. The caller holds the mutex.
func (s *shared) learn(answer *pb.ServerInfoResponse) {
	s.features, s.limits = map[string]bool{}, answer.Limits
	for _, feature := range answer.Features {
		s.features[feature] = true
	}
}

// offers tells whether the server can do this; it is asked if that was not done yet.
func (s *shared) offers(ctx context.Context, feature string) (bool, error) {
	s.mutex.Lock()
	known := s.features != nil
	s.mutex.Unlock()
	if !known {
		answer := &pb.ServerInfoResponse{}
		if err := s.calls.unary(ctx, "ServerInfo", &pb.ServerInfoRequest{}, answer, ""); err != nil {
			return false, err
		}
		s.mutex.Lock()
		s.learn(answer)
		s.mutex.Unlock()
	}
	return s.has(feature), nil
}

// has tells whether the server, if it was asked, said that it can do this.
func (s *shared) has(feature string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.features[feature]
}

// requireDigests refuses descriptions whose digests are none. A model that was never loaded has none yet.
func requireDigests(answer *pb.ServerInfoResponse, target string) error {
	for _, model := range answer.Models {
		if model.Digest != "" && !isDigest(model.Digest) {
			return failure(ErrInternal, "%s describes a model with the digest %.100q, which is not a SHA-256 in hex", target,
				model.Digest)
		}
	}
	return nil
}
