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
