package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	transparentllm "transparentllm.dev/go"
)

// called is one call: where it goes and how its values are read.
type called struct {
	ctx     context.Context
	llm     *transparentllm.Client
	args    []json.RawMessage
	options []transparentllm.ReadOption
	edits   []editFields
	clients map[string]*transparentllm.Client

	asked *request // for fields of single methods
}

// values are the methods that answer something else than a tensor.
var values = map[string]func(called) (any, error){
	"model_info":        modelInfo,
	"run":               run,
	"run_tokens":        runTokens,
	"effects":           effects,
	"generate":          called.generate,
	"compare":           called.compare,
	"plan":              called.plan,
	"batch_size":        func(c called) (any, error) { return c.llm.BatchSize() },
	"tokens_to_strings": tokensToStrings,
	"last":              func(c called) (any, error) { return c.llm.Last() },
	"describe_run":      describeRun,
	"to_tokens": func(c called) (any, error) {
		return ofText(c, func(text string, options ...transparentllm.TextOption) (any, error) {
			return c.llm.ToTokens(c.ctx, text, options...)
		})
	},
	"to_str_tokens": func(c called) (any, error) {
		return ofText(c, func(text string, options ...transparentllm.TextOption) (any, error) {
			return c.llm.ToStrTokens(c.ctx, text, options...)
		})
	},
	"to_single_token": func(c called) (any, error) {
		return ofText(c, func(text string, _ ...transparentllm.TextOption) (any, error) {
			return c.llm.ToSingleToken(c.ctx, text)
		})
	},
	"release":     func(c called) (any, error) { return nil, c.llm.Release(c.ctx) },
	"is_serving":  func(c called) (any, error) { return c.llm.IsServing(c.ctx) },
	"server_info": serverInfo,
}

func call(asked *request) (any, error) {
	made, err := asked.called()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if asked.CancelAfterS != nil {
		defer time.AfterFunc(seconds(*asked.CancelAfterS), cancel).Stop()
	}
	made.ctx = ctx
	reports := [][2]int64{}
	made.options = append(made.options, transparentllm.Progress(func(received, total int64) {
		reports = append(reports, [2]int64{received, total})
	}))
	got, err := made.answer(asked.Method)
	if err == nil && asked.Progress {
		got["progress"] = reports
	}
	return got, err
}

func (c called) answer(method string) (fields, error) {
	if answer, ok := values[method]; ok {
		value, err := answer(c)
		return fields{"value": value}, err
	}
	if method == "fetch" {
		return c.fetch()
	}
	switch method {
	case "gradients":
		return c.gradients()
	case "sweep":
		return c.sweep()
	}
	if method == "fetch_parts" {
		return c.fetchParts()
	}
	if asked, ok := analyses[method]; ok {
		return c.analysis(asked)
	}
	read, ok := tensors[method]
	if !ok {
		return nil, fmt.Errorf("no such method: %q", method)
	}
	value, err := read(c)
	if err != nil {
		return nil, err
	}
	encoded, err := encoded(value)
	return fields{"tensor": encoded}, err
}

func (r *request) called() (called, error) {
	llm, err := r.client()
	made := called{llm: llm, args: r.Args, edits: r.Edits, clients: r.clients, asked: r}
	for axis, part := range r.Slices {
		var bounds []transparentllm.Bound
		for i, of := range []func(int64) transparentllm.Bound{transparentllm.Start, transparentllm.Stop, transparentllm.Step} {
			if part[i] != nil {
				bounds = append(bounds, of(*part[i]))
			}
		}
		made.options = append(made.options, transparentllm.Slice(axis, bounds...))
	}
	if r.Dtype != "" {
		dtype, err := dtypeNamed(r.Dtype)
		if err != nil {
			return made, err
		}
		made.options = append(made.options, transparentllm.WireDtype(dtype))
	}
	return made, err
}

// argument reads one of the arguments; it is the driver's error if there is none of this type.
func argument[T any](c called, i int) (value T, err error) {
	if i >= len(c.args) {
		return value, fmt.Errorf("there is no argument %d", i)
	}
	return value, json.Unmarshal(c.args[i], &value)
}

func (c called) compare() (any, error) {
	var options []transparentllm.CompareOption
	if c.asked.FromPos != nil {
		options = append(options, transparentllm.FromPos(*c.asked.FromPos))
	}
	rows, err := c.llm.Compare(c.ctx, c.clients[c.asked.Other], options...)
	all := []fields{}
	for _, row := range rows {
		all = append(all, fields{"kl": row.KL, "top_token": row.TopToken, "top_string": row.TopString, "other_top_token": row.OtherTopToken,
			"other_top_string": row.OtherTopString, "kl_by_pos": row.KLByPos})
	}
	return all, err
}

func modelInfo(c called) (any, error) {
	info, err := c.llm.ModelInfo(c.ctx)
	return fields{"name": info.GetName(), "n_params_estimate": info.GetNParamsEstimate(), "n_layers": info.GetNLayers(),
		"n_heads": info.GetNHeads(), "d_model": info.GetDModel(), "d_vocab": info.GetDVocab()}, err
}

func run(c called) (any, error) {
	sentences, err := argument[[]string](c, 0)
	if err != nil {
		return nil, err
	}
	edits, err := c.edited()
	if err != nil {
		return nil, err
	}
	return ran(c, c.llm.Run(c.ctx, sentences, edits))
}

func runTokens(c called) (any, error) {
	rows, err := argument[[][]int64](c, 0)
	if err != nil {
		return nil, err
	}
	edits, err := c.edited()
	if err != nil {
		return nil, err
	}
	return ran(c, c.llm.RunTokens(c.ctx, rows, edits))
}

func ran(c called, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	id, err := c.llm.RunID()
	return fields{"run_id": id}, err
}

func tokensToStrings(c called) (any, error) {
	tokens, err := argument[[]int64](c, 0)
	if err != nil {
		return nil, err
	}
	texts, err := c.llm.TokensToStrings(c.ctx, tokens)
	return append([]string{}, texts...), err
}

// ofText calls a method that takes a text, and perhaps whether the beginning token is put before it.
func ofText(c called, method func(string, ...transparentllm.TextOption) (any, error)) (any, error) {
	text, err := argument[string](c, 0)
	if err != nil || len(c.args) < 2 {
		return orError(err, func() (any, error) { return method(text) })
	}
	addBOS, err := argument[bool](c, 1)
	return orError(err, func() (any, error) { return method(text, transparentllm.AddBOS(addBOS)) })
}

func orError[T any](err error, call func() (T, error)) (value T, _ error) {
	if err != nil {
		return value, err
	}
	return call()
}

func describeRun(c called) (any, error) {
	tokens, err := c.llm.DescribeRun(c.ctx)
	rows := [][]any{}
	for _, token := range tokens {
		rows = append(rows, []any{token.Row, token.Pos, token.ID, token.Text})
	}
	return rows, err
}

func serverInfo(c called) (any, error) {
	info, err := c.llm.ServerInfo(c.ctx)
	models := []fields{}
	for _, model := range info.GetModels() {
		models = append(models, fields{"name": model.GetInfo().GetName(), "digest": model.GetDigest(), "n_ctx": model.GetNCtx(),
			"dtype": transparentllm.Dtype(model.GetDtype()).String()})
	}
	return fields{"api_version": info.GetApiVersion(), "features": append([]string{}, info.GetFeatures()...), "models": models}, err
}
