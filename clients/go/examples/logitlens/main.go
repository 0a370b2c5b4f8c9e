// Command logitlens runs a sentence and prints, for each layer, the tokens that the residual stream at the last position
// would give if the model ended there.
//
//	logitlens [-target HOST:PORT] [-top N] SENTENCE
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strings"

	transparentllm "transparentllm.dev/go"
)

func main() {
	target := flag.String("target", "127.0.0.1:50051", "the server")
	top := flag.Int("top", 5, "tokens to print for each layer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := lens(ctx, *target, strings.Join(flag.Args(), " "), *top); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func lens(ctx context.Context, target, sentence string, top int) error {
	llm, err := transparentllm.Dial(target)
	if err != nil {
		return err
	}
	defer llm.Close()
	info, err := llm.ModelInfo(ctx)
	if err != nil {
		return err
	}
	if err := llm.Run(ctx, []string{sentence}); err != nil {
		return err
	}
	lastPosition := transparentllm.Slice("pos", transparentllm.Start(-1))
	for layer := 0; layer < int(info.NLayers); layer++ {
		residual, err := llm.ResidualOut(ctx, layer, lastPosition)
		if err != nil {
			return err
		}
		tokens, err := likely(ctx, llm, residual, top)
		if err != nil {
			return err
		}
		fmt.Printf("layer %2d  %s\n", layer, tokens)
	}
	return nil
}

// likely gives the tokens that a vector of the residual stream [1 1 d_model] points to, the likeliest first.
func likely(ctx context.Context, llm *transparentllm.Client, residual *transparentllm.Tensor, top int) (string, error) {
	values, err := residual.Float32s()
	if err != nil {
		return "", err
	}
	projected, err := llm.Unembed(ctx, transparentllm.NewVector(values), true)
	if err != nil {
		return "", err
	}
	logits, err := projected.Float32s()
	if err != nil {
		return "", err
	}
	order := make([]int64, len(logits))
	for token := range order {
		order[token] = int64(token)
	}
	sort.Slice(order, func(a, b int) bool { return logits[order[a]] > logits[order[b]] })
	if top > len(order) {
		top = len(order)
	}
	texts, err := llm.TokensToStrings(ctx, order[:top])
	return fmt.Sprintf("%q", texts), err
}
