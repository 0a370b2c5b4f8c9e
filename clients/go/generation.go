package transparentllm

import (
	"context"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

const (
	usualNewTokens = 20
	mostStops      = 16
	longestStop    = 256 // bytes of a text
	mostTopLogits  = 20
	mostMessages   = 1024 // of a chat
	coldest        = 0.01
	hottest        = 100
	mostTokenText  = 1000 // characters that are taken of the text of a token
)

// GenerateOptions say how many tokens are made, how each is chosen, and what ends a row. The zero value: 20 tokens, the
// likeliest each time.
type GenerateOptions struct {
	MaxNewTokens int      // of each row; 0: 20
	Temperature  float64  // 0: the likeliest token each time; else 0.01 to 100, what logits are divided by before one is drawn
	TopK         int      // only so many of the likeliest tokens are drawn from; 0: all
	TopP         float64  // only the likeliest tokens that have this probability together are drawn from, at most 1; 0: all
	Seed         uint64   // of what is drawn: equal seeds draw the same for the same number of row
	Stop         []string // texts that end a row, looked for in what was generated: 16 at most, of at most 256 bytes
	StopTokens   []int64  // tokens that end a row, 16 at most, beside the model's own
	TopLogprobs  int      // how many of the likeliest tokens are told beside each one, 20 at most
	// Edits are made in every step and in the run. Positions are all, or some of the prompt from 0.
	Edits []Edit
}

// Finished is why a row has no more tokens.
type Finished string

// The reasons.
const (
	NotFinished    Finished = ""       // it has more
	FinishedStop   Finished = "stop"   // a text or token of GenerateOptions, which is the last of the row
	FinishedLength Finished = "length" // there are MaxNewTokens
	FinishedEOS    Finished = "eos"    // a token that ends a text of this model
)

var finishes = map[pb.FinishReason]Finished{
	pb.FinishReason_FINISH_REASON_UNSPECIFIED: NotFinished,
	pb.FinishReason_FINISH_REASON_STOP:        FinishedStop,
	pb.FinishReason_FINISH_REASON_LENGTH:      FinishedLength,
	pb.FinishReason_FINISH_REASON_EOS:         FinishedEOS,
}

// NextToken is the token of a row in one step.
type NextToken struct {
	ID int64
	// Text is that of the token by itself, leading space included.
	Text string
	// Logprob is natural, as the model has it: before temperature, TopK and TopP.
	Logprob float32
	// Finished is why it is the last of its row; NotFinished if it is not.
	Finished Finished
	// TopIDs are the likeliest tokens, and TopLogprobs their log-probabilities.
	TopIDs      []int64
	TopLogprobs []float32
}

// ChatMessage is one of a conversation. The role is what the chat template of the model knows, such as "user".
type ChatMessage struct {
	Role, Content string
}

// Generate goes on with each prompt as if it were alone, token by token. It calls step with what came next: a token of each
// row, nil where the row is finished. An error of step ends the generation and is returned. The time of the call is also for
// what step does.
//
// When all have come, the current run is that of the prompts and all new tokens but the last of each row, which the model never
// read. After an error it is what it was.
//
// Errors: ErrInvalidRequest for an option that makes no sense; ErrTooLarge for more tokens than the model's context has room for;
// ErrBusy where the server has none for another generation now; ErrNotSupported where it cannot do it; ErrUnavailable if it was
// lost after the first step; for Edits those of Run.
func (c *Client) Generate(ctx context.Context, prompts []string, asked GenerateOptions,
	step func([]*NextToken) error) error {
	input, err := sentencesRequest(c.calls.model, prompts)
	if err != nil {
		return err
	}
	request := &pb.GenerateRequest{}
	for _, prompt := range prompts {
		request.Prompts = append(request.Prompts, &pb.Prompt{Prompt: &pb.Prompt_Text{Text: prompt}})
	}
	return c.generate(ctx, request, input, asked, step)
}

// GenerateTokens is Generate of rows of token ids, to which nothing is added.
//
// Errors: as Generate; ErrInvalidRequest, UNKNOWN_TOKEN, for an id outside the vocabulary.
func (c *Client) GenerateTokens(ctx context.Context, tokens [][]int64, asked GenerateOptions,
	step func([]*NextToken) error) error {
	input, err := tokensRequest(c.calls.model, tokens)
	if err != nil {
		return err
	}
	request := &pb.GenerateRequest{}
	for _, row := range input.GetTokens().Sequences {
		made := &pb.Prompt_Tokens{Tokens: &pb.TokenRow{TokenIds: row.TokenIds}}
		request.Prompts = append(request.Prompts, &pb.Prompt{Prompt: made})
	}
	return c.generate(ctx, request, input, asked, step)
}

// GenerateChat is Generate of one conversation, which the chat template of the model's tokenizer makes a text of, up to where
// the model is to answer.
//
// Errors: as Generate; ErrInvalidRequest for no message, ErrTooLarge for more than 1024; ErrNotSupported where the tokenizer
// has no chat template.
func (c *Client) GenerateChat(ctx context.Context, messages []ChatMessage, asked GenerateOptions,
	step func([]*NextToken) error) error {
	if len(messages) == 0 {
		return failure(ErrInvalidRequest, "a chat has no message: give at least one")
	}
	if err := requireFewOf("messages of a chat", len(messages), mostMessages); err != nil {
		return err
	}
	request, contents := &pb.GenerateRequest{}, make([]string, len(messages))
	for i, message := range messages {
		if !utf8.ValidString(message.Role) {
			return failure(ErrInvalidRequest, "the role of message %d is not valid UTF-8", i)
		}
		contents[i] = message.Content
		request.Messages = append(request.Messages, &pb.ChatMessage{Role: message.Role, Content: message.Content})
	}
	input, err := sentencesRequest(c.calls.model, contents)
	if err != nil {
		return err
	}
	return c.generate(ctx, request, input, asked, step)
}

// generate goes on with what a run of the input, whose routing key it has, would begin with.
func (c *Client) generate(ctx context.Context, request *pb.GenerateRequest, input *pb.RunRequest, asked GenerateOptions,
	step func([]*NextToken) error) error {
	if err := asked.into(request); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.calls.timeout)
	defer cancel()
	var from sources
	edits, err := c.interventions(ctx, asked.Edits, &from)
	if err != nil {
		return err
	}
	if err := c.require(ctx, "generate"); err != nil {
		return err
	}
	request.Model, request.Edits = c.calls.model, edits
	key, came := runKey(input), arrivingOf(request)
	err = c.bringing(ctx, from.runs, key, func() error {
		return c.calls.receive(ctx, messages{"Generate", key,
			func() (proto.Message, error) { return request, came.requireNone(c.calls.target) },
			func() proto.Message { return &pb.GenerateResponse{} },
			func(message proto.Message) error { return came.take(message.(*pb.GenerateResponse), step) }})
	})
	if err != nil {
		return err
	}
	rows, err := came.result(c.calls.target)
	if err != nil {
		return err
	}
	again := &pb.RunRequest{Model: c.calls.model, Input: &pb.RunRequest_Tokens{Tokens: rows}, Edits: edits}
	return c.replace(ctx, again, from.runs, key)
}

