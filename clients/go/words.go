package transparentllm

import (
	"context"
	"strconv"
	"strings"
	"unicode/utf8"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// TextOption is one of what ToTokens can be told.
type TextOption func(*pb.TokenizeRequest)

// AddBOS says whether the beginning token is put before a text that does not start with it. Default: as the model wants it,
// as Run does it.
func AddBOS(add bool) TextOption {
	return func(request *pb.TokenizeRequest) { request.AddBos = &add }
}

// ToTokens gives the token ids of a text, as Run would have them. No run is made.
//
// Errors: ErrInvalidRequest, EMPTY_INPUT, for a text without any token; ErrTooLarge, TOO_LONG, for one longer than the model's
// context; ErrNotFound, MODEL_CHANGED, if another model than that of the current run is served under the name by now.
func (c *Client) ToTokens(ctx context.Context, text string, options ...TextOption) ([]int64, error) {
	answer, err := c.tokenized(ctx, text, options)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(answer.TokenIds))
	for i, id := range answer.TokenIds {
		ids[i] = int64(id)
	}
	return ids, nil
}

// ToStrTokens gives the text of each of the tokens that ToTokens gives. Errors: those of ToTokens.
func (c *Client) ToStrTokens(ctx context.Context, text string, options ...TextOption) ([]string, error) {
	answer, err := c.tokenized(ctx, text, options)
	if err != nil {
		return nil, err
	}
	return answer.TokenStrings, nil
}

// ToSingleToken gives the id of a text that is one token, such as " Mary"; the space in front belongs to it.
//
// Errors: ErrInvalidRequest, with the number of "tokens", for several of them, which the message names; those of ToTokens.
func (c *Client) ToSingleToken(ctx context.Context, text string) (int64, error) {
	answer, err := c.tokenized(ctx, text, []TextOption{AddBOS(false)})
	if err != nil {
		return 0, err
	}
	if count := len(answer.TokenIds); count != 1 {
		return 0, failure(ErrInvalidRequest, "%s is %d tokens, not one: %s", quoted(text), count, firstOf(answer.TokenStrings)).because(
			"INVALID_REQUEST", "tokens", strconv.Itoa(count))
	}
	return int64(answer.TokenIds[0]), nil
}

// Last gives the position of the last token of each row of the current run, which padding may follow. No call is made.
//
// Errors: ErrNotRun; ErrNotSupported where the model does not distinguish padding from tokens.
func (c *Client) Last() ([]int, error) {
	mask, err := c.Mask()
	if err != nil {
		return nil, err
	}
	last := make([]int, mask.shape[0])
	for row := range last {
		last[row] = lengthOf(mask, row) - 1
	}
	return last, nil
}

// TokenAt is one token of a run.
type TokenAt struct {
	Row, Pos int
	ID       int64
	// Text is that of the token by itself, leading space included.
	Text string
}

// DescribeRun lists the tokens of the current run, id beside text. Padding is left out, where it is known.
//
// Errors: ErrNotRun.
func (c *Client) DescribeRun(ctx context.Context) ([]TokenAt, error) {
	held, err := c.current()
	if err != nil {
		return nil, err
	}
	var listed []TokenAt
	for row := 0; row < held.tokens.shape[0]; row++ {
		ids := make([]int64, held.length(row))
		for pos := range ids {
			ids[pos] = held.tokens.int64(row*held.tokens.shape[1] + pos)
		}
		texts, err := c.TokensToStrings(ctx, ids)
		if err != nil {
			return nil, err
		}
		for pos, text := range texts {
			listed = append(listed, TokenAt{row, pos, ids[pos], text})
		}
	}
	return listed, nil
}

func (c *Client) tokenized(ctx context.Context, text string, options []TextOption) (*pb.TokenizeResponse, error) {
	if !utf8.ValidString(text) {
		return nil, failure(ErrInvalidRequest, "the text is not valid UTF-8")
	}
	request, answer := &pb.TokenizeRequest{Model: c.calls.model, Text: text, ModelDigest: c.digest()}, &pb.TokenizeResponse{}
	for _, option := range options {
		option(request)
	}
	if err := c.calls.unary(ctx, "Tokenize", request, answer, ""); err != nil {
		return nil, err
	}
	if len(answer.TokenIds) == 0 || len(answer.TokenStrings) != len(answer.TokenIds) {
		return nil, failure(ErrInternal, "%s answered %d strings for the %d tokens of a text", c.calls.target, len(answer.TokenStrings),
			len(answer.TokenIds))
	}
	for _, id := range answer.TokenIds {
		if id < 0 {
			return nil, failure(ErrInternal, "%s answered the token id %d", c.calls.target, id)
		}
	}
	return answer, nil
}

// digest of the model of the current run; empty before any.
func (c *Client) digest() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.held == nil {
		return ""
	}
	return c.held.digest
}

// lengthOf counts the tokens of a row, which padding follows.
func lengthOf(mask *Tensor, row int) int {
	count := 0
	for _, isToken := range mask.data[row*mask.shape[1] : (row+1)*mask.shape[1]] {
		count += int(isToken)
	}
	return count
}

// quoted is a text in quotation marks, in a message: so much of it at most.
func quoted(text string) string {
	return strconv.Quote(legible(text, 100))
}

// firstOf names the first of some texts.
func firstOf(texts []string) string {
	const most = 10
	var named []string
	for i := 0; i < len(texts) && i < most; i++ {
		named = append(named, quoted(texts[i]))
	}
	return strings.Join(named, ", ")
}
