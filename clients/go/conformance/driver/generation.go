package main

import (
	"encoding/json"
	"errors"
	"fmt"

	transparentllm "transparentllm.dev/go"
)

// generationFields are those of a generation of a scenario.
type generationFields struct {
	Prompts  json.RawMessage `json:"prompts"`
	Messages []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
	MaxNewTokens *int              `json:"max_new_tokens"`
	Temperature  float64           `json:"temperature"`
	TopK         *int              `json:"top_k"`
	TopP         *float64          `json:"top_p"`
	Seed         json.Number       `json:"seed"`
	Stop         []json.RawMessage `json:"stop"`
	TopLogprobs  int               `json:"top_logprobs"`
}

// options of the call. Zeros that are none of a number's own are handed on as numbers that the client refuses, as its own mean
// that nothing was asked for.
func (g generationFields) options() (made transparentllm.GenerateOptions, err error) {
	made = transparentllm.GenerateOptions{Temperature: g.Temperature, TopLogprobs: g.TopLogprobs}
	for _, each := range []struct {
		given *int
		into  *int
	}{{g.MaxNewTokens, &made.MaxNewTokens}, {g.TopK, &made.TopK}} {
		if each.given != nil {
			if *each.into = *each.given; *each.into == 0 {
				*each.into = -1
			}
		}
	}
	if g.TopP != nil {
		if made.TopP = *g.TopP; made.TopP == 0 {
			made.TopP = -1
		}
	}
	if g.Seed != "" {
		if err := json.Unmarshal([]byte(g.Seed), &made.Seed); err != nil {
			return made, cannotBeSaid(err)
		}
	}
	for _, part := range g.Stop {
		var text string
		var id int64
		if json.Unmarshal(part, &text) == nil {
			made.Stop = append(made.Stop, text)
		} else if err := json.Unmarshal(part, &id); err != nil {
			return made, cannotBeSaid(err)
		} else {
			made.StopTokens = append(made.StopTokens, id)
		}
	}
	return made, nil
}

// cannotBeSaid is what a user gets whose words the language's types do not have.
func cannotBeSaid(err error) error {
	return &transparentllm.Error{Class: transparentllm.ErrInvalidRequest, Reason: "INVALID_REQUEST", Message: err.Error()}
}

func (c called) generate() (any, error) {
	if c.asked.Generation == nil {
		return nil, errors.New("a generation without its field")
	}
	options, err := c.asked.Generation.options()
	if err != nil {
		return nil, err
	}
	if options.Edits, err = c.madeEdits(); err != nil {
		return nil, err
	}
	steps := [][]fields{}
	step := func(tokens []*transparentllm.NextToken) error {
		made := make([]fields, len(tokens))
		for row, token := range tokens {
			if token != nil {
				made[row] = ofToken(token)
			}
		}
		steps = append(steps, made)
		return nil
	}
	if err := c.generated(options, step); err != nil {
		return nil, err
	}
	id, err := c.llm.RunID()
	return fields{"steps": steps, "run_id": id}, err
}

func (c called) generated(options transparentllm.GenerateOptions, step func([]*transparentllm.NextToken) error) error {
	asked := c.asked.Generation
	if asked.Messages != nil {
		var messages []transparentllm.ChatMessage
		for _, each := range asked.Messages {
			messages = append(messages, transparentllm.ChatMessage{Role: each.Role, Content: each.Content})
		}
		return c.llm.GenerateChat(c.ctx, messages, options, step)
	}
	var texts []string
	if json.Unmarshal(asked.Prompts, &texts) == nil {
		return c.llm.Generate(c.ctx, texts, options, step)
	}
	var rows [][]int64
	if err := json.Unmarshal(asked.Prompts, &rows); err != nil {
		return fmt.Errorf("prompts are neither texts nor token ids: %w", err)
	}
	return c.llm.GenerateTokens(c.ctx, rows, options, step)
}

func ofToken(token *transparentllm.NextToken) fields {
	made := fields{"token_id": token.ID, "text": token.Text, "logprob": token.Logprob, "finished": nil,
		"top_ids": append([]int64{}, token.TopIDs...), "top_logprobs": append([]float32{}, token.TopLogprobs...)}
	if token.Finished != transparentllm.NotFinished {
		made["finished"] = token.Finished
	}
	return made
}