// into writes them into a request, but for the edits.
func (o GenerateOptions) into(request *pb.GenerateRequest) error {
	if o.MaxNewTokens == 0 {
		o.MaxNewTokens = usualNewTokens
	}
	for _, each := range []struct {
		name          string
		number, least int
	}{{"MaxNewTokens", o.MaxNewTokens, 1}, {"TopK", o.TopK, 0}, {"TopLogprobs", o.TopLogprobs, 0}} {
		if each.number < each.least || int64(each.number) > math.MaxUint32 {
			return failure(ErrInvalidRequest, "%s is %d: it must be at least %d, and fit into 32 bits", each.name, each.number,
				each.least)
		}
	}
	if err := first(o.checkChoice(), o.checkStops(), o.checkEdits()); err != nil {
		return err
	}
	ids, err := tokenIDs(o.StopTokens)
	if err != nil {
		return err
	}
	request.MaxNewTokens, request.TopK, request.TopLogprobs = uint32(o.MaxNewTokens), uint32(o.TopK), uint32(o.TopLogprobs)
	request.Temperature, request.Seed = o.Temperature, o.Seed
	request.StopStrings, request.StopTokenIds = append([]string(nil), o.Stop...), ids
	if o.TopP != 0 {
		request.TopP = &o.TopP
	}
	return requireFewOf("TopLogprobs", o.TopLogprobs, mostTopLogits)
}

func (o GenerateOptions) checkChoice() error {
	if o.Temperature != 0 && !(o.Temperature >= coldest && o.Temperature <= hottest) { // nor is NaN
		return failure(ErrInvalidRequest, "Temperature is %v: it must be 0, for the likeliest token each time, or from %v to %v",
			o.Temperature, coldest, hottest)
	}
	if !(o.TopP >= 0 && o.TopP <= 1) {
		return failure(ErrInvalidRequest, "TopP is %v: it must be over 0 and at most 1, or 0 for all tokens", o.TopP)
	}
	return nil
}

func (o GenerateOptions) checkStops() error {
	if err := first(requireFewOf("stop texts", len(o.Stop), mostStops), requireFewOf("stop tokens", len(o.StopTokens), mostStops)); err != nil {
		return err
	}
	for _, text := range o.Stop {
		switch {
		case text == "":
			return failure(ErrInvalidRequest, "a stop text is empty: every text has it")
		case !utf8.ValidString(text):
			return failure(ErrInvalidRequest, "a stop text is not valid UTF-8")
		}
		if err := requireFewOf("bytes of the stop text "+quoted(text), len(text), longestStop); err != nil {
			return err
		}
	}
	return nil
}

// checkEdits refuses edits whose places would be others in each step.
func (o GenerateOptions) checkEdits() error {
	for _, edit := range o.Edits {
		isMoving := edit.where.word == "last"
		for _, position := range edit.where.positions {
			isMoving = isMoving || position < 0
		}
		if isMoving {
			return failure(ErrInvalidRequest, "an edit of %v: the last token is another one in every step of a generation; name "+
				"positions of the prompt from 0, or AllPositions", edit.site)
		}
	}
	return nil
}
