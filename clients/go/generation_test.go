package transparentllm_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

type (
	generateOptions = transparentllm.GenerateOptions
	nextToken       = transparentllm.NextToken
)

// ids of the tokens of each row, as the steps bring them.
func collect(rows *[][]int64, last *[]*nextToken) func([]*nextToken) error {
	return func(step []*nextToken) error {
		*rows = append(*rows, make([][]int64, len(step)-len(*rows))...)
		for row, token := range step {
			if token != nil {
				(*rows)[row] = append((*rows)[row], token.ID)
			}
		}
		*last = step
		return nil
	}
}

func TestAGenerationIsTheLikeliestTokenEachTime(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	prompts := [][]int64{{1, 2, 3, 4}, {9, 8}}
	var rows [][]int64
	var last []*nextToken
	asked := generateOptions{MaxNewTokens: 4, TopLogprobs: 3}
	if err := llm.GenerateTokens(background, prompts, asked, collect(&rows, &last)); err != nil {
		t.Fatal(err)
	}
	for _, token := range last {
		if token.Finished != transparentllm.FinishedLength || len(token.TopIDs) != 3 || token.TopIDs[0] != token.ID || token.TopLogprobs[0] != token.Logprob || token.Text == "" {
			t.Errorf("the last step has %+v", *token)
		}
	}
	name := must(llm.RunID())(t)
	logits := must(llm.Logits(background))(t)
	for row, made := range rows {
		for i, id := range made {
			pos, best := len(prompts[row])-1+i, 0
			for token := 0; token < logits.Shape()[2]; token++ {
				if must(logits.At(row, pos, token))(t) > must(logits.At(row, pos, best))(t) {
					best = token
				}
			}
			if int64(best) != id {
				t.Errorf("token %d of row %d is %d; the run says %d", i, row, id, best)
			}
		}
		prompts[row] = append(prompts[row], made[:len(made)-1]...)
	}
	other := llm.Copy()
	if err := other.RunTokens(background, prompts); err != nil || must(other.RunID())(t) != name {
		t.Errorf("the current run is not that of what was generated: %v", err)
	}
	if err := llm.Release(background); err != nil {
		t.Fatal(err)
	}
	if again := must(llm.Logits(background))(t); string(again.Bytes()) != string(logits.Bytes()) {
		t.Error("the run that was lost came back with other values")
	}
}

func TestWhatIsDrawnAndWhereItEnds(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	made := func(asked generateOptions) ([]int64, *nextToken) {
		t.Helper()
		var rows [][]int64
		var last []*nextToken
		if err := llm.Generate(background, []string{"My lord, the"}, asked, collect(&rows, &last)); err != nil {
			t.Fatal(err)
		}
		return rows[0], last[0]
	}
	plain, last := made(generateOptions{})
	if len(plain) != 20 || last.Finished != transparentllm.FinishedLength {
		t.Errorf("%v, %v", plain, last)
	}
	if first, _ := made(generateOptions{Temperature: 50, TopK: 1}); fmt.Sprint(first) != fmt.Sprint(plain) {
		t.Errorf("the likeliest are %v, drawn from one %v", plain, first)
	}
	drawn := generateOptions{Temperature: 1.5, TopP: 0.9, Seed: math.MaxUint64}
	one, _ := made(drawn)
	if two, _ := made(drawn); fmt.Sprint(one) != fmt.Sprint(two) {
		t.Errorf("one seed draws %v and %v", one, two)
	}
	drawn.Seed = 1
	if other, _ := made(drawn); fmt.Sprint(one) == fmt.Sprint(other) {
		t.Errorf("two seeds draw %v", one)
	}
	ids, last := made(generateOptions{StopTokens: plain[2:3]})
	if last.Finished != transparentllm.FinishedStop || last.ID != plain[2] || len(ids) > 3 {
		t.Errorf("stopped at %v by %v", last, ids)
	}
	text := last.Text
	if ids, last = made(generateOptions{Stop: []string{text}}); last.Finished != transparentllm.FinishedStop || !strings.Contains(last.Text, text) {
		t.Errorf("stopped at %v by %v", last, ids)
	}
	edits := []edit{transparentllm.Zero(transparentllm.AtResidualOut(0), transparentllm.Positions(1))}
	if ids, _ = made(generateOptions{Edits: edits}); fmt.Sprint(ids) == fmt.Sprint(plain) {
		t.Error("an edit changed nothing")
	}
	if effects := must(llm.Effects())(t); len(effects) != 1 || effects[0].Changed == 0 {
		t.Errorf("the run of it has %v", effects)
	}
}

