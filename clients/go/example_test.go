package transparentllm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	transparentllm "transparentllm.dev/go"
)

func Example() {
	ctx := context.Background()
	llm, err := transparentllm.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer llm.Close()
	if err := llm.Run(ctx, []string{"My lord, I am"}); err != nil {
		log.Fatal(err)
	}
	matrix, err := llm.AttentionMatrix(ctx, 0, 3, 1)
	if errors.Is(err, transparentllm.ErrIndexOutOfRange) {
		log.Fatal("the model has no such head: ", err)
	}
	if err != nil {
		log.Fatal(err)
	}
	weight, err := matrix.At(4, 0)
	fmt.Println(matrix.Dims(), weight, err)
}

// A value that is written to a file as it comes.
func ExampleClient_Open() {
	ctx := context.Background()
	llm, err := transparentllm.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer llm.Close()
	if err := llm.Run(ctx, []string{"My lord, I am"}); err != nil {
		log.Fatal(err)
	}
	reader, err := llm.Open(ctx, transparentllm.Logits(), transparentllm.WireDtype(transparentllm.BF16))
	if err != nil {
		log.Fatal(err)
	}
	defer reader.Close()
	file, err := os.Create("logits.bf16")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	written, err := io.Copy(file, reader)
	fmt.Println(reader.Header().Shape, written, err)
}

// A text that is written as it comes, and then what each layer would have said.
func ExampleClient_Generate() {
	ctx := context.Background()
	llm, err := transparentllm.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	defer llm.Close()
	asked := transparentllm.GenerateOptions{MaxNewTokens: 30, Temperature: 0.8, Seed: 1, Stop: []string{"\n"}}
	err = llm.Generate(ctx, []string{"My lord,"}, asked, func(step []*transparentllm.NextToken) error {
		fmt.Print(step[0].Text)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	residual, err := llm.ResidualOut(ctx, 0)
	fmt.Println(residual.Shape(), err)
}
