package transparentllm

import (
	"strconv"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// arriving is what has come of one generation, held to what was asked for.
type arriving struct {
	most, mostTop int
	prompts       []*pb.Prompt // none of a chat
	tokens        [][]int32    // new ones of each row
	goingOn       int          // rows that are not finished
	isFinished    []bool
	rows          *pb.TokenBatch // of the run, when it is there
}

func arrivingOf(request *pb.GenerateRequest) *arriving {
	count := len(request.Prompts)
	if len(request.Messages) > 0 {
		count = 1
	}
	return &arriving{most: int(request.MaxNewTokens), mostTop: int(request.TopLogprobs), prompts: request.Prompts,
		tokens: make([][]int32, count), goingOn: count, isFinished: make([]bool, count)}
}

// requireNone refuses to ask again when some steps have come, as no server knows how to go on behind them.
func (a *arriving) requireNone(target string) error {
	steps := 0
	for _, row := range a.tokens {
		if len(row) > steps {
			steps = len(row)
		}
	}
	if steps == 0 {
		return nil
	}
	return failure(ErrUnavailable, "%s was lost after %d of at most %d steps of a generation; generate again, or go on with "+
		"GenerateTokens from what has come", target, steps, a.most).because("UNAVAILABLE", "steps", strconv.Itoa(steps),
		"target", target)
}

// result is the rows that are to be run.
func (a *arriving) result(target string) (*pb.TokenBatch, error) {
	if a.rows == nil {
		return nil, failure(ErrInternal, "%s ended a generation before its run had come", target)
	}
	return a.rows, nil
}

// take hands a message on, if it is a step.
func (a *arriving) take(message *pb.GenerateResponse, step func([]*NextToken) error) error {
	if a.rows != nil || (message.Run != nil) == (a.goingOn > 0) || (message.Run != nil && len(message.Tokens) > 0) {
		return failure(ErrInternal, "the server sent a run before the last token, or a token after it")
	}
	if message.Run != nil {
		return a.takeRun(message.Run)
	}
	if len(message.Tokens) != a.goingOn {
		return failure(ErrInternal, "the server sent a step of %d tokens for the %d rows that are not finished",
			len(message.Tokens), a.goingOn)
	}
	made := make([]*NextToken, len(a.tokens))
	for _, token := range message.Tokens {
		row := token.GetRow()
		if uint64(row) >= uint64(len(made)) || a.isFinished[row] || made[row] != nil {
			return failure(ErrInternal, "the server sent a token of row %d, which has none to come", row)
		}
		var err error
		if made[row], err = a.token(token, len(a.tokens[row])+1); err != nil {
			return err
		}
	}
	for row, token := range made {
		if token != nil {
			a.add(row, token)
		}
	}
	return step(made)
}

// token is the one of that number of its row.
func (a *arriving) token(sent *pb.GeneratedToken, number int) (*NextToken, error) {
	top := len(sent.TopIds)
	if sent.TokenId < 0 || top > a.mostTop || top != len(sent.TopLogprobs) {
		return nil, failure(ErrInternal, "the server sent token %d with %d likeliest ones and %d numbers of them", sent.TokenId, top,
			len(sent.TopLogprobs))
	}
	finished, isKnown := finishes[sent.Finished]
	if !isKnown || (finished == NotFinished && number >= a.most) {
		return nil, failure(ErrInternal, "the server sent %d tokens of a row, and it is not finished", number)
	}
	made := &NextToken{ID: int64(sent.TokenId), Text: legible(sent.Text, mostTokenText), Logprob: sent.Logprob,
		Finished: finished, TopLogprobs: sent.TopLogprobs}
	for _, id := range sent.TopIds {
		if id < 0 {
			return nil, failure(ErrInternal, "the server sent the token id %d", id)
		}
		made.TopIDs = append(made.TopIDs, int64(id))
	}
	return made, nil
}

func (a *arriving) add(row int, token *NextToken) {
	a.tokens[row] = append(a.tokens[row], int32(token.ID))
	if token.Finished != NotFinished {
		a.isFinished[row] = true
		a.goingOn--
	}
}

// takeRun refuses rows that are not the prompts and what was generated.
func (a *arriving) takeRun(sent *pb.GeneratedRun) error {
	if len(sent.Rows) != len(a.tokens) || len(sent.RunId) == 0 || len(sent.RunId) > mostRunID {
		return failure(ErrInternal, "the server sent a run of %d rows for %d that were sent", len(sent.Rows), len(a.tokens))
	}
	rows := &pb.TokenBatch{}
	for i, row := range sent.Rows {
		if !a.isContinued(i, row.GetTokenIds()) {
			return failure(ErrInternal, "row %d of the run is not the prompt and what was generated", i)
		}
		rows.Sequences = append(rows.Sequences, &pb.TokenSequence{TokenIds: row.TokenIds})
	}
	a.rows = rows
	return nil
}

func (a *arriving) isContinued(number int, row []int32) bool {
	added := a.tokens[number]
	if len(added) == 0 || len(row) < len(added) {
		return false
	}
	prompt := row[:len(row)-len(added)+1]
	if sent := a.prompts; sent != nil && sent[number].GetTokens() != nil && !equalIDs(sent[number].GetTokens().TokenIds, prompt) {
		return false
	}
	for _, id := range row {
		if id < 0 {
			return false
		}
	}
	return equalIDs(row[len(prompt):], added[:len(added)-1])
}

func equalIDs(left, right []int32) bool {
	if len(left) != len(right) {
		return false
	}
	for i := range left {
		if left[i] != right[i] {
			return false
		}
	}
	return true
}