func TestAGenerationBringsTheRunsThatItsEditsTakeFrom(t *testing.T) {
	llm, other := two(t)
	asked := generateOptions{MaxNewTokens: 2, Edits: []edit{transparentllm.Patch(at(1), other, transparentllm.Positions(1))}}
	if err := other.Release(background); err != nil {
		t.Fatal(err)
	}
	var rows [][]int64
	var last []*nextToken
	if err := llm.GenerateTokens(background, unedited, asked, collect(&rows, &last)); err != nil || len(rows[0]) != 2 {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestAGenerationThatIsLeft(t *testing.T) {
	llm := ran(t)
	name := must(llm.RunID())(t)
	enough := errors.New("enough")
	steps := 0
	err := llm.Generate(background, []string{"My lord"}, generateOptions{}, func([]*nextToken) error {
		steps++
		return enough
	})
	if err != enough || steps != 1 {
		t.Errorf("%v after %d steps", err, steps)
	}
	ctx, cancel := context.WithCancel(background)
	err = llm.Generate(ctx, []string{"My lord"}, generateOptions{MaxNewTokens: 200}, func([]*nextToken) error {
		cancel()
		return nil
	})
	if !errors.Is(err, transparentllm.ErrCancelled) {
		t.Errorf("cancelled: %v", err)
	}
	if must(llm.RunID())(t) != name {
		t.Error("the current run is another one")
	}
}

func TestGenerationsThatMakeNoSense(t *testing.T) {
	llm := ran(t)
	invalid, large := transparentllm.ErrInvalidRequest, transparentllm.ErrTooLarge
	for name, c := range map[string]struct {
		asked generateOptions
		class *transparentllm.Class
	}{
		"no tokens":         {generateOptions{MaxNewTokens: -1}, invalid},
		"cold":              {generateOptions{Temperature: 0.001}, invalid},
		"no temperature":    {generateOptions{Temperature: math.NaN()}, invalid},
		"top_k":             {generateOptions{TopK: -1}, invalid},
		"top_p":             {generateOptions{TopP: 1.1}, invalid},
		"no top_p":          {generateOptions{TopP: math.NaN()}, invalid},
		"top_logprobs":      {generateOptions{TopLogprobs: -1}, invalid},
		"many top_logprobs": {generateOptions{TopLogprobs: 21}, large},
		"an empty stop":     {generateOptions{Stop: []string{""}}, invalid},
		"a stop of bytes":   {generateOptions{Stop: []string{"\xFF"}}, invalid},
		"a long stop":       {generateOptions{Stop: []string{strings.Repeat("x", 257)}}, large},
		"many stops":        {generateOptions{Stop: make([]string, 17)}, large},
		"many stop tokens":  {generateOptions{StopTokens: make([]int64, 17)}, large},
		"a stop token":      {generateOptions{StopTokens: []int64{-1}}, invalid},
		"the last position": {generateOptions{Edits: []edit{transparentllm.Zero(at(0), transparentllm.LastPosition())}}, invalid},
		"one from the end":  {generateOptions{Edits: []edit{transparentllm.Zero(at(0), transparentllm.Positions(0, -1))}}, invalid},
		"too long":          {generateOptions{MaxNewTokens: 100000}, large},
	} {
		err := llm.Generate(background, []string{"My lord"}, c.asked, func([]*nextToken) error { return errors.New("a step") })
		if !errors.Is(err, c.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ignored := func([]*nextToken) error { return nil }
	if err := llm.GenerateChat(background, nil, generateOptions{}, ignored); !errors.Is(err, invalid) {
		t.Errorf("no message: %v", err)
	}
	if err := llm.GenerateChat(background, make([]transparentllm.ChatMessage, 1025), generateOptions{}, ignored); !errors.Is(err, large) {
		t.Errorf("many messages: %v", err)
	}
	user := []transparentllm.ChatMessage{{Role: "user", Content: "Who is king?"}}
	if err := llm.GenerateChat(background, user, generateOptions{}, ignored); !errors.Is(err, transparentllm.ErrNotSupported) {
		t.Errorf("a tokenizer without a chat template: %v", err)
	}
}

func stepOf(tokens ...*pb.GeneratedToken) *pb.GenerateResponse {
	return &pb.GenerateResponse{Tokens: tokens}
}

func ofRow(row uint32, id int32, finished pb.FinishReason) *pb.GeneratedToken {
	return &pb.GeneratedToken{Row: row, TokenId: id, Text: "t", Finished: finished}
}

// honestSteps are those of a generation of two rows, of which the second is shorter.
func honestSteps() []*pb.GenerateResponse {
	return []*pb.GenerateResponse{
		stepOf(ofRow(0, 5, 0), ofRow(1, 6, pb.FinishReason_FINISH_REASON_EOS)),
		stepOf(ofRow(0, 7, pb.FinishReason_FINISH_REASON_LENGTH)),
		{Run: &pb.GeneratedRun{RunId: "run", Rows: []*pb.TokenRow{{TokenIds: []int32{1, 2, 5}}, {TokenIds: []int32{3}}}}},
	}
}

func TestWhatComesOfAGenerationIsWhatWasAskedFor(t *testing.T) {
	generate := func(sent []*pb.GenerateResponse) error {
		answers := make([]proto.Message, len(sent))
		for i, each := range sent {
			answers[i] = each
		}
		info := &pb.ServerInfoResponse{Features: []string{"generate"}}
		llm := dial(t, liar{"ServerInfo": {info}, "Generate": answers, "Run": {twoByThree()}}.serve(t))
		return llm.GenerateTokens(background, [][]int64{{1, 2}, {3}}, generateOptions{MaxNewTokens: 2, TopLogprobs: 1},
			func([]*nextToken) error { return nil })
	}
	if err := generate(honestSteps()); err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func([]*pb.GenerateResponse) []*pb.GenerateResponse{
		"nothing":         func([]*pb.GenerateResponse) []*pb.GenerateResponse { return nil },
		"no run":          func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { return sent[:2] },
		"a run too early": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { return sent[2:] },
		"a step more":     func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { return append(sent, sent[1]) },
		"a finished row":  func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { sent[1].Tokens[0].Row = 1; return sent },
		"an unknown row":  func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { sent[1].Tokens[0].Row = 1 << 31; return sent },
		"a row twice":     func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { sent[0].Tokens[1].Row = 0; return sent },
		"a row missing": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse {
			sent[0].Tokens = sent[0].Tokens[1:]
			return sent
		},
		"no end":         func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { sent[1].Tokens[0].Finished = 0; return sent },
		"another end":    func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { sent[1].Tokens[0].Finished = 9; return sent },
		"a negative id":  func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { sent[1].Tokens[0].TokenId = -1; return sent },
		"a likeliest -1": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { return likeliest(sent, []int32{-1}, 1) },
		"two likeliest":  func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { return likeliest(sent, []int32{1, 2}, 2) },
		"a likeliest without a number": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse {
			return likeliest(sent, []int32{1}, 0)
		},
		"a run of other rows": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse {
			sent[2].Run.Rows = sent[2].Run.Rows[:1]
			return sent
		},
		"a run of another prompt": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse {
			sent[2].Run.Rows[0].TokenIds[0] = 9
			return sent
		},
		"a run of other tokens": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse {
			sent[2].Run.Rows[0].TokenIds[2] = 9
			return sent
		},
		"a run without a row": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse {
			sent[2].Run.Rows[1].TokenIds = nil
			return sent
		},
		"a run without a name": func(sent []*pb.GenerateResponse) []*pb.GenerateResponse { sent[2].Run.RunId = ""; return sent },
	} {
		if err := generate(lie(honestSteps())); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func likeliest(sent []*pb.GenerateResponse, ids []int32, numbers int) []*pb.GenerateResponse {
	sent[0].Tokens[0].TopIds, sent[0].Tokens[0].TopLogprobs = ids, make([]float32, numbers)
	return sent
}

func TestAGenerationIsBegunAgainOnlyBeforeItsFirstStep(t *testing.T) {
	gone := status.Error(codes.Unavailable, "gone")
	lost := func(pb.TransparentLlmService_GenerateServer) error { return gone }
	whole := func(stream pb.TransparentLlmService_GenerateServer) error {
		for _, each := range []*pb.GenerateResponse{stepOf(ofRow(0, 7, pb.FinishReason_FINISH_REASON_EOS)),
			{Run: &pb.GeneratedRun{RunId: "run", Rows: []*pb.TokenRow{{TokenIds: []int32{7}}}}}} {
			if err := stream.Send(each); err != nil {
				return err
			}
		}
		return nil
	}
	half := func(stream pb.TransparentLlmService_GenerateServer) error {
		if err := stream.Send(stepOf(ofRow(0, 7, 0))); err != nil {
			return err
		}
		return gone
	}
	ignored := func([]*nextToken) error { return nil }
	p := &peer{generations: []func(pb.TransparentLlmService_GenerateServer) error{lost, whole}}
	if err := begun(t, p).Generate(background, []string{"a"}, generateOptions{}, ignored); err != nil || p.generated != 2 {
		t.Errorf("%v after %d calls", err, p.generated)
	}
	p = &peer{generations: []func(pb.TransparentLlmService_GenerateServer) error{half, whole}}
	err := begun(t, p).Generate(background, []string{"a"}, generateOptions{}, ignored)
	var failed *transparentllm.Error
	if !errors.As(err, &failed) || failed.Class != transparentllm.ErrUnavailable || failed.Metadata["steps"] != "1" || p.generated != 1 {
		t.Errorf("%v after %d calls", err, p.generated)
	}
	llm := dial(t, liar{"ServerInfo": {&pb.ServerInfoResponse{}}}.serve(t))
	if err := llm.Generate(background, []string{"a"}, generateOptions{}, ignored); !errors.Is(err, transparentllm.ErrNotSupported) {
		t.Errorf("an old server: %v", err)
	}
}
